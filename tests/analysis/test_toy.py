"""The paper's state machine: its numbers (tests/decoding has those of the policies alone)."""

import json

import pytest
from click.testing import CliRunner

from mlx_ssd.analysis.toy import measured
from mlx_ssd.cli import main

PAPER = {"0.65": 3.96, "0.70": 3.08, "0.75": 4.18, "0.80": 5.44, "0.85": 2.03, "0.90": 1.35}


@pytest.fixture(scope="module")
def found():
    return measured()


def test_the_papers_numbers(found):
    assert 100 * found["teacher"]["best"] == pytest.approx(8.33, abs=0.02)
    assert found["teacher"]["best_T"] == pytest.approx(0.639, abs=0.003)
    assert 100 * found["student"]["best"] == pytest.approx(13.77, abs=0.02)
    assert found["student"]["best_T"] == pytest.approx(2.091, abs=0.005)
    for top_p, gap in PAPER.items():
        assert 100 * found["gaps"][top_p] == pytest.approx(gap, abs=0.02), top_p


def test_the_papers_distributions(found):
    bars, decoded = found["bars"], found["decoded"]
    assert bars["lock"]["student"][:2] == pytest.approx([0.948, 0.052], abs=0.05)
    assert sorted(bars["root"]["student"])[-1] == pytest.approx(0.406, abs=0.001)
    assert sorted(decoded["fork"]["teacher"])[::-1][:4] == pytest.approx([0.482, 0.178, 0.170, 0.170], abs=0.001)
    assert sorted(decoded["fork"]["student"])[::-1][:4] == pytest.approx([0.321, 0.229, 0.225, 0.225], abs=0.001)
    for side in ("teacher", "student"):
        assert max(found[side]["success"]) <= found[side]["best"] + 1e-9
        assert len(found[side]["T"]) == len(found[side]["success"])


def test_the_command(tmp_path, monkeypatch, found):
    monkeypatch.setattr("mlx_ssd.analysis.toy.measured", lambda: found)
    result = CliRunner().invoke(main, ["analyze", "--toy", "--out", str(tmp_path)])
    assert result.exit_code == 0 and "8.33 %  at T 0.639" in result.output and "13.77 %" in result.output
    assert json.loads((tmp_path / "toy.json").read_text())["gaps"].keys() == PAPER.keys()
