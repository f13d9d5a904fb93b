import pytest

from mlx_ssd.export.source import source_of
from mlx_ssd.parity import decoding
from tests.parity.runs import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of the embedded model, its student moved far by a random adapter."""
    pytest.importorskip("torch")
    return make_run(tmp_path_factory.mktemp("parity") / "run")


@pytest.fixture(scope="session")
def subject(run):
    from mlx_ssd.parity.subject import subject_of

    return subject_of(source_of(run))


@pytest.fixture
def fewer_draws(monkeypatch):
    monkeypatch.setattr(decoding, "MILLION", 20_000)
