"""Small trained runs of the embedded model, made in a second: a base of any bits, and an adapter of any size."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from click.testing import CliRunner, Result
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd import assets, export, models
from mlx_ssd.child import exit_code
from mlx_ssd.cli import main
from mlx_ssd.export import __main__ as process
from mlx_ssd.export import exporting
from mlx_ssd.export.reference import reference_of
from mlx_ssd.export.source import source_of
from mlx_ssd.layout import RunFiles
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Problem
from mlx_ssd.storage import hash_json, write_records
from mlx_ssd.training import full, lora

# Packages of extras that are not installed here; `make test` alone has none of them.
LACKING = {package for name in export.TARGETS for package in export.find(name).PACKAGES if not find_spec(package)}
TEXTS = 2
POLICY = "t0.9-k20-p0.8"
PROGRAMS = (
    "```python\ndef solve(xs):\n    return sum(x * x for x in xs if x % 2 == 0)\n```\n",
    "```python\ndef solve(s):\n    return len([w for w in s.split() if len(w) < 7])\n```\n",
    "```python\ndef solve(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total\n```\n",
)


def make_base(folder: Path, bits: int | None = None, dtype: str | None = None) -> Path:
    """The embedded model in `bits` (groups of 64, embeddings too), or stored in another `dtype`."""
    mlx_lm.convert(
        str(assets.model_path()), str(folder), quantize=bits is not None, q_bits=bits, q_group_size=64, dtype=dtype
    )
    return folder


def make_run(folder: Path, base: Path | None = None, update: float = 0.2, **train: Any) -> Path:
    """A run directory as after training and evaluation. The update of every module is random and of rank `train.rank`,
    `update` times as large as its weight (Frobenius); of train.method full, noise so large on every matrix."""
    settings = {"model.path": str(base or "embedded"), "train.rank": 4}
    recipe = Recipe.parse("", "", settings | {f"train.{key}": value for key, value in train.items()})
    files = RunFiles(folder)
    files.directory.mkdir(parents=True)
    files.recipe.write_text(recipe.to_yaml())
    model, tokenizer = models.load(models.locate(recipe.model), "float32")
    _write_generations(files, tokenizer, recipe)
    mx.random.seed(1)
    write = {"lora": _write_lora, "full": _write_full}[recipe.train.method]
    write(model, SimpleNamespace(**recipe.train.model_dump(), seed=recipe.seed), update, files.adapter)
    return folder


def _write_lora(model: Any, settings: Any, update: float, folder: Path) -> None:
    weights = {name: module for name, module in model.named_modules() if hasattr(module, "weight")}
    lora.attach(model, settings)
    arrays = lora.adapter_weights(model)
    for name, a in arrays.items():
        module = name.removesuffix(".lora_a")
        if module == name:
            continue
        b = mx.random.normal(arrays[f"{module}.lora_b"].shape)
        size = update * mx.linalg.norm(_whole(weights[module])) / (settings.scale * mx.linalg.norm(a @ b))
        model.load_weights([(f"{module}.lora_b", size * b)], strict=False)
    lora.write(model, settings, folder)


def _whole(module: Any) -> mx.array:
    if not hasattr(module, "bits"):
        return module.weight
    how = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    return mx.dequantize(module.weight, module.scales, module.get("biases"), **how)


def _write_full(model: Any, settings: Any, update: float, folder: Path) -> None:
    full.attach(model, settings)
    moved = [
        (name, w + update * mx.linalg.norm(w) * _unit(w.shape) if w.ndim > 1 else w)
        for name, w in tree_flatten(model.trainable_parameters())
    ]
    model.update(tree_unflatten(moved))
    full.write(model, settings, folder)


def _unit(shape: tuple[int, ...]) -> mx.array:
    noise = mx.random.normal(shape)
    return noise / mx.linalg.norm(noise)


def _write_generations(files: RunFiles, tokenizer: Any, recipe: Recipe) -> None:
    lines = assets.problems_path("test").read_text().splitlines()[:TEXTS]
    path = files.generations("embedded-test", POLICY)
    path.parent.mkdir(parents=True)
    write_records(
        path,
        [
            Generation(
                problem_id=problem.id,
                sample_index=0,
                prompt_ids=render(tokenizer, problem.prompt, recipe.prompt),
                completion_ids=tokenizer.encode(PROGRAMS[i % len(PROGRAMS)], add_special_tokens=False),
                finish_reason="length",
                policy=POLICY,
                seed=0,
                stream="eval",
                model="",
                template=template_hash(tokenizer, recipe.prompt),
            )
            for i, problem in enumerate(Problem.model_validate_json(line) for line in lines)
        ],
    )


def _short(*what: Any) -> str:
    return hash_json(what)[:12]


class Maker:
    """Makes each kind of run once; every caller gets a copy of its own, with the reference's logits in it."""

    def __init__(self, kept: Path, copies: Path):
        self.kept, self.copies = kept, copies

    def __call__(self, bits: int | None = None, dtype: str | None = None, **choices: Any) -> Path:
        base = self._base(bits, dtype)
        run = self.kept / f"run-{_short(base and base.name, choices)}"
        if not run.exists():
            make_run(run, base, **choices)
            reference_of(source_of(run))
        return self._copy(run)

    def exported(self, target: str, precision: str | None = None, **choices: Any) -> Path:
        """A run with this export in it."""
        usual = export.get(target).PRECISIONS[0]
        kept = self.kept / f"{target}-{_short(precision, choices)}"
        if not kept.exists():
            self(**choices).rename(kept)
            process.make(source_of(kept), target, precision or usual)
        return self._copy(kept)

    def _copy(self, run: Path) -> Path:
        return Path(shutil.copytree(run, self.copies / f"run{len(list(self.copies.glob('run*')))}"))

    def _base(self, bits: int | None, dtype: str | None) -> Path | None:
        if bits is None and dtype is None:
            return None
        folder = self.kept / f"base-{bits or dtype}"
        return folder if folder.exists() else make_base(folder, bits, dtype)


@pytest.fixture(autouse=True)
def extras(monkeypatch) -> None:
    """A test that comes to a target whose extra is not installed is skipped."""
    get = export.get

    def there(name: str) -> Any:
        if lacking := LACKING & set(export.find(name).PACKAGES):
            extra = export.find(name).EXTRA
            pytest.skip(f"--target {name} needs {', '.join(sorted(lacking))}: pip install -e '.[{extra}]'")
        return get(name)

    monkeypatch.setattr(export, "get", there)


@pytest.fixture(scope="session")
def kept_runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("export-runs")


@pytest.fixture
def run_dir(kept_runs, tmp_path) -> Callable[..., Path]:
    """`run_dir(bits=None | 4 | 8, dtype=None | "bfloat16", update=0.2, rank=4, keys="all", num_layers=-1,
    method="lora" | "full")`: a copy of a run directory of that kind. `run_dir.exported(target, precision, …)`: the same
    with an export in it."""
    return Maker(kept_runs, tmp_path)


@pytest.fixture
def here(monkeypatch) -> None:
    """Exports are made in this process."""

    def work(command: list[str], lock: int, **_: Any) -> int:
        run, name, precision, _, arm = command[command.index("mlx_ssd.export") + 1 :][:5]
        does = process.check if "--check" in command else process.make
        return exit_code(lambda: does(source_of(Path(run), arm), name, precision))

    monkeypatch.setattr(exporting, "supervise", work)


def invoke(*arguments: Any) -> Result:
    """`mlx-ssd export ARGUMENTS`"""
    return CliRunner().invoke(main, ["export", *map(str, arguments)])
