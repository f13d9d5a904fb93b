"""What a decoding step of the embedded model costs and where, and tokens a second of whole generations.

    LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libopenblas.so.0 OPENBLAS_NUM_THREADS=1 \
        python -m benchmarks.decoding_step [--rows 64 128 256] [--problems 256] [--samples 4]

One JSON object per number of rows. Parts are milliseconds of processor time, the least of ten, each computed
alone; processor time because other work on the machine moves it less than the clock's.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import BatchKVCache

from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy, TwoStagePolicy
from mlx_ssd.decoding.policy_mlx import make_row_sampler
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Model, ProblemSource, Prompt
from mlx_ssd.sampling.engine import Request, generate

ONE = DecodingPolicy(1.6, 20, 0.8)
TEN = [DecodingPolicy(t, 20, 0.8) for t in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6)]
TEN += [DecodingPolicy(0.0), DecodingPolicy(1.0)]  # greedy; every token
TEN += [TwoStagePolicy(ONE, DecodingPolicy(t, 10, 0.9)) for t in (0.7, 1.0)]
POSITIONS = 100  # in the cache when the parts are measured


def least(work: Callable[[], Any]) -> float:
    """Milliseconds of processor time."""
    found = []
    for _ in range(10):
        started = time.process_time()
        mx.eval(work())
        found.append(time.process_time() - started)
    return round(1000 * min(found), 2)


def parts(model: Any, rows: int) -> dict[str, float]:
    random = np.random.default_rng(0)
    cache = [BatchKVCache([0] * rows) for _ in model.layers]
    logits = model(mx.array(random.integers(10, 600, (rows, POSITIONS))), cache=cache)[:, -1]
    mx.eval(logits)
    tokens, u32 = (mx.array(random.integers(0, top, rows).astype(np.uint32)) for top in (600, 2**32))
    mixed = [TEN[i % len(TEN)] for i in range(rows)]
    one, ten = (make_row_sampler(policies, logits.shape[-1]) for policies in ([ONE] * rows, mixed))

    def copy() -> list[mx.array]:
        for layer in cache:
            layer.filter(list(range(rows)))
        return [array for layer in cache for array in (layer.keys, layer.values)]

    return {
        "forward": least(lambda: model(tokens[:, None], cache=cache)),
        "draw": least(lambda: one(logits, u32)),
        "draw_of_ten_policies": least(lambda: ten(logits, u32)),
        "log_softmax": least(lambda: list(logits - mx.logsumexp(logits, axis=-1, keepdims=True))),
        "cache_copy": least(copy),
    }


def throughput(model: Any, tokenizer: Any, rows: int, problems: int, samples: int) -> dict[str, float]:
    requests = [
        Request((p.id, i), ids, ONE, sample_key(0, "benchmark", p.id, i), 512)
        for p in read_problems(ProblemSource(limit=problems), "train")
        for ids in [render(tokenizer, p.prompt, Prompt())]
        for i in range(samples)
    ]
    wall, processor = time.perf_counter(), time.process_time()
    tokens = sum(len(c.completion_ids) for c in generate(model, requests, tokenizer.eos_token_ids, rows))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "tokens": tokens,
        "tokens_per_second": round(tokens / wall),
        "tokens_per_processor_second": round(tokens / processor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--samples", type=int, default=4, help="completions of one prompt, side by side")
    options = parser.parse_args()
    model, tokenizer = models.load(models.locate(Model()), "float32")
    for rows in options.rows:
        row = {
            "rows": rows,
            "samples": options.samples,
            "load": round(os.getloadavg()[0], 1),
            **throughput(model, tokenizer, rows, options.problems, options.samples),
            "milliseconds": parts(model, rows),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
