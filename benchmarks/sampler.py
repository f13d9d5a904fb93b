"""The sampler alone against mlx-lm's: float32 logits on the device in, tokens out.

    LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libopenblas.so.0 taskset -c 0 python -m benchmarks.sampler [--rounds 11]

One JSON object per configuration. Both take turns, a call each a round, after one that is not timed; the times are
medians of the rounds in milliseconds, and the ratio is mlx-lm's by ours, with its range over the rounds: of processor
time on a CPU, because other work on the machine moves it less than the clock's, and of the clock on a GPU.

Ours is what the engine calls a step: the compiled sampler of a batch, and the uniforms of the rows. Theirs is
`mlx_lm.sample_utils.make_sampler`, which cuts by top-p before the temperature, so the tokens it draws are of another
distribution; it takes log-probabilities, made beforehand. Without truncation it is `mx.random.categorical` of the
logits.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np
from mlx_lm import sample_utils

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.policy_mlx import make_row_sampler
from mlx_ssd.decoding.rng import uniform_u32

TRUNCATED = DecodingPolicy(1.6, 20, 0.8)
WHOLE = DecodingPolicy(1.0)  # every token
ROWS = (1, 8, 32, 64)
VOCABULARIES = {"qwen3": 151_936, "smollm2": 49_152, "embedded model": 704}


def ours(policy: DecodingPolicy, logits: mx.array) -> Callable[[], mx.array]:
    rows, vocabulary = logits.shape
    keys = np.random.default_rng(1).integers(0, 2**32, (2, rows), dtype=np.uint32)
    sampler = make_row_sampler([policy] * rows, vocabulary)
    return lambda: sampler(logits, mx.array(uniform_u32((keys[0], keys[1]), 100)))


def theirs(policy: DecodingPolicy, logits: mx.array) -> Callable[[], mx.array]:
    if policy == WHOLE:
        return lambda: mx.random.categorical(logits)
    log_probabilities = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(log_probabilities)
    sampler = sample_utils.make_sampler(temp=policy.temperature, top_p=policy.top_p, top_k=policy.top_k)
    return lambda: sampler(log_probabilities)


def milliseconds(work: Callable[[], mx.array]) -> float:
    clock = time.perf_counter if mx.default_device() == mx.gpu else time.process_time
    started = clock()
    mx.eval(work())
    return 1000 * (clock() - started)


def measure(policy: DecodingPolicy, rows: int, vocabulary: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of both, over logits of a model's spread (2.2)."""
    logits = mx.array((np.random.default_rng(0).normal(size=(rows, vocabulary)) * 2.2).astype(np.float32))
    calls = ours(policy, logits), theirs(policy, logits)
    found = np.array([[milliseconds(call) for call in calls] for _ in range(1 + rounds)])[1:]
    mine, other = np.median(found, axis=0)
    ratios = found[:, 1] / found[:, 0]
    return {
        "ours_ms": round(mine, 3),
        "mlx_lm_ms": round(other, 3),
        "ratio": round(other / mine, 2),
        "ratio_range": [round(ratios.min(), 2), round(ratios.max(), 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    for policy in (TRUNCATED, WHOLE):
        for name, vocabulary in VOCABULARIES.items():
            for rows in ROWS:
                row = {
                    "policy": policy.name(),
                    "vocabulary": vocabulary,
                    "of": name,
                    "rows": rows,
                    "rounds": rounds,
                    **measure(policy, rows, vocabulary, rounds),
                    "load": round(os.getloadavg()[0], 1),
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
