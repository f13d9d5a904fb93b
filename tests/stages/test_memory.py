"""sample.memory_gb: too little for one answer is refused, little is worked with, and the samples are the same."""

import shutil

import pytest

from mlx_ssd.layout import RunFiles
from mlx_ssd.stages import NAMES
from tests import faults
from tests.conftest import SMALL, forget

BUNDLED = faults.environment("bundled")  # rows wait where memory is short


@pytest.mark.slow
def test_a_budget_that_is_too_small_is_refused_and_a_tight_one_draws_the_same(finished_run, tmp_path):
    whole, tight = RunFiles(finished_run), RunFiles(tmp_path / "tight")
    shutil.copytree(finished_run, tight.directory)
    forget(tight, *NAMES[NAMES.index("sample") :])

    refused = faults.run("sample", str(tight.directory), *SMALL, "--set", "sample.memory_gb=0.004")
    assert refused.returncode == 2
    assert "takes 0.00" in refused.stderr and "0.004 GB may be used; lower max_tokens, raise" in refused.stderr
    assert "Traceback" not in refused.stderr

    finished = faults.run("sample", str(tight.directory), *SMALL, "--set", "sample.memory_gb=0.006", env=BUNDLED)
    assert finished.returncode == 0, finished.stderr
    assert sorted(tight.samples.read_text().splitlines()) == sorted(whole.samples.read_text().splitlines())
