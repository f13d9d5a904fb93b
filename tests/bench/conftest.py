import pytest

from tests.export.conftest import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of the embedded model with a random adapter of rank 4, its update a fifth of each weight."""
    return make_run(tmp_path_factory.mktemp("bench") / "run")
