"""Decode tok/s by configuration (`mlx-ssd bench --plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Row, bars, height_of
from mlx_ssd.report.figures.style import BLUE, Look, sheet
from mlx_ssd.report.figures.svg import finished

LOOK = Look(BLUE, "-", "D", "")


def rates_figure(found: Sequence[Mapping[str, Any]]) -> Figure:
    """A bar a row of `mlx-ssd bench`, with one standard deviation to each side."""
    rows, said = [], []
    for number, row in enumerate(found):
        of, std = row["decode_tps"]["mean"], row["decode_tps"].get("std")
        parts = [f"{row['bits']} bit", f"pp{row['prompt_tokens']}"]
        parts += [f"adapter {row['adapter']}"] * (row["adapter"] != "off")
        parts += [f"batch {row['batch']}"] * (row["batch"] > 1)
        rate = f"{of:,.1f}" + (f" ± {std:,.1f}" if std is not None else "")
        ends = () if std is None else (of - std, of + std)
        text = ", ".join([words.shortened(words.clean(row["model"]), 24), *parts])
        rows.append(Row(f"{text}: {rate}", of, LOOK, f"rate.{number}", *ends))
        said.append(f"{words.clean(row['model'])}, {', '.join(parts)}: {rate}.")
    with sheet(height_of([rows])) as page:
        bars(page.subplots(), rows, "decode tokens/s")
        caption = "Tokens a second of decoding, by configuration; lines are one standard deviation to each side."
        return finished(page, "decode-rates", "Decoding", caption, "Tokens a second. " + " ".join(said))
