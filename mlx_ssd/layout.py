"""Where everything stands in a run directory (docs/formats.md), and what is kept for all runs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

MAIN = "student"  # the name of the recipe's own student; others are its `arms`
BASE = "base"
CACHE = "MLX_SSD_CACHE"  # environment variable: where what is kept between runs lies; empty: nothing is kept


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, as one arm sees them. An arm that samples like the main one reads its samples, one
    that curates like it its rows too; what it makes itself stands in its own folder."""

    directory: Path
    arm: str = MAIN
    samples_of: str = MAIN  # the arm whose samples this one trains on
    rows_of: str = MAIN  # the arm whose training rows
    number: int = 1  # of the round; 0 is the base's

    def _round(self, arm: str) -> Path:
        round_ = self.directory / f"round-{self.number}"
        return round_ if arm in (MAIN, BASE) else round_ / "arms" / arm

    @property
    def recipe(self) -> Path:
        return self.directory / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.directory / "manifest.json"

    @property
    def plan(self) -> Path:
        """What the run was thought to take, before it began."""
        return self.directory / "plan.json"

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    @property
    def round(self) -> Path:
        return self._round(self.arm)

    @property
    def problems(self) -> Path:
        return self._round(self.samples_of) / "problems.jsonl"

    @property
    def selection(self) -> Path:
        return self._round(self.samples_of) / "selection.json"

    @property
    def samples(self) -> Path:
        return self._round(self.samples_of) / "samples.jsonl"

    @property
    def rows(self) -> Path:
        return self._round(self.rows_of) / "rows.jsonl"

    @property
    def curation(self) -> Path:
        return self._round(self.rows_of) / "curation.json"

    @property
    def adapter(self) -> Path:
        return self.round / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.round / "checkpoints"

    @property
    def training_log(self) -> Path:
        return self.round / "train_log.jsonl"

    @property
    def validation(self) -> Path:
        """How a round did on the validation problems, and what follows."""
        return self.round / "validation.json"

    @property
    def validated(self) -> Path:
        """The journals behind it, named as in `evaluation`."""
        return self.round / "validation"

    @property
    def analysis(self) -> Path:
        """Texts that base and students read, and an arm's tokens in a folder each (analysis/store.py); one of a run,
        whichever rounds are kept."""
        return self.directory / "round-1" / "analysis"

    @property
    def evaluation(self) -> Path:
        return self.directory / "eval" / self.arm

    def generations(self, suite: str, decoding: str) -> Path:
        return self.evaluation / generations_name(suite, decoding)

    def grades(self, suite: str, decoding: str) -> Path:
        return self.evaluation / grades_name(suite, decoding)

    @property
    def best_decoding(self) -> Path:
        return self.evaluation / "best.json"

    @property
    def scores(self) -> Path:
        return self.directory / "scores.json"

    @property
    def report_json(self) -> Path:
        return self.directory / "report.json"

    @property
    def report_md(self) -> Path:
        return self.directory / "report.md"

    @property
    def report_html(self) -> Path:
        return self.directory / "report.html"

    @property
    def figures(self) -> Path:
        """The report's figures, a file each."""
        return self.directory / "figures"


def unit_name(stage: str, files: RunFiles) -> str:
    """sample, train.tokens, evaluate.base, train.round-2, …: a unit of a run in its manifest."""
    name = stage if files.arm == MAIN else f"{stage}.{files.arm}"
    of_a_round = files.number > 1 and stage in ("sample", "curate", "train", "validate")
    return f"{name}.round-{files.number}" if of_a_round else name


def generations_name(suite: str, decoding: str) -> str:
    return f"{suite}-{decoding}.generations.jsonl"


def grades_name(suite: str, decoding: str) -> str:
    return f"{suite}-{decoding}.grades.jsonl"


def cache_folder() -> Path | None:
    """Where verdicts and calibrations are kept for other runs; None where nothing shall be kept."""
    if (chosen := os.environ.get(CACHE)) is not None:
        return Path(chosen).expanduser() if chosen else None
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlx-ssd"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-ssd"
