"""kill -9 at fifty random points of sampling: nothing that was finished is lost, nothing is doubled."""

import pytest

from mlx_ssd.records import Sample
from mlx_ssd.storage import Journal
from tests import faults
from tests.sampling.drawing import PROBLEMS, SAMPLES, draw

KILLS = 50


def keys(path):
    found = [sample.key for sample in Journal(path, Sample).read()]
    assert len(found) == len(set(found)), "a sample stands there twice"
    return set(found)


@pytest.mark.slow
def test_fifty_kills_lose_and_double_nothing(tmp_path):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"

    assert faults.Forked(draw, whole).wait() == 0
    lines: list[bytes] = []

    def size():
        """Bytes on disk; what once was a whole line there stays there."""
        text = killed.read_bytes() if killed.exists() else b""
        nonlocal lines
        assert text.startswith(b"".join(lines))
        lines = [line for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
        return len(text)

    hit = faults.kill(lambda: faults.Forked(draw, killed), size, whole.stat().st_size, KILLS, seed=0, own_work=True)
    assert hit >= 0.9 * KILLS, "the kills must hit a process at work"
    seen = keys(killed)
    assert 0 < len(seen) < PROBLEMS * SAMPLES, "and leave work for the last one"
    assert faults.Forked(draw, killed).wait() == 0
    assert seen < keys(killed) and len(keys(killed)) == PROBLEMS * SAMPLES
    assert sorted(killed.read_text().splitlines()) == sorted(whole.read_text().splitlines())
