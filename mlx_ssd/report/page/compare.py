"""Several runs side by side on one page: what each found, what it cost, and in what they differ.

Nothing is tested between runs: their students met no common draws. Where runs were tested on other problems their
scores are no measure of each other, and the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.progress import duration
from mlx_ssd.report.facts import baseline, points
from mlx_ssd.report.markdown import percent
from mlx_ssd.report.page import material
from mlx_ssd.report.page.material import Material
from mlx_ssd.report.page.page import fill
from mlx_ssd.report.summary import QUESTIONS, main_arm, of_controls, smallest_k, summary
from mlx_ssd.storage import write_atomic

Table = tuple[list[str], list[list[str]]]


def write_comparison(directories: Sequence[Path]) -> Path:
    """compare.html in the first run. Raises BadInput for a run without a report."""
    distinct = list(dict.fromkeys(path.resolve() for path in directories))
    if len(distinct) < 2:
        raise BadInput("--compare needs another run than the one that it is set beside")
    missing = [path for path in directories if not RunFiles(path).report_json.exists()]
    if missing:
        raise BadInput(f"{missing[0]} has no report.json; make it with `mlx-ssd report {missing[0]}`")
    unique = {path.resolve(): path for path in reversed(directories)}
    runs = [material.read(RunFiles(unique[path])) for path in distinct]
    page = RunFiles(directories[0]).directory / "compare.html"
    write_atomic(page, render(runs))
    return page


def render(runs: Sequence[Material]) -> str:
    return fill(
        "compare.html",
        {
            "questions": QUESTIONS,
            "runs": [{"name": run.directory, "recipe": run.report["recipe"], **summary(run.report)} for run in runs],
            "doubts": doubts(runs),
            "scores": score_table(runs),
            "differences": difference_table(runs),
            "costs": cost_table(runs),
            "settings": settings_table(runs),
            "provenance": provenance_table(runs),
        },
    )


def doubts(runs: Sequence[Material]) -> list[str]:
    """Why scores of these runs do not stand on one scale."""
    found, first = [], runs[0]
    for run in runs[1:]:
        names = f"{first.directory} and {run.directory}"
        if _tested_on(run) != _tested_on(first):
            found.append(f"{names} were tested on other problems: their scores are not comparable.")
        elif run.report["evaluate_decoding"] != first.report["evaluate_decoding"]:
            found.append(f"{names} were decoded differently: compare each with its own controls only.")
        if _model(run) != _model(first):
            found.append(f"{names} have other base models: a difference is not that of training alone.")
    return found


def _tested_on(run: Material) -> Any:
    """The suite, and which problems of it: their hash where the manifest has one."""
    score = run.report["scores"][0]
    made_of = run.manifest.get("stages", {}).get("score", {}).get("made_of", {})
    return score["suite"], score["graded_problems"], made_of.get("inputs", {}).get("problems.test")


def _model(run: Material) -> str:
    return run.report["model"]["revision"]


def score_table(runs: Sequence[Material]) -> Table:
    """Header and rows: an arm and k a row, a run a column."""
    rows: dict[str, dict[int, str]] = {}
    for number, run in enumerate(runs):
        for score in run.report["scores"]:
            for k, interval in score["pass_at"].items():
                rows.setdefault(f"{score['arm']}, pass@{k} %", {}).setdefault(number, percent(interval))
    return _columns("arm", runs, rows)


def difference_table(runs: Sequence[Material]) -> Table:
    """Header and rows: the main student against a control a row, in points at the smallest k."""
    rows: dict[str, dict[int, str]] = {}
    for number, run in enumerate(runs):
        k = smallest_k(run.report)
        for c in of_controls(run.report):
            name = f"{main_arm(run.report)} - {baseline(c)}, pass@{k}"
            rows.setdefault(name, {})[number] = points(c.difference[k])
    return _columns("difference in points", runs, rows)


def cost_table(runs: Sequence[Material]) -> Table:
    rows: dict[str, dict[int, str]] = {}
    for number, run in enumerate(runs):
        seconds = run.report["seconds"]
        for name, value in {**seconds, "all": sum(seconds.values())}.items():
            rows.setdefault(name, {})[number] = duration(value)
    rows["peak memory, GB"] = {n: f"{run.report['peak_rss_bytes'] / 1e9:.1f}" for n, run in enumerate(runs)}
    return _columns("", runs, rows)


def settings_table(runs: Sequence[Material]) -> Table:
    """Header and rows: a setting of the recipe a row, where the runs do not agree."""
    flat = [_flat(run.recipe) for run in runs]
    names = list(dict.fromkeys(name for one in flat for name in one))
    rows = {
        name: {n: one[name] for n, one in enumerate(flat) if name in one}
        for name in names
        if len({one.get(name) for one in flat}) > 1
    }
    return _columns("setting", runs, rows)


def provenance_table(runs: Sequence[Material]) -> Table:
    rows: dict[str, dict[int, str]] = {}
    for number, run in enumerate(runs):
        facts = {"model": run.report["model"]["path"], "model revision": _model(run)}
        machine = run.manifest.get("machine", {})
        facts |= {name: str(machine[name]) for name in ("system", "chip", "cores") if name in machine}
        facts |= {name: str(version) for name, version in run.manifest.get("versions", {}).items()}
        for name, value in facts.items():
            rows.setdefault(name, {})[number] = value
    return _columns("", runs, rows)


def _columns(title: str, runs: Sequence[Material], rows: dict[str, dict[int, str]]) -> Table:
    header = [title, *(run.directory for run in runs)]
    return header, [[name, *(cells.get(n, "-") for n in range(len(runs)))] for name, cells in rows.items()]


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Settings by dotted name, each as text; a list's members count from 0."""
    if isinstance(value, dict) and value:
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        parts = enumerate(value)
    else:
        return {path: "null" if value is None else str(value)}
    return {k: v for name, part in parts for k, v in _flat(part, f"{path}.{name}".lstrip(".")).items()}
