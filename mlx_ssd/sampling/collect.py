"""Complete problems into a journal: what is missing is drawn, what is there stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.errors import BadInput
from mlx_ssd.models import context_length
from mlx_ssd.progress import progress
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.recipe import Prompt
from mlx_ssd.records import Completion, Problem
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.storage import Journal


def collect(
    path: Path,
    kind: type[Completion],
    problems: Sequence[Problem],
    model: Any,
    tokenizer: Any,
    *,
    prompt: Prompt,
    policy: Any,
    samples_per_problem: int,
    max_tokens: int,
    rows: int,
    seed: int,
    stream: str,
    revision: str,
    label: str,
) -> dict[str, float]:
    """Draw every (problem, sample) that the journal at `path` does not hold yet.

    Returns what this process did: completions, tokens, seconds. Raises BadInput when a prompt
    leaves no room in the model's context, or the journal was drawn in another way.
    """
    limit = context_length(model)
    stop_tokens = {token for token in tokenizer.eos_token_ids if token is not None}
    if not stop_tokens:
        raise BadInput("the model's tokenizer names no end-of-turn token (eos_token); every answer would run on")
    journal = Journal(path, kind)
    common = {
        "policy": policy.name(),
        "seed": seed,
        "stream": stream,
        "model": revision,
        "template": template_hash(tokenizer, prompt),
    }
    done = set()
    for record in journal.read():
        for name, value in common.items():
            if getattr(record, name) != value:
                raise BadInput(
                    f"{path} holds completions of another {name} ({getattr(record, name)}, now {value}); "
                    "move that file away, or choose another --out"
                )
        done.add(record.key)
    requests = []
    for problem in problems:
        missing = [i for i in range(samples_per_problem) if (problem.id, i) not in done]
        if not missing:
            continue
        prompt_ids = render(tokenizer, problem.prompt, prompt)
        room = limit - len(prompt_ids) if limit else max_tokens
        if room < 1 or not prompt_ids:
            what = f"is {len(prompt_ids)} tokens long, the model's context is {limit}" if prompt_ids else "is empty"
            raise BadInput(f"the prompt of problem {problem.id!r} {what}; shorten or remove it")
        requests += [
            Request((problem.id, i), prompt_ids, sample_key(seed, stream, problem.id, i), min(max_tokens, room))
            for i in missing
        ]
    prompts = {request.key: request.prompt_ids for request in requests}
    tokens = 0

    def count(drawn: int) -> None:
        nonlocal tokens
        tokens += drawn
        bar.update(bar.done, rate())

    def rate() -> str:
        return f"{tokens / max(time.monotonic() - start, 1e-9):,.0f} tokens/s"

    start = time.monotonic()
    total = len(problems) * samples_per_problem
    with progress(label, total, total - len(requests), "samples") as bar, journal.appending() as appender:
        for completed in generate(model, requests, policy, stop_tokens, rows, count):
            problem_id, index = completed.key
            appender.add(
                kind(
                    problem_id=problem_id,
                    sample_index=index,
                    prompt_ids=prompts[completed.key],
                    completion_ids=completed.completion_ids,
                    finish_reason=completed.finish_reason,
                    **common,
                )
            )
            bar.update(bar.done + 1, rate())
    return {"completions": len(requests), "tokens": tokens, "seconds": round(time.monotonic() - start, 2)}
