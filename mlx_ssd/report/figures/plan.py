"""What the plan said beside what the run took."""

from __future__ import annotations

from typing import Any

from mlx_ssd.progress import duration
from mlx_ssd.report.figures import words
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.panels import Row, bars, height_of, stacked_axes
from mlx_ssd.report.figures.style import BLUE, INK, Look, sheet
from mlx_ssd.report.figures.svg import finished
from mlx_ssd.report.prediction import gigabytes

PREDICTED, MEASURED = Look(INK, "-", "o", "////"), Look(BLUE, "-", "D", "")


def plan_figure(report: dict[str, Any]) -> Figure | None:
    panels, said = {}, []
    for quantity, name, unit, divisor in (
        ("peak_bytes", "MLX's peak memory, GB", lambda v: f"{gigabytes(v)} GB", 1e9),
        ("seconds", "time, minutes", duration, 60.0),
    ):
        rows = []
        for number, stage in enumerate(report.get("plan") or []):
            pair = stage.get(quantity) or {}
            if not words.finite(pair.get("predicted"), pair.get("measured")):
                continue
            title = words.clean(stage["stage"], 20)
            planned, took = pair["predicted"], pair["measured"]
            ratio = f" ({planned / took:.2f} times as much)" if took else ""
            for side, look, value, text in (
                ("planned", PREDICTED, planned, unit(planned) + ratio),
                ("took", MEASURED, took, unit(took)),
            ):
                gid = f"{quantity.replace('_', '-')}-{side}.{number}"
                rows.append(Row(f"{title}, {side}: {text}", value / divisor, look, gid))
                said.append(f"{title}, {name.split(',')[0]}, {side}: {text}.")
        if rows:
            panels[name] = rows
    if not panels:
        return None
    with sheet(height_of(list(panels.values()))) as page:
        for ax, (name, rows) in zip(stacked_axes(page, list(panels.values())), panels.items(), strict=True):
            bars(ax, rows, name)
        caption = (
            "What the plan said before the run (hatched) and what the run took (solid), by stage: the highest peak of "
            "a stage's parts, the sum of their times. From report.json (plan)."
        )
        return finished(page, "plan", "Prediction and measurement", caption, " ".join(said))
