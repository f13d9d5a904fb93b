"""Every export of a finished run, and what each kept of the student.

    python -m benchmarks.exports RUN [TARGET ...]

Exports a copy of the run to every target in every precision, verified as `mlx-ssd export` does it; an artefact that can
complete problems is graded too. Rows are appended to OUT/exports.jsonl and rendered into OUT/exports.md, whose table
stands in docs/export.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import journal
from benchmarks.journal import RESULTS, Row
from mlx_ssd import export
from mlx_ssd.errors import SsdError, WorkFailed
from mlx_ssd.export.exporting import export_run
from mlx_ssd.export.source import source_of
from mlx_ssd.storage import read_json

SHOWN = ("target", "precision", "verdict", "seconds", "failures")
FIGURES = ("conversion", "compression", "kept", "graded", "checked_by", "tolerance", "verdict", "failures")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run directory; it is not changed")
    parser.add_argument("experiment", nargs="*", metavar="TARGET", help="some of the targets; all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for exports.{jsonl,md}")
    return parser


def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(options.run, copy, ignore=shutil.ignore_patterns("export", "checkpoints", ".lock"))
        journal.append("exports", options.out, _rows(copy, options.experiment or list(export.TARGETS)), render, SHOWN)


def _rows(run: Path, targets: Sequence[str]) -> Iterator[Row]:
    source = source_of(run)
    common = journal.provenance("exports") | {"run": source.recipe.name, "model": source.recipe.model.path}
    for name in targets:
        try:
            target = export.get(name)
            refused = target.refuse(source.config, source.adapter_config)
        except SsdError as error:
            refused = str(error)
        if refused:
            print(f"note: {name}: {refused}", file=sys.stderr)
            continue
        for precision in target.PRECISIONS:
            began = time.monotonic()
            folder = run / "export" / export.folder_name(name, precision)
            try:
                (facts,) = export_run(run, [(name, precision)], source.files.arm, grade=True)
            except WorkFailed:
                figures = folder.with_name(f"{folder.name}.failed.json")
                if not figures.exists():  # it was not for this model, and has said so
                    continue
                facts = read_json(figures)
            row = {"target": name, "precision": precision, "seconds": round(time.monotonic() - began, 1)}
            row |= {figure: facts[figure] for figure in FIGURES if figure in facts}
            yield common | row | {"bytes": sum(facts["bytes"].values())}
            shutil.rmtree(folder, ignore_errors=True)


def newest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each target and precision, in the order of the targets."""
    last = {(row["target"], row["precision"]): row for row in rows}
    order = list(export.TARGETS)
    return sorted(last.values(), key=lambda row: order.index(row["target"]))


def table(rows: Sequence[Row]) -> str:
    head = "| target | precision | MB | conversion: max | KL | first token, where clear | compression: max | KL |"
    head += " perplexity | KL(student, export) / KL(student, base) | pass@1 - student's | verdict | read by |"
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    for row in newest(rows):
        conversion, compression, kept = row["conversion"], row.get("compression", {}), row["kept"]
        whole = compression or conversion
        cells = [row["target"], row["precision"], f"{row['bytes'] / 1e6:.2f}", f"{conversion['max_abs']:.1e}"]
        cells += [f"{conversion['kl_mean']:.1e}", _share(conversion.get("clear_top1"))]
        cells += [f"{compression[key]:.1e}" if compression else "" for key in ("max_abs", "kl_mean")]
        cells += [f"{100 * (whole['perplexity'] / whole['reference_perplexity'] - 1):+.2f} %"]
        cells += [f"{kept['kl_exported'] / kept['kl_base']:.1e}", _graded(row.get("graded"))]
        lines.append(f"| {' | '.join([*cells, row['verdict'], row['checked_by']])} |")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _graded(facts: Row | None) -> str:
    if not facts:
        return ""
    difference = facts["difference"]
    return f"{100 * difference['mean']:+.1f} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"


def render(rows: Sequence[Row]) -> str:
    last = newest(rows)
    lines = ["# Exports: the newest row of every target and precision", ""]
    first = last[0]
    lines += [f"Run `{first['run']}` of the model `{first['model']}`, {first['machine']['chip']}.", "", table(rows), ""]
    for row in last:
        for failure in row["failures"]:
            lines.append(f"- {row['target']} {row['precision']}: {failure}")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(journal.start("exports", make_parser(), list(export.TARGETS), run))
