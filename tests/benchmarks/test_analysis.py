"""The committed rows of the analysis' time and memory, and what docs/benchmarks.md quotes of them."""

from benchmarks import analysis, journal

ROWS = journal.read(journal.RESULTS / "analysis.jsonl")


def test_the_page_is_made_of_the_rows_and_the_documents_quote_it():
    page = (journal.RESULTS / "analysis.md").read_text(encoding="utf-8")
    assert analysis.render(ROWS) == page
    document = (journal.RESULTS.parent.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) >= 8 and all(line in document for line in lines)


def test_it_takes_at_most_half_more_than_two_forward_passes_and_memory_does_not_grow():
    times = [row for row in ROWS if row["what"] == "time"]
    assert {row["model"] for row in times} == {"embedded", "smollm2"}
    for row in times:
        ratios = [ours / plain for ours, plain in zip(row["analysis_seconds"], row["plain_seconds"], strict=True)]
        assert abs(sum(ratios) / len(ratios) - row["ratio"]["mean"]) < 1e-3
        assert row["ratio"]["high"] <= 1.5 and row["reached"]
    for model in ("embedded", "smollm2"):
        few, many = [row for row in ROWS if row["what"] == "memory" and row["model"] == model][-2:]
        assert many["texts"] == analysis.MORE * few["texts"]
        assert many["peak_mlx_bytes"] < 1.1 * few["peak_mlx_bytes"]
