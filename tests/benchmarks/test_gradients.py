"""The page quotes the committed figures, and they say what it says."""

import json

from benchmarks import gradients, journal


def test_the_documented_table_is_that_of_the_committed_figures():
    facts = json.loads((journal.RESULTS / "gradients.json").read_text())
    assert gradients.table(facts) in (journal.RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()
    assert (journal.RESULTS / "gradients.md").read_text() == gradients.render(facts)
    largest = {(row["gradient"], row["targets"]): row["largest"] for row in facts["errors"]}
    assert largest["ours", "tokens"] < 1e-4
    assert largest["mlx-lm's loss", "tokens"] > 20 * largest["ours", "tokens"]
