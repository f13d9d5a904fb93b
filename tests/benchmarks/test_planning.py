"""The committed figures of the plan: rendered from their rows, and as good as is claimed."""

from benchmarks.journal import RESULTS, read
from benchmarks.planning.cases import CASES, lengths
from benchmarks.planning.report import MEMORY_WITHIN, SECONDS_WITHIN, newest, render
from mlx_ssd.budget.decoding import Work

ROWS = read(RESULTS / "planning.jsonl")


def test_the_table_is_that_of_the_rows():
    assert (RESULTS / "planning.md").read_text(encoding="utf-8") == render(ROWS)


def test_memory_is_predicted_within_ten_per_cent_at_ten_of_twelve_and_never_far_under():
    rows = newest(ROWS, "memory")
    ratios = [row["predicted"] / row["measured"] for row in rows]
    assert len(rows) >= 12 and {row["model"] for row in rows} == {"embedded", "smollm2"}
    assert {row["stage"] for row in rows} == {"sample", "train"} and {row["bits"] for row in rows} >= {None, 4}
    assert min(row["ratio"] for row in rows) >= 0.9  # to three places, as the rows have it
    assert sum(abs(ratio - 1) <= MEMORY_WITHIN for ratio in ratios) / len(ratios) >= 10 / 12
    for row, ratio in zip(rows, ratios, strict=True):
        assert row["ratio"] == round(ratio, 3) and abs(row["predicted"] - sum(row["parts"].values())) < 10


def test_seconds_are_the_median_of_three_and_within_a_quarter_at_ten_of_twelve():
    rows = newest(ROWS, "seconds")
    assert len(rows) >= 12 and {row["model"] for row in rows} == {"embedded", "smollm2"}
    assert not any(row["busy"] for row in rows)
    near = [abs(row["predicted"] / row["measured"] - 1) <= SECONDS_WITHIN for row in rows]
    assert sum(near) / len(near) >= 10 / 12
    for row in rows:
        assert row["measured"] == sorted(row["repeats"])[1] and len(row["repeats"]) == 3


def test_the_documents_quote_every_row():
    page = (RESULTS.parent.parent / "docs/benchmarks.md").read_text(encoding="utf-8")
    lines = [line for line in render(ROWS).splitlines() if line.startswith("|")]
    assert len(lines) > 24 and not [line for line in lines if line not in page]


def test_lengths_have_the_mean_and_the_limit_that_the_plan_is_told():
    for case in CASES:
        prompts, answers = lengths(case)
        assert max(answers) <= case.limit and max(prompts) <= case.work.longest_prompt
        assert sum(answers) / len(answers) > 0.85 * case.answer
        assert isinstance(case.work, Work) and len(prompts) == len(answers) == case.count


def test_rows_are_the_newest_of_each_configuration():
    rows = [
        {"experiment": "memory", "model": "embedded", "name": "a", "ratio": 1.0},
        {"experiment": "seconds", "model": "embedded", "name": "a", "ratio": 3.0},
        {"experiment": "memory", "model": "embedded", "name": "a", "ratio": 2.0},
        {"experiment": "memory", "model": "smollm2", "name": "a", "ratio": 4.0},
    ]
    assert [row["ratio"] for row in newest(rows, "memory")] == [2.0, 4.0]
