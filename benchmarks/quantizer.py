"""A student in the bits of its 4-bit base: the update-preserving quantizer beside mlx-lm's ways, at small updates.

    python -m benchmarks.quantizer RUN --work FOLDER [--scale 1 0.25] [--method fuse ours] [--seed 0 1] [--texts 40]

RUN is a finished run. Its base is quantized with mlx_lm.convert (4 bits, groups of 64), and its adapter put on that
with its scale times each of --scale. One row a method, scale and seed is appended to
benchmarks/results/quantizer.jsonl: the mean KL(base with adapter || method) in nats over the completion tokens of each
text; that of the base without adapter; of the weights' update, share and noise (mlx_ssd.export.survival); processor
seconds; peak bytes of arrays. The texts are the student's answers to test problems, one a problem; the methods
calibrate on samples of training problems, those that an export takes (seed 0) or as many others (further seeds).

fuse  `mlx_lm fuse`
gptq  the fused weights through mlx_lm.quant.gptq, all in 4 bits
dwq   `mlx_lm fuse`, then mlx_lm.quant.dwq towards the student's logits: the same texts and as many steps as ours, its
      own settings but for a learning rate of 1e-4 (1e-6 moves nothing in so few steps), temperature 1 and float32
ours  mlx_ssd.export.quantizer
"""

import argparse
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
from mlx.optimizers import Adam
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.quant import dwq, gptq
from mlx_lm.utils import dequantize_model

from benchmarks import journal
from mlx_ssd import models
from mlx_ssd.export import quantizer
from mlx_ssd.export.fused import whole_student
from mlx_ssd.export.quantizer import distilling, fitted
from mlx_ssd.export.reference import MlxReader
from mlx_ssd.export.source import Source, source_of
from mlx_ssd.export.survival import survival
from mlx_ssd.export.texts import drawn
from mlx_ssd.machine.float32 import keep_float32_whole
from mlx_ssd.models import ModelSource
from mlx_ssd.storage import read_json, write_json
from mlx_ssd.weights import AdaptedWeights

Rows = list[Any]
SHOWN = ("method", "scale", "seed", "kl", "kl_base", "share", "cpu_seconds")
RESAMPLES = 10_000


def fuse(source: Source, rows: Rows) -> nn.Module:
    model, _ = models.load(source.base, "float32", source.adapter)
    done = [(path, module.fuse()) for path, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(done))
    return model


def by_gptq(source: Source, rows: Rows) -> nn.Module:
    width = min(len(row.prompt_ids) + len(row.completion_ids) for row in rows)  # it takes rows of one length
    data = mx.array([[*row.prompt_ids, *row.completion_ids][:width] for row in rows])
    return gptq.gptq_quantize(whole_student(source), data, 4, 64, 4, 64)[0]


def by_dwq(source: Source, rows: Rows) -> nn.Module:
    student = whole_student(source)
    model, size = fuse(source, rows), distilling.ROWS_PER_STEP
    texts = [([*row.prompt_ids, *row.completion_ids], len(row.prompt_ids)) for row in rows]
    settings = {"dtype": mx.float32, "temperature": 1.0, "batch_size": size, "max_seq_length": 1024, "seed": 0}
    for _ in range(math.ceil(distilling.STEPS * size / len(rows))):
        target = lambda batch, i, split: student(batch)  # noqa: E731
        dwq.dwq_quantize(model, target, Adam(1e-4, bias_correction=True), texts, texts[:size], **settings)
    return model.eval()


def ours(source: Source, rows: Rows) -> nn.Module:
    found = quantizer.fit(source.base, source.adapter, rows, lambda done, total: None)
    model, _ = models.load(source.base, "float32")
    model.load_weights([(f"{m}.{name}", a) for m, parts in found.items() for name, a in parts.items()], strict=False)
    model.set_dtype(mx.float32)
    return model


METHODS: dict[str, Callable[[Source, Rows], nn.Module]] = {"fuse": fuse, "gptq": by_gptq, "dwq": by_dwq, "ours": ours}


def quantized(source: Source, work: Path) -> Source:
    """The source on its base in 4 bits."""
    folder = work / "base-4bit"
    if not folder.exists():
        mlx_lm.convert(str(source.base.path), str(folder), quantize=True, q_bits=4, q_group_size=64)
    return replace(source, base=ModelSource(folder, folder.name))


def scaled(source: Source, scale: float, work: Path) -> Source:
    """The source, its update `scale` times as large."""
    folder = work / f"adapter-{scale:g}"
    shutil.copytree(source.adapter, folder, dirs_exist_ok=True)
    config = read_json(source.adapter / "adapter_config.json")
    config["lora_parameters"]["scale"] *= scale
    write_json(folder / "adapter_config.json", config)
    return replace(source, adapter=folder)


def calibration(source: Source, seed: int) -> Rows:
    """As an export takes it; of other seeds, as many others of the run's training problems."""
    if not seed:
        return fitted.calibration(source)
    rows = fitted.calibration(source, count=10**6)
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[: fitted.COUNT]]


def divergences(reference: list[np.ndarray], found: list[np.ndarray]) -> np.ndarray:
    """The mean KL of each text."""
    return np.array([_kl(a, b).mean() for a, b in zip(reference, found, strict=True)])


def _kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (a.astype(np.float64), b.astype(np.float64)))
    return (np.exp(p) * (p - q)).sum(-1)


def weights_of(model: nn.Module) -> Callable[[str], np.ndarray]:
    modules = dict(model.named_modules())

    def read(name: str) -> np.ndarray:
        m = modules[name.removesuffix(".weight")]
        return np.array(mx.dequantize(m.weight, m.scales, m.biases, group_size=m.group_size, bits=m.bits))

    return read


def measure(source: Source, method: str, rows: Rows, texts: list[Any]) -> dict[str, Any]:
    base = models.load(source.base, "float32")[0]
    form = [(name, array.shape) for name, array in sorted(tree_flatten(base.parameters()))]
    reference, plain = logits(whole_student(source), texts), logits(base, texts)
    mx.reset_peak_memory()
    started = time.process_time(), time.perf_counter()
    model = METHODS[method](source, rows)
    mx.eval(model.parameters())
    seconds = {"cpu_seconds": time.process_time() - started[0], "seconds": time.perf_counter() - started[1]}
    facts = seconds | {"peak_bytes": mx.get_peak_memory()}
    assert form == [(name, array.shape) for name, array in sorted(tree_flatten(model.parameters()))]  # no bit more
    layers = survival(AdaptedWeights(source.base.path, source.adapter), weights_of(model))
    kl = divergences(reference, logits(model, texts))
    facts |= {"kl": float(kl.mean()), "kl_texts": kl.tolist(), "kl_base": float(divergences(reference, plain).mean())}
    return facts | {name: float(np.mean([row[name] for row in layers])) for name in ("share", "noise")}


def logits(model: nn.Module, texts: list[Any]) -> list[np.ndarray]:
    """Of the weights in float32, as any kernel would have them. Changes `model`."""
    reader = MlxReader(dequantize_model(model))
    return [reader.logits(text) for text in texts]


def run(options: argparse.Namespace) -> None:
    keep_float32_whole()  # MLX is imported, but has multiplied nothing yet
    options.work.mkdir(parents=True, exist_ok=True)
    source = source_of(options.run)
    name, source = source.base_name, quantized(source, options.work)
    texts, origin = drawn(source, options.texts)
    facts = {"model": name, "texts": len(texts), "from": origin}
    journal.append("quantizer", journal.RESULTS, _rows(options, source, texts, facts), render, SHOWN)


def _rows(
    options: argparse.Namespace, source: Source, texts: list[Any], facts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    shown = {text.prompt_ids for text in texts}
    for seed in options.seed:
        rows = [row for row in calibration(source, seed) if tuple(row.prompt_ids) not in shown]
        size = {"calibration": len(rows), "calibration_tokens": sum(len(row.completion_ids) for row in rows)}
        for scale in options.scale:
            for method in options.experiment:
                if method == "fuse" and seed != options.seed[0]:
                    continue  # it looks at no text
                found = measure(scaled(source, scale, options.work), method, rows, texts)
                named = {"method": method, "scale": scale, "seed": seed}
                yield facts | named | found | size | journal.provenance("quantizer")


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The journal as a page."""
    return (
        "# 4 bits with the update: KL from the student, in nats a token\n\n"
        "Made by `python -m benchmarks.quantizer` (its docstring says what each column is) from quantizer.jsonl. A "
        "method's KL is the mean over texts and seeds; *by fuse* is that by the KL of `mlx_lm fuse` on the same texts, "
        "with the 95 % interval of a bootstrap over texts and seeds, and then for each seed alone; *by base* is by the "
        "KL of the base without adapter.\n\n" + table(rows)
    )


def newest(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, float], dict[str, list[dict[str, Any]]]]:
    """(model, scale) -> method -> a row a seed; of a method measured again at a scale and seed, the last."""
    last = {(row["model"], row["scale"], row["method"], row["seed"]): row for row in rows}
    found: dict[tuple[str, float], dict[str, list[dict[str, Any]]]] = {}
    for (model, scale, method, _), row in sorted(last.items(), key=lambda item: (item[0][0], -item[0][1], item[0][2:])):
        found.setdefault((model, scale), {}).setdefault(method, []).append(row)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| model | update | method | KL | by fuse [95 %] | each seed | by base | share | noise | CPU s | arrays MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, scale), methods in newest(rows).items():
        for method, found in methods.items():
            lines.append(f"| {model} | {scale:g} | {method} | {_cells(found, methods.get('fuse', []))} |")
    return "\n".join(lines) + "\n"


def _cells(found: list[dict[str, Any]], fused: list[dict[str, Any]]) -> str:
    mean = {name: np.mean([row[name] for row in found]) for name in ("kl", "kl_base", "share", "noise", "cpu_seconds")}
    by_fuse = each = ""
    if fused:
        kl, of_fuse = np.array([row["kl_texts"] for row in found]), np.array(fused[-1]["kl_texts"])
        low, high = ratio_interval(kl, of_fuse)
        by_fuse = f"{kl.mean() / of_fuse.mean():.3f} [{low:.3f}, {high:.3f}]"
        each = ", ".join(f"{texts.mean() / of_fuse.mean():.2f}" for texts in kl)
    rest = f"{mean['kl'] / mean['kl_base']:.3f} | {mean['share']:.2f} | {mean['noise']:.2f} | {mean['cpu_seconds']:.0f}"
    return f"{mean['kl']:.2e} | {by_fuse} | {each} | {rest} | {max(row['peak_bytes'] for row in found) / 1e6:.0f}"


def ratio_interval(kl: np.ndarray, of_fuse: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of mean kl [seeds, texts] / mean of_fuse [texts]: seeds and texts are drawn with
    replacement, a text for both at once. With few seeds it is somewhat too narrow."""
    draw = np.random.default_rng(0)
    texts = draw.integers(kl.shape[1], size=(RESAMPLES, kl.shape[1]))
    seeds = draw.integers(len(kl), size=(RESAMPLES, len(kl)))
    found = kl[seeds[:, :, None], texts[:, None, :]].mean(axis=(1, 2)) / of_fuse[texts].mean(axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scale", type=float, nargs="+", default=[1, 1 / 4, 1 / 16])
    parser.add_argument("--method", dest="experiment", nargs="+", default=list(METHODS))
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=100)
    return journal.start("quantizer", parser, METHODS, run)


if __name__ == "__main__":
    raise SystemExit(main())
