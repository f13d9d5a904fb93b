"""What is exported: a student, that is a base and the adapter that self-distillation trained for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_ssd import arms, models
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.models import ModelSource
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_json, hash_path, read_json


@dataclass(frozen=True)
class Source:
    """A trained arm of a run. `name` is what its artefacts are called."""

    name: str
    base: ModelSource
    adapter: Path
    recipe: Recipe  # the arm's
    files: RunFiles

    @cached_property
    def config(self) -> dict[str, Any]:
        """The base's config.json."""
        return read_json(self.base.path / "config.json")

    @cached_property
    def adapter_config(self) -> dict[str, Any]:
        return read_json(self.adapter / "adapter_config.json")

    @property
    def base_name(self) -> str:
        """The base's on the hub, or that of its folder, whose whole path is nobody's business."""
        path = self.recipe.model.path
        return path if path == "embedded" or models.is_hub_name(path) else self.base.path.name

    @property
    def exports(self) -> Path:
        """Where this arm's exports stand."""
        folder = self.files.directory / "export"
        return folder if self.files.arm == MAIN else folder / "arms" / self.files.arm

    @cached_property
    def revision(self) -> str:
        """Names the student's exact weights."""
        return hash_json([self.base.revision, hash_path(self.adapter)])[:16]


def source_of(directory: Path, arm: str = MAIN) -> Source:
    """Raises BadInput where there is no run, no such arm or nothing trained yet."""
    files = RunFiles(directory)
    if not files.recipe.exists():
        raise BadInput(f"{directory} is not a run directory; it has no recipe.yaml")
    recipe = Recipe.load(files.recipe)
    trained = {found.name: found for found in arms.students(recipe, directory)}
    if arm not in trained:
        raise BadInput(f"--arm {arm}: {directory} has {', '.join(trained)}")
    found = trained[arm]
    if not found.files.adapter.exists():
        raise BadInput(f"{directory} has no trained adapter of {arm}; run `mlx-ssd run --out {directory}` first")
    return Source(f"{recipe.name}-{arm}", models.locate(recipe.model), found.files.adapter, found.recipe, found.files)
