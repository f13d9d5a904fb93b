"""A student in the bits of its 4-bit base: the update-preserving quantizer beside mlx-lm's ways, at small updates.

    python -m benchmarks.quantizer RUN --work FOLDER [--scale 1 0.25] [--method fuse ours] [--seed 0] [--texts 40]

RUN is a finished run. Its base is quantized with mlx_lm.convert (4 bits, groups of 64), and its adapter put on that
with its scale times each of --scale. One row a method and scale is appended to benchmarks/results/quantizer.jsonl: the
mean KL(base with adapter || method) in nats over the completion tokens of each text, with a bootstrap interval over
texts; that of the base without adapter; of the weights' update, share and noise (mlx_ssd.export.survival); processor
seconds; peak bytes of arrays. The texts are the student's answers to test problems, one a problem; the methods
calibrate on samples of training problems.

fuse  `mlx_lm fuse`
gptq  the fused weights through mlx_lm.quant.gptq, all in 4 bits
dwq   `mlx_lm fuse`, then mlx_lm.quant.dwq towards the adapter's logits: as many texts and steps as ours, its own
      settings but for a learning rate of 1e-4 (1e-6 moves nothing in so few steps), temperature 1 and float32
ours  mlx_ssd.export.quantizer
"""

import argparse
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
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
from mlx_ssd.models import ModelSource
from mlx_ssd.statistics import bootstrap_mean
from mlx_ssd.storage import read_json, write_json
from mlx_ssd.weights import AdaptedWeights

Rows = list[Any]
SHOWN = ("method", "scale", "seed", "kl", "kl_base", "share", "cpu_seconds")


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
    student, _ = models.load(source.base, "float32", source.adapter)
    model, size = fuse(source, rows), distilling.ROWS_PER_STEP
    texts = [([*row.prompt_ids, *row.completion_ids], len(row.prompt_ids)) for row in rows]
    settings = {"dtype": mx.float32, "temperature": 1.0, "batch_size": size, "max_seq_length": 1024, "seed": 0}
    for _ in range(distilling.EPOCHS):
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
    facts |= {"kl": asdict(bootstrap_mean(kl)), "kl_base": float(divergences(reference, plain).mean())}
    return facts | {name: float(np.mean([row[name] for row in layers])) for name in ("share", "noise")}


def logits(model: nn.Module, texts: list[Any]) -> list[np.ndarray]:
    """Of the weights in float32, as any kernel would have them. Changes `model`."""
    reader = MlxReader(dequantize_model(model))
    return [reader.logits(text) for text in texts]


def run(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    source = quantized(source_of(options.run), options.work)
    texts, origin = drawn(source, options.texts)
    rows = calibration(source, options.seed)
    shown = {" ".join(map(str, text.prompt_ids)) for text in texts}
    rows = [row for row in rows if " ".join(map(str, row.prompt_ids)) not in shown]
    journal.append("quantizer", journal.RESULTS, _rows(options, source, rows, texts, origin), render, SHOWN)


def _rows(
    options: argparse.Namespace, source: Source, rows: Rows, texts: list[Any], origin: str
) -> Iterator[dict[str, Any]]:
    for scale in options.scale:
        for method in options.experiment:
            facts = {"method": method, "scale": scale, "seed": options.seed, "texts": len(texts), "from": origin}
            facts |= measure(scaled(source, scale, options.work), method, rows, texts)
            yield facts | {"calibration": len(rows)} | journal.provenance("quantizer")


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The journal as a table; of a method measured again at a scale and seed, the last."""
    last = {(row["scale"], row["method"], row["seed"]): row for row in rows}
    lines = [
        "# 4 bits with the update: KL from the student, in nats a token",
        "",
        "Made by `python -m benchmarks.quantizer` (its docstring says what each column is) from quantizer.jsonl. "
        "Below: the method's KL by that of `mlx_lm fuse`, and by that of the base without adapter.",
        "",
        "| update | method | seed | KL [95 %] | by fuse | by base | share | noise | CPU s | arrays MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (scale, method, seed), row in sorted(last.items(), key=lambda item: (-item[0][0], item[0][1:])):
        kl, fused = row["kl"], last.get((scale, "fuse", 0))
        interval = f"{kl['mean']:.2e} [{kl['low']:.2e}, {kl['high']:.2e}]"
        by_fuse = f"{kl['mean'] / fused['kl']['mean']:.3f}" if fused else ""
        rest = f"{kl['mean'] / row['kl_base']:.3f} | {row['share']:.2f} | {row['noise']:.2f}"
        cost = f"{row['cpu_seconds']:.0f} | {row['peak_bytes'] / 1e6:.0f}"
        lines.append(f"| {scale:g} | {method} | {seed} | {interval} | {by_fuse} | {rest} | {cost} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scale", type=float, nargs="+", default=[1, 1 / 4, 1 / 16])
    parser.add_argument("--method", dest="experiment", nargs="+", default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=int, default=24)
    return journal.start("quantizer", parser, METHODS, run)


if __name__ == "__main__":
    raise SystemExit(main())
