"""The page shows the table of the committed rows, and they say what it says."""

import numpy as np
import pytest

from benchmarks import journal, quantizer

ROWS = journal.read(journal.RESULTS / "quantizer.jsonl")


def test_the_documented_table_is_that_of_the_committed_rows():
    assert quantizer.table(ROWS) in (journal.RESULTS.parents[1] / "docs" / "export.md").read_text()
    assert (journal.RESULTS / "quantizer.md").read_text() == quantizer.render(ROWS)


@pytest.mark.parametrize("scale", [1, 1 / 4, 1 / 16])
def test_the_fit_is_at_most_a_quarter_as_far_from_the_student_as_fuse(scale):
    """The mean of three choices of calibration texts; the interval ends below a third."""
    methods = quantizer.newest(ROWS)["embedded", scale]
    ours, (fuse,) = np.array([row["kl_texts"] for row in methods["ours"]]), methods["fuse"]
    assert len(ours) == 3
    assert ours.mean() <= fuse["kl"] / 4
    assert quantizer.ratio_interval(ours, np.array(fuse["kl_texts"]))[1] < 1 / 3


def test_plain_fuse_fails_verify_at_a_sixteenth():
    """Verify refuses what is more than half as far from the student as the base is."""
    (fuse,) = quantizer.newest(ROWS)["embedded", 1 / 16]["fuse"]
    assert fuse["kl"] > fuse["kl_base"] / 2


def test_interval_of_a_ratio_is_over_texts_and_seeds():
    fuse = np.linspace(1, 5, 40)
    assert quantizer.ratio_interval(np.stack([fuse / 4] * 3), fuse) == pytest.approx((0.25, 0.25))  # a text for both
    low, high = quantizer.ratio_interval(np.stack([fuse / 4, fuse / 2]), fuse)
    assert (low, high) == pytest.approx((0.25, 0.5))  # of two seeds, at times one alone
    low, high = quantizer.ratio_interval(np.random.default_rng(0).permutation(fuse)[None], fuse)
    assert low < 0.95 and high > 1.05
