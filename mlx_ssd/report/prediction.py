"""What the plan said before the run, beside what the run took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_ssd.progress import duration

# Stages of the plan, and the units that are meant.
STAGES = {"sample": ("sample",), "train": ("train",), "evaluate": ("evaluate", "validate")}


def against_plan(plan: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a stage: {"stage", "peak_bytes", "seconds"}, the last two each {"predicted", "measured"}.

    plan: plan.json. measured: what each unit returned, by its name; of a stage's units the highest peak counts, and
    the sum of their seconds. A figure that was not predicted or not measured is absent, and so is a row without any.
    """
    rows = []
    for stage, meant in STAGES.items():
        units = [of for name, of in measured.items() if name.split(".")[0] in meant]
        predicted, row = plan["stages"][stage], {}
        peaks = [of["peak_mlx_bytes"] for of in units if "peak_mlx_bytes" in of]
        if peaks:
            row["peak_bytes"] = {"predicted": predicted["peak_bytes"], "measured": max(peaks)}
        if units and "seconds" in predicted:
            seconds = sum(of["seconds"] for of in units)
            row["seconds"] = {"predicted": predicted["seconds"], "measured": round(seconds, 2)}
        if row:
            rows.append({"stage": stage, **row})
    return rows


def plan_table(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a stage a row."""

    def cells(row: Mapping[str, Any]) -> list[str]:
        found = [row["stage"]]
        for name, unit in (("peak_bytes", gigabytes), ("seconds", duration)):
            pair = row.get(name)
            if not pair:
                found += ["-", "-", "-"]
                continue
            ratio = f"{pair['predicted'] / pair['measured']:.2f}" if pair["measured"] else "-"
            found += [unit(pair["predicted"]), unit(pair["measured"]), ratio]
        return found

    header = ["stage", "planned GB", "took GB", "ratio", "planned time", "took", "ratio"]
    return header, [cells(row) for row in facts.get("plan", [])]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3f}" if size < 1e9 else f"{size / 1e9:.1f}"
