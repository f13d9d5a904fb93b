"""Complete problems into journals: what is missing is drawn, what is there stays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mlx_ssd import heartbeat
from mlx_ssd.decoding.draw import Policy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.errors import BadInput
from mlx_ssd.models import context_length
from mlx_ssd.progress import progress
from mlx_ssd.prompts import render, template_hash
from mlx_ssd.records import Completion, Problem
from mlx_ssd.sampling.engines import MLX, Engine, Sharing, engine_of
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.requests import Completed, Request
from mlx_ssd.sections import Prompt
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
    memory_gb: float | None,
    loops: LoopStop | None,
    seed: int,
    stream: str,
    revision: str,
    label: str,
    engine: str | Engine = MLX,
    sharing: Sharing | None = None,
) -> dict[str, Any]:
    """Draw every (problem, sample) that a target's journal does not hold yet, for all targets in one go.

    model, tokenizer: as `engine` loads them (`sampling.engines`). All targets draw with the same uniforms. memory_gb:
    what generation may take, weights included; None: what the machine can give. sharing: with whom the drawing is
    shared. Returns what was done: completions, tokens, seconds, and, if any, by which engine, the bytes that it was
    expected to take at the highest, the engine's own facts, and how many completions each worker drew. Raises BadInput
    when a prompt leaves no room in the model's context or one completion none in memory, or a journal was drawn in
    another way.
    """
    limit = context_length(model)
    stop_tokens = {token for token in tokenizer.eos_token_ids if token is not None}
    if not stop_tokens:
        raise BadInput("the model's tokenizer names no end-of-turn token (eos_token); every answer would run on")
    common = {"seed": seed, "stream": stream, "model": revision, "template": template_hash(tokenizer, prompt)}
    journals = [Journal(target.path, kind) for target in targets]
    done = [_held(journal, target, common) for journal, target in zip(journals, targets, strict=True)]
    missing = {
        problem.id: [
            (number, i)
            for number in range(len(targets))
            for i in range(samples_per_problem)
            if (problem.id, i) not in done[number]
        ]
        for problem in problems
    }
    rendered = {p.id: render(tokenizer, p.prompt, prompt) for p in problems if missing[p.id]}
    requests = []
    # Problem by problem, so that a prompt is run once for all its completions.
    for problem_id in longest_first(rendered, [length for held in done for length in held.items()]):
        prompt_ids = rendered[problem_id]
        room = limit - len(prompt_ids) if limit else max_tokens
        if room < 1 or not prompt_ids:
            what = f"is {len(prompt_ids)} tokens long, the model's context is {limit}" if prompt_ids else "is empty"
            raise BadInput(f"the prompt of problem {problem_id!r} {what}; shorten or remove it")
        requests += [
            Request(
                (number, problem_id, i),
                prompt_ids,
                targets[number].policy,
                sample_key(seed, stream, problem_id, i),
                min(max_tokens, room),
            )
            for number, i in missing[problem_id]
        ]
    prompts = {request.key: request.prompt_ids for request in requests}
    tokens = 0

    def count(drawn: int) -> None:
        nonlocal tokens
        tokens += drawn
        bar.update(bar.done, rate())

    def rate() -> str:
        return f"{tokens / max(time.monotonic() - start, 1e-9):,.0f} tokens/s"

    if not requests:
        return {"completions": 0, "tokens": 0, "seconds": 0.0}
    chosen = engine_of(engine) if isinstance(engine, str) else engine
    memory = heartbeat.budget(chosen.working_set() if memory_gb is None else int(memory_gb * 1e9))
    total = len(targets) * len(problems) * samples_per_problem

    def keep(completed: Completed) -> None:
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
                **completed.provenance,
            )
        )
        bar.update(bar.done + 1, rate())

    options: dict[str, Any] = {"loops": loops, "memory": memory}
    if sharing:
        decoding = sharing.decoding(chosen, model, requests, stop_tokens, rows, **options, label=label, keep=keep)
    else:
        decoding = chosen.decoding(model, requests, stop_tokens, rows, **options)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(label, total, total - len(requests), "samples"))
        appenders = [stack.enter_context(journal.appending()) for journal in journals]
        for completed in decoding.run(count):
            keep(completed)
    drawn_by_workers = {"workers": dict(sorted(decoding.counts.items()))} if sharing else {}
    return {
        "engine": chosen.name,
        "completions": len(requests),
        "tokens": tokens,
        "seconds": round(time.monotonic() - start, 2),
        "expected_peak_bytes": round(decoding.expected_peak),
        **getattr(decoding, "facts", {}),
        **drawn_by_workers,
    }


def longest_first(prompts: dict[str, list[int]], known: Sequence[tuple[tuple[str, int], int]]) -> list[str]:
    """Problems by the length that their completions are expected to have, so that no long one is left for the end.

    prompts: token ids by problem. known: ((problem, sample), tokens) of completions that there are. A problem's is
    the mean of its own, or else in proportion to its prompt.
    """
    of: dict[str, list[int]] = {}
    for (problem_id, _), tokens in known:
        of.setdefault(problem_id, []).append(tokens)
    both = [(len(prompts[id]), fmean(lengths)) for id, lengths in of.items() if id in prompts]
    ratio = sum(answer for _, answer in both) / sum(prompt for prompt, _ in both) if both else 1.0
    expected = {id: fmean(of[id]) if id in of else ratio * len(prompt_ids) for id, prompt_ids in prompts.items()}
    return sorted(prompts, key=lambda id: -expected[id])


def _held(journal: Journal, target: Target, common: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Tokens of a journal's completions, by key. Raises BadInput if one was drawn in another way than `common`."""
    held = {}
    for record in journal.each():
        for name, value in {"policy": target.policy.name(), **common}.items():
            if getattr(record, name) != value:
                raise BadInput(
                    f"{target.path} holds completions of another {name} ({getattr(record, name)}, now {value}); "
                    "move that file away, or choose another --out"
                )
        held[record.key] = len(record.completion_ids)
    return held
