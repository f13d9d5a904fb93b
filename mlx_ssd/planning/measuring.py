"""Measure what calibration.py asks for, in the child.

The work is the run's own: the engine with its draw, and a training step's gradient, on random weights. Everything is
done on few layers and on some more, and a layer is the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.planning.stand_in import build
from mlx_ssd.sampling.engine import Decoding
from mlx_ssd.sampling.requests import Request
from mlx_ssd.training import full, lora
from mlx_ssd.training.batches import Batch, pack_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import Soft, mean_loss, step_gradient
from mlx_ssd.training.recompute import recomputed_layers
from mlx_ssd.training.rows import TokenRow

STEPS, WARM = 8, 3  # decoding steps, of which the first do not count
JOIN_STEPS, MOST_JOINING = 16, 32  # of an answer on average, and rows, where some join and some end
QUICK_SECONDS, MORE_STEPS = 0.02, 40  # of steps that are so quick, more
REPEATS, LONG_SECONDS = 5, 1.0  # of other work: so often, or until it took so long
LEAST_TOKEN = 5  # random ids begin here


def timed(*runs: Callable[[], Any]) -> list[float]:
    """Median seconds of each, run in turn: what slows one slows all. The first time, not counted, compiles."""
    for run in runs:
        run()
    took: list[list[float]] = [[] for _ in runs]
    while len(took[0]) < REPEATS and sum(map(sum, took)) < LONG_SECONDS * len(runs):
        for run, seconds in zip(runs, took, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return [median(seconds) for seconds in took]


def usual(seconds: np.ndarray) -> float:
    """The mean without the slowest tenth, in which other processes had the machine."""
    return float(np.sort(seconds)[: max(len(seconds) * 9 // 10, 1)].mean())


def tokens(work: Mapping[str, Any], count: int) -> list[int]:
    random = np.random.default_rng(0)
    return random.integers(LEAST_TOKEN, work["config"]["vocab_size"], count).tolist()


def decoding_step(model: nn.Module, work: Mapping[str, Any], rows: int, context: int) -> float:
    """Seconds of the engine's step with its draw. All rows have one prompt, which is run once."""
    prompt, policy = tokens(work, context), DecodingPolicy(**work["decoding"])

    def step(steps: int) -> float:
        requests = [Request(i, prompt, policy, sample_key(0, "plan", str(i), 0), steps) for i in range(rows)]
        moments = [time.perf_counter()]
        for _ in Decoding(model, requests, (), rows).run(lambda drawn: moments.append(time.perf_counter())):
            pass
        return usual(np.diff(moments)[WARM:])

    found = step(STEPS)
    return step(MORE_STEPS) if found < QUICK_SECONDS else found


def joining(model: nn.Module, work: Mapping[str, Any], rows: int, context: int, step: float) -> float:
    """Seconds that a row costs beside its steps: it joins, it ends, and the step built ahead is thrown away."""
    prompt, policy = tokens(work, context), DecodingPolicy(**work["decoding"])
    requests = [
        Request(i, prompt, policy, sample_key(0, "plan", str(i), 0), JOIN_STEPS // 2 + i * 7 % (JOIN_STEPS + 1))
        for i in range(3 * rows)
    ]
    moments, full = [time.perf_counter()], []

    def note(drawn: int) -> None:
        moments.append(time.perf_counter())
        full.append(drawn == rows)

    for _ in Decoding(model, requests, (), rows).run(note):
        pass
    took = np.diff(moments)[WARM:][np.array(full[WARM:], dtype=bool)]
    return max(usual(took) - step, 0.0) * JOIN_STEPS / rows if len(took) else 0.0


def prefill(model: nn.Module, work: Mapping[str, Any]) -> float:
    """Seconds a token, without the head, which no logits are asked of."""
    prompt = mx.array([tokens(work, work["prompt"])])

    def run() -> None:
        caches = make_prompt_cache(model)
        model(prompt, cache=caches)
        mx.eval([cache.state for cache in caches])

    return timed(run)[0] / work["prompt"]


def sample_tokens(work: Mapping[str, Any]) -> int:
    return min(work["prompt"] + work["answer"], work["row_tokens"])


def training_rows(work: Mapping[str, Any]) -> Batch:
    """Samples of the expected length, as many as a row has room for."""
    each = sample_tokens(work)
    prompt = max(each * work["prompt"] // (work["prompt"] + work["answer"]), 1)
    ids = tokens(work, each + 1)
    count = max(work["row_tokens"] // each, 1)
    return pack_rows([TokenRow("", i, ids[:prompt], ids[prompt:]) for i in range(count)])


def training(work: Mapping[str, Any], layers: int) -> dict[str, dict[str, float]]:
    """Seconds a token of the loss, and of a step's gradient, by targets."""
    method, model = {"lora": lora, "full": full}[work["method"]], build(work, layers)
    settings = {"keys": "all", "experts": False, "num_layers": -1, "rank": work["rank"], "scale": 1.0, "dropout": 0.0}
    method.attach(model, SimpleNamespace(**settings, seed=0))
    mx.eval(model.parameters())
    batch, head = training_rows(work), output_head(model)
    each, found = batch.tokens.size, {}
    for targets in work["targets"]:
        soft = None
        if targets == "distribution":
            soft = Soft(method.base_of(model, head), DecodingPolicy(**work["decoding"]))

        def loss(soft: Soft | None = soft) -> None:
            model.eval()
            mean_loss(model, head, [batch], soft)

        def step(soft: Soft | None = soft) -> None:
            model.train()
            with recomputed_layers(model, work["recompute"]):
                step_gradient(model, head, [batch], soft)

        forward, whole = timed(loss, step)
        found[targets] = {"forward": forward / each, "step": whole / each}
    return found


def split(layers: Sequence[int], seconds: Sequence[float]) -> dict[str, float]:
    """What each layer costs, and what does not depend on them; neither is ever below nothing."""
    (few, many), (less, more) = layers, seconds
    if few == many:
        return {"fixed": 0.0, "layer": max(more / many, 1e-12)}
    layer = max((more - less) / (many - few), 1e-12)
    return {"fixed": max(more - many * layer, 0.0), "layer": layer}


def measure(work: Mapping[str, Any]) -> dict[str, Any]:
    layers = work["layers"]
    models = [build(work, count) for count in layers]
    ready = time.time()
    near = min(work["context"], 256)
    decoding = []
    for rows in work["rows"]:
        steps = [decoding_step(model, work, rows, near) for model in models]
        decoding.append({"rows": rows, "context": near, **split(layers, steps)})
    attention = 0.0
    if (far := min(work["context"], 4 * near)) > 1.5 * near:
        rows = work["rows"][-1]
        longer = decoding_step(models[-1], work, rows, far) - steps[-1]
        attention = max(longer, 0.0) / (layers[-1] * rows * (far - near))
    # Of some rows: of many it would take long.
    place = max((i for i, rows in enumerate(work["rows"]) if rows <= MOST_JOINING), default=0)
    rows = work["rows"][place]
    steady = [decoding[place]["fixed"] + count * decoding[place]["layer"] for count in layers]
    joined = [joining(model, work, rows, near, step) for model, step in zip(models, steady, strict=True)]
    prefilled = split(layers, [prefill(model, work) for model in models])
    del models
    trained = [training(work, count) for count in layers]
    return {
        "start_seconds": ready - work["spawned"],
        "decoding": decoding,
        "attention_seconds": attention,
        "joining": split(layers, joined),
        "prefill": prefilled,
        "length": sample_tokens(work),
        "recompute": work["recompute"],
        "training": {
            targets: {name: split(layers, [part[targets][name] for part in trained]) for name in of}
            for targets, of in trained[0].items()
        },
    }
