"""The page shows the table of the committed rows, and they say what it says."""

from benchmarks import exports, journal


def rows():
    return exports.newest(journal.read(journal.RESULTS / "exports.jsonl"))


def test_the_documented_table_is_that_of_the_committed_rows():
    found = journal.read(journal.RESULTS / "exports.jsonl")
    assert exports.table(found) in (journal.RESULTS.parents[1] / "docs" / "export.md").read_text()
    assert (journal.RESULTS / "exports.md").read_text() == exports.render(found)


def test_lossless_targets_are_the_student_and_half_precision_is_near():
    conversion = {(row["target"], row["precision"]): row["conversion"] for row in rows()}
    for target in (("adapter", "float32"), ("peft", "float32"), ("mlx", "bfloat16"), ("hf", "bfloat16")):
        assert conversion[target]["max_abs"] <= 1e-3 and conversion[target]["clear_top1"] == 1
    assert conversion["coreai", "float32"]["max_abs"] <= 1e-4
    for target in ("coreai", "coreml"):
        assert conversion[target, "float16"]["max_abs"] <= 0.05 and conversion[target, "float16"]["clear_top1"] >= 0.99


def test_graded_exports_solve_what_the_student_solves_within_two_points():
    graded = {(row["target"], row["precision"]): row["graded"] for row in rows() if "graded" in row}
    for target in (("adapter", "float32"), ("peft", "float32"), ("hf", "bfloat16"), ("mlx", "base")):
        assert -0.02 <= graded[target]["difference"]["low"] <= graded[target]["difference"]["high"] <= 0.02
