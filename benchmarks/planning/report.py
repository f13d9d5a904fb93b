"""The table of the committed rows."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.journal import Row

MEMORY_WITHIN, SECONDS_WITHIN = 0.10, 0.25


def newest(rows: Sequence[Row], experiment: str) -> list[Row]:
    """Of each configuration the last row."""
    of = {(row["model"], row["name"]): row for row in rows if row["experiment"] == experiment}
    return list(of.values())


def render(rows: Sequence[Row]) -> str:
    """Markdown: a table an experiment, and how many of its ratios are near enough."""
    text = ["# The plan: predicted against measured", "", "`python -m benchmarks.planning`, from planning.jsonl.", ""]
    if found := newest(rows, "memory"):
        near = [abs(row["ratio"] - 1) <= MEMORY_WITHIN for row in found]
        low = min(row["ratio"] for row in found)
        text += [
            "## Peak memory",
            "",
            f"Within {MEMORY_WITHIN:.0%}: {sum(near)} of {len(near)}. The lowest prediction is {low:.2f} of what was "
            + "measured. *Footprint* is the peak of the process, with Python and its libraries.",
            "",
            "| model | bits | configuration | rows | predicted MB | measured MB | of measured | footprint MB |",
            "|---|---|---|---|---|---|---|---|",
            *(
                f"| {row['model']} | {row['bits'] or '-'} | {row['name']} | {row['rows']:,} | "
                f"{row['predicted'] / 1e6:.1f} | {row['measured'] / 1e6:.1f} | {row['ratio']:.2f} | "
                f"{row['footprint'] / 1e6:.0f} |"
                for row in found
            ),
            "",
        ]
    if found := newest(rows, "seconds"):
        near = [abs(row["ratio"] - 1) <= SECONDS_WITHIN for row in found]
        busy = " Other work ran on the machine meanwhile where *busy* stands." if any(r["busy"] for r in found) else ""
        text += [
            "## Seconds",
            "",
            f"Within {SECONDS_WITHIN:.0%}: {sum(near)} of {len(near)}.{busy}",
            "",
            "| model | configuration | predicted s | measured s | of measured | calibration s | load |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {row['model']} | {row['name']} | {row['predicted']:.2f} | {row['measured']:.2f} | "
                f"{row['ratio']:.2f} | {row['calibration_seconds']:.0f} | {row['load']}{' busy' * row['busy']} |"
                for row in found
            ),
            "",
        ]
    return "\n".join(text)
