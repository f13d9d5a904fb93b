"""Run by test_engine.py in a process of its own: one model, the same requests under many ways of decoding them.

    python -m tests.sampling.invariance ARCHITECTURE

Each request alone is what all others are compared with: any number of rows, any order of admission, so little memory
that rows are put back, prompts that share a beginning and such that share nothing, and a run that was stopped.
Prints one JSON object a way: the completions compared, how many differ, and what shows that the way was gone.
"""

import json
import sys
from typing import Any

import numpy as np

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.sampling.engine import Decoding, Request
from mlx_ssd.sampling.kv import GroupedKV
from mlx_ssd.sampling.loops import LoopStop
from tests.architectures import tiny

STOPS = range(4)


def requests() -> list[Request]:
    """Two prompts of the same beginning and length, one that is long, one that ends with the beginning, one token."""
    random = np.random.default_rng(0)
    beginning, *others = (random.integers(4, 200, length).tolist() for length in (12, 20, 20, 150))
    prompts = [beginning + other for other in others] + [beginning]
    policies = (DecodingPolicy(1.0, 20, 0.8), DecodingPolicy(0.7), DecodingPolicy(0.0))
    return [
        Request((n, policy, i), prompt, policy, (n, i), 10 + 12 * i + 3 * n)
        for n, prompt in enumerate(prompts)
        for policy in policies
        for i in range(4)
    ]


def main() -> None:
    model = tiny(sys.argv[1])
    asked = requests()
    alone = {r.key: c for r in asked for c in Decoding(model, [r], STOPS, 1).run()}

    def compare(
        way: str,
        ordered: list[Request],
        rows: int,
        stops: Any = STOPS,
        stop_after: int = 0,
        chunk: int | None = None,
        **options: Any,
    ) -> None:
        decoding = Decoding(model, ordered, stops, rows, **options)
        decoding._prefill._tokens = chunk or decoding._prefill._tokens
        found = {}
        for completed in decoding.run():
            assert completed.key not in found
            found[completed.key] = completed
            if stop_after and len(found) == stop_after:
                break
        if stop_after:
            left = [r for r in ordered if r.key not in found]
            found |= {c.key: c for c in Decoding(model, left, stops, rows, **options).run()}
        differ = sum(found[r.key] != alone[r.key] for r in ordered)
        facts = {"compared": len(found), "differ": differ, "put_back": decoding.put_back}
        print(json.dumps({"way": way, **facts, "grouped": isinstance(decoding._kv, GroupedKV)}))

    compare("three rows", asked, 3)
    compare("all in one batch", asked, len(asked))
    random = np.random.default_rng(1)
    compare("any order", [asked[i] for i in random.permutation(len(asked))], 7)
    compare("interrupted", asked, 5, stop_after=17)
    compare("nothing in common", [r for r in asked if r.key[0] == 1], 4)
    compare("prompts in chunks", asked, 9, chunk=16)
    compare("loops watched", asked, 8, loops=LoopStop(8, 50, 400))

    stopped = sum(c.finish_reason == "stop" for c in alone.values())
    of = len(alone)

    # After many short ones the long ones are expected to be short; nothing ends them before their limit.
    policy, prompt = asked[0].policy, asked[0].prompt_ids
    few = [Request(i, prompt, policy, (i, 0), 4 if i < 20 else 110) for i in range(28)]
    alone = {r.key: c for r in few for c in Decoding(model, [r], [], 1).run()}
    room = Decoding(model, few, [], 1)._room
    compare("little memory", few, 28, stops=[], memory=int(room.weights + 3.3 * room.row_bytes(len(prompt) + 110)))
    print(json.dumps({"stopped": stopped, "of": of}))


main()
