"""Pearson's chi-square without scipy: by how many standard deviations counts miss their expectation."""

import numpy as np


def chi_square_z(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Wilson-Hilferty normal deviate of the statistic; cells that expect fewer than 5 are put together."""
    assert counts[probabilities == 0].sum() == 0, "an impossible outcome was seen"
    expected = probabilities * counts.sum()
    small = expected < 5
    counts = np.append(counts[~small], counts[small].sum())
    expected = np.append(expected[~small], expected[small].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    degrees = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    spread = 2 / (9 * degrees)
    return float(((statistic / degrees) ** (1 / 3) - (1 - spread)) / spread**0.5)
