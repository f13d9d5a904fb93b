"""The table of benchmarks/serving.py, and what the documentation says of it."""

from pathlib import Path

import pytest

from benchmarks.journal import RESULTS, read
from benchmarks.serving import REQUESTS, by_concurrency, interval, render, sentence, table

DOCS = Path(__file__).parents[2] / "docs"


def pair(number, ratio, samples=REQUESTS, doubled=0, at_a_time=8):
    common = {"what": "faults", "at_a_time": at_a_time, "pair": number, "questions": 240, "command": "c"}
    plain = common | {"share": 0.0, "faults": 0, "seconds": 10.0, "samples": REQUESTS, "doubled": 0}
    faulty = {"share": 0.2, "faults": 50, "seconds": 10 * ratio, "ratio": ratio, "samples": samples, "doubled": doubled}
    return [plain, common | faulty]


def test_the_interval_is_of_the_geometric_mean():
    assert interval([2.0, 0.5])[0] == pytest.approx(1.0)
    mean, low, high = interval([1.2, 1.4, 1.6, 1.8])
    assert 1.2 <= low < mean < high <= 1.8


def test_missing_and_doubled_samples_are_counted():
    rows = [*pair(0, 1.5), *pair(1, 1.5, samples=REQUESTS - 3, doubled=2)]
    assert "1.50 [1.50, 1.50] times" in sentence(rows)
    assert sentence(rows).endswith("over 2 pairs; samples missing: 3, doubled: 2.")
    assert "| 2 | 10.00 | 15.00 | 1.50 | 240 | 50 | 197 | 2 |" in render(rows)
    assert "| samples missing, doubled |  | 0, 0 | 3, 2 |" in table(rows)


def test_concurrencies_are_told_apart():
    rows = [*pair(0, 3.0, at_a_time=16), *pair(0, 1.5), *pair(1, 1.5)]
    assert "8 at a time: seconds | without faults, 2 pairs | at most 2 | 1.50 [1.50, 1.50] |" in table(rows)
    assert "16 at a time: seconds | without faults, 1 pairs | at most 2 | 3.00 [3.00, 3.00] |" in table(rows)
    assert [sentence(of).split(",")[1] for of in by_concurrency(rows).values()] == [" 8 at a time", " 16 at a time"]
    assert "3.00 [3.00, 3.00] times" in render(rows) and "1.50 [1.50, 1.50] times" in render(rows)


def test_models_and_orders_are_counted():
    model = {"what": "model", "command": "c", "weights": "4 bit", "mean_difference": 0.06, "largest_difference": 1.2}
    orders = [{"what": "order", "order": "mlx_lm"}, {"what": "order", "order": "mlx_lm", "refused": "…"}]
    text = render([model, *orders])
    assert "| 4 bit | 0.06 | 1.2 | yes |" in text
    assert "drawn in order mlx_lm: refused in 1 of 2." in text


def test_the_committed_table_is_that_of_the_committed_rows_and_so_is_the_documentation():
    rows = read(RESULTS / "serving.jsonl")
    assert (RESULTS / "serving.md").read_text() == render(rows)
    text = " ".join((DOCS / "servers.md").read_text().split())
    for measured in by_concurrency(rows).values():
        assert sentence(measured) in text
        faulty = [row for row in measured if row["share"]]
        assert len(faulty) >= 5 and all(0.15 < row["faults"] / row["questions"] < 0.25 for row in faulty)
        assert all(row["samples"] == REQUESTS and row["doubled"] == 0 for row in measured)
    assert interval([row["ratio"] for row in by_concurrency(rows)[8] if row["share"]])[2] <= 2  # the measure
    for page in ("benchmarks.md", "reliability.md"):
        assert table(rows) in (DOCS / page).read_text()
