"""Complete problems into journals: what is missing is drawn, what is there stays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.errors import BadInput
from mlx_ssd.models import context_length
from mlx_ssd.progress import progress
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.recipe import Prompt
from mlx_ssd.records import Completion, Problem
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.storage import Journal


@dataclass(frozen=True)
class Target:
    """A journal, and how its completions are drawn."""

    path: Path
    policy: Policy


def collect(
    targets: Sequence[Target],
    kind: type[Completion],
    problems: Sequence[Problem],
    model: Any,
    tokenizer: Any,
    *,
    prompt: Prompt,
    samples_per_problem: int,
    max_tokens: int,
    rows: int,
    seed: int,
    stream: str,
    revision: str,
    label: str,
) -> dict[str, float]:
    """Draw every (problem, sample) that a target's journal does not hold yet, for all targets in one go.

    All targets draw with the same uniforms. Returns what this process did: completions, tokens,
    seconds. Raises BadInput when a prompt leaves no room in the model's context, or a journal was
    drawn in another way.
    """
    limit = context_length(model)
    stop_tokens = {token for token in tokenizer.eos_token_ids if token is not None}
    if not stop_tokens:
        raise BadInput("the model's tokenizer names no end-of-turn token (eos_token); every answer would run on")
    common = {"seed": seed, "stream": stream, "model": revision, "template": template_hash(tokenizer, prompt)}
    journals = [Journal(target.path, kind) for target in targets]
    done = [_held(journal, target, common) for journal, target in zip(journals, targets, strict=True)]
    requests = []
    # Problem by problem, so that a prompt is run once for all its completions.
    for problem in problems:
        missing = [
            (number, i)
            for number in range(len(targets))
            for i in range(samples_per_problem)
            if (problem.id, i) not in done[number]
        ]
        if not missing:
            continue
        prompt_ids = render(tokenizer, problem.prompt, prompt)
        room = limit - len(prompt_ids) if limit else max_tokens
        if room < 1 or not prompt_ids:
            what = f"is {len(prompt_ids)} tokens long, the model's context is {limit}" if prompt_ids else "is empty"
            raise BadInput(f"the prompt of problem {problem.id!r} {what}; shorten or remove it")
        requests += [
            Request(
                (number, problem.id, i),
                prompt_ids,
                targets[number].policy,
                sample_key(seed, stream, problem.id, i),
                min(max_tokens, room),
            )
            for number, i in missing
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
    total = len(targets) * len(problems) * samples_per_problem
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(label, total, total - len(requests), "samples"))
        appenders = [stack.enter_context(journal.appending()) for journal in journals]
        for completed in generate(model, requests, stop_tokens, rows, count):
            number, problem_id, index = completed.key
            appenders[number].add(
                kind(
                    problem_id=problem_id,
                    sample_index=index,
                    prompt_ids=prompts[completed.key],
                    completion_ids=completed.completion_ids,
                    finish_reason=completed.finish_reason,
                    policy=targets[number].policy.name(),
                    **common,
                )
            )
            bar.update(bar.done + 1, rate())
    return {"completions": len(requests), "tokens": tokens, "seconds": round(time.monotonic() - start, 2)}


def _held(journal: Journal, target: Target, common: dict[str, Any]) -> set[tuple[str, int]]:
    """The keys of a journal's completions. Raises BadInput if one was drawn in another way than `common`."""
    held = set()
    for record in journal.read():
        for name, value in {"policy": target.policy.name(), **common}.items():
            if getattr(record, name) != value:
                raise BadInput(
                    f"{target.path} holds completions of another {name} ({getattr(record, name)}, now {value}); "
                    "move that file away, or choose another --out"
                )
        held.add(record.key)
    return held
