"""How far the gradients of training are from those of float64, on a model with a large vocabulary.

    python -m benchmarks.stand_ins smollm2 --out smollm2
    python -m benchmarks.gradients --model smollm2

LoRA gradients of two short answers, of every adapted tensor, in float32: our loss, the loss that mlx-lm trains with
(`nn.losses.cross_entropy`; it has no soft targets), and PyTorch's, each against PyTorch in float64. An error is the
largest of a tensor over its largest entry. Writes results/gradients.{json,md}; needs `pip install -e '.[parity]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import journal
from benchmarks.journal import RESULTS
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.storage import write_atomic

PAPER = DecodingPolicy(1.6, top_k=20, top_p=0.8)
LORA = SimpleNamespace(rank=8, scale=2.0, dropout=0.0, keys="all", experts=False, num_layers=-1, seed=0)
SPREAD = 0.01  # of a random B
ANSWERS = {
    "Write a function that adds two numbers.": "```python\ndef add(a, b):\n    return a + b\n```",
    "What is the capital of France?": "The capital of France is Paris, a city on the Seine.",
}
Arrays = dict[str, np.ndarray]


def run(options: argparse.Namespace) -> None:
    import torch

    from mlx_ssd.torch_ref import loss as twin
    from mlx_ssd.torch_ref import model as torch_model
    from mlx_ssd.torch_ref.adapter import Adapter
    from mlx_ssd.weights import WeightFiles

    adapter, rows, found = _in_mlx(options.model)
    files = WeightFiles(options.model)
    for dtype in ("float32", "float64"):
        model = torch_model.build(options.model, files.names, files.read, dtype)
        worn = Adapter(model, {name: torch.from_numpy(array) for name, array in adapter.items()}, LORA.scale)
        for targets, policy in (("tokens", None), ("distribution", PAPER)):
            gradient = twin.step_gradient(model, worn, rows, policy)[1]
            arrays = {name: tensor.double().numpy().copy() for name, tensor in gradient.items()}
            found[f"PyTorch, {dtype}", targets] = arrays
    errors = [
        {"gradient": who, "targets": targets, **_error(arrays, found["PyTorch, float64", targets])}
        for (who, targets), arrays in found.items()
        if who != "PyTorch, float64"
    ]
    facts = journal.provenance("gradients") | {"vocabulary": files.config["vocab_size"], "errors": errors}
    write_atomic(options.out / "gradients.json", json.dumps(facts, indent=1) + "\n")
    write_atomic(options.out / "gradients.md", render(facts))
    print(render(facts))


def _in_mlx(folder: Path) -> tuple[Arrays, list[Any], dict[tuple[str, str], Arrays]]:
    """(adapter, rows, gradients by (whose, targets))."""
    import mlx.core as mx
    import mlx.nn as nn

    from mlx_ssd import models
    from mlx_ssd.prompts import render as render_prompt
    from mlx_ssd.sections import Prompt
    from mlx_ssd.training import lora
    from mlx_ssd.training.batches import pack_rows
    from mlx_ssd.training.forward import output_head
    from mlx_ssd.training.loss import Soft, step_gradient

    model, tokenizer = models.load(models.ModelSource(folder, "local"), "float32")
    lora.attach(model, LORA)
    draw, adapter = np.random.default_rng(0), {}
    for name, array in sorted(lora.adapter_weights(model).items()):
        is_b = name.endswith("lora_b")
        adapter[name] = SPREAD * draw.normal(size=array.shape).astype(np.float32) if is_b else np.array(array)
    model.load_weights([(name, mx.array(array)) for name, array in adapter.items()], strict=False)
    end = sorted(tokenizer.eos_token_ids)[:1]
    rows = [
        SimpleNamespace(
            problem_id=question,
            sample_index=0,
            prompt_ids=render_prompt(tokenizer, question, Prompt(system="")),
            completion_ids=[*tokenizer.encode(answer), *end],
        )
        for question, answer in ANSWERS.items()
    ]
    head, found = output_head(model), {}
    for targets, policy in (("tokens", None), ("distribution", PAPER)):
        soft = Soft(lora.base_of(model, head), policy) if policy else None
        found["ours", targets] = _numpy(step_gradient(model, head, [pack_rows(rows)], soft)[1])

    def loss(model: Any) -> mx.array:
        """As mlx_lm.tuner.trainer.default_loss has it, over all rows."""
        total, tokens = 0.0, 0
        for row in rows:
            ids, first = mx.array([[*row.prompt_ids, *row.completion_ids]]), len(row.prompt_ids) - 1
            total += nn.losses.cross_entropy(model(ids[:, :-1])[0, first:], ids[0, first + 1 :]).sum()
            tokens += len(row.completion_ids)
        return total / tokens

    from mlx.utils import tree_flatten

    found["mlx-lm's loss", "tokens"] = _numpy(dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1])))
    return adapter, rows, found


def _numpy(gradient: dict[str, Any]) -> Arrays:
    return {name: np.array(array, dtype=np.float64) for name, array in gradient.items()}


def _error(found: Arrays, exact: Arrays) -> dict[str, float]:
    errors = [np.abs(found[name] - exact[name]).max() / np.abs(exact[name]).max() for name in exact]
    return {"largest": max(errors), "median": float(np.median(errors))}


def render(facts: dict[str, Any]) -> str:
    lines = [f"# Gradients against float64, {facts['vocabulary']:,} tokens", ""]
    lines += [f"`{facts['command']}`, {facts['started']}, {facts['machine']['chip']}.", ""]
    return "\n".join([*lines, table(facts)]) + "\n"


def table(facts: dict[str, Any]) -> str:
    lines = ["| float32 gradient | targets | largest error of a tensor | median |", "|---|---|---|---|"]
    for row in facts["errors"]:
        lines.append(f"| {row['gradient']} | {row['targets']} | {row['largest']:.1e} | {row['median']:.1e} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.set_defaults(experiment=[])
    return journal.start("gradients", parser, [], run)


if __name__ == "__main__":
    sys.exit(main())
