"""Where everything stands in a run directory (docs/formats.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFiles:
    directory: Path

    @property
    def recipe(self) -> Path:
        return self.directory / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.directory / "manifest.json"

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    @property
    def round(self) -> Path:
        return self.directory / "round-1"

    @property
    def samples(self) -> Path:
        return self.round / "samples.jsonl"

    @property
    def rows(self) -> Path:
        return self.round / "rows.jsonl"

    @property
    def curation(self) -> Path:
        return self.round / "curation.json"

    @property
    def adapter(self) -> Path:
        return self.round / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.round / "checkpoints"

    @property
    def training_log(self) -> Path:
        return self.round / "train_log.jsonl"

    def generations(self, arm: str, suite: str, decoding: str) -> Path:
        return self.directory / "eval" / arm / f"{suite}-{decoding}.generations.jsonl"

    def grades(self, arm: str, suite: str, decoding: str) -> Path:
        return self.directory / "eval" / arm / f"{suite}-{decoding}.grades.jsonl"

    @property
    def scores(self) -> Path:
        return self.directory / "scores.json"

    @property
    def report_json(self) -> Path:
        return self.directory / "report.json"

    @property
    def report_md(self) -> Path:
        return self.directory / "report.md"
