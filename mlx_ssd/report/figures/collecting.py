"""All figures of a report, in the order of a reader's questions."""

from __future__ import annotations

from typing import Any

from mlx_ssd.report.figures.answers import answer_figures
from mlx_ssd.report.figures.curve import curve_figures
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.frontier import frontier_figure
from mlx_ssd.report.figures.locks import lock_figures
from mlx_ssd.report.figures.loss import loss_figures
from mlx_ssd.report.figures.plan import plan_figure
from mlx_ssd.report.figures.rounds import round_figures
from mlx_ssd.report.figures.scores import differences_figure, scores_figure
from mlx_ssd.report.figures.toy import toy_figure
from mlx_ssd.report.figures.truncation import truncation_figures


def figures(report: dict[str, Any], log: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Those whose data is there. report: report.json as read, with "analysis", "frontier", "rounds" and "toy" where
    there are such; log: the entries of each arm's train_log.jsonl."""
    found = [
        differences_figure(report),
        scores_figure(report),
        *curve_figures(report),
        *lock_figures(report),
        *truncation_figures(report),
        *answer_figures(report),
        *loss_figures(log),
        *round_figures(report),
        frontier_figure(report["frontier"]) if report.get("frontier") else None,
        plan_figure(report),
        toy_figure(report["toy"]) if report.get("toy") else None,
    ]
    return [figure for figure in found if figure]
