"""What the page is made of, read from a run's files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.storage import read_json
from mlx_ssd.strict_yaml import read_yaml

if TYPE_CHECKING:
    from mlx_ssd.report.page.figures import Drawing
    from mlx_ssd.report.page.samples import Packed


@dataclass
class Material:
    """`report`: report.json; what a run does not have is empty."""

    directory: str
    report: dict[str, Any]
    manifest: dict[str, Any]
    recipe: dict[str, Any]
    recipe_text: str
    exports: list[dict[str, Any]] = field(default_factory=list)
    parity: dict[str, Any] = field(default_factory=dict)
    bench: list[dict[str, Any]] = field(default_factory=list)
    frontier: dict[str, Any] = field(default_factory=dict)
    drawings: list[Drawing] = field(default_factory=list)
    packed: Packed | None = None
    samples_note: str = ""  # why there are no samples


def read(files: RunFiles) -> Material:
    """Without figures and samples. Raises BadInput where the run has no report."""
    report = read_json(files.report_json)
    if not isinstance(report, dict) or report.get("v") != 2:
        raise BadInput(f"{files.report_json} is not a report of this version; run `mlx-ssd report {files.directory}`")
    recipe = files.recipe.read_text(encoding="utf-8") if files.recipe.exists() else ""
    return Material(
        str(files.directory),
        report,
        read_json(files.manifest) if files.manifest.exists() else {},
        read_yaml(recipe, str(files.recipe)),
        recipe,
        [read_json(path) for path in beside(files) if path.name == "verify.json"],
        read_json(parity_file(files)) if parity_file(files).exists() else {},
        _lines(bench_file(files)),
        read_json(frontier_file(files)) if frontier_file(files).exists() else {},
    )


def beside(files: RunFiles) -> list[Path]:
    """What other commands leave in a run and the page shows."""
    found = sorted((files.directory / "export").glob("*/verify.json"))
    return found + [path for path in (parity_file(files), bench_file(files), frontier_file(files)) if path.exists()]


def parity_file(files: RunFiles) -> Path:
    return files.directory / "parity.json"


def bench_file(files: RunFiles) -> Path:
    return files.directory / "bench.jsonl"


def frontier_file(files: RunFiles) -> Path:
    return files.directory / "frontier.json"


def _lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a table that another command appends to; a torn last line is left out."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}, line {number}: not valid JSON ({error})") from None
    return found
