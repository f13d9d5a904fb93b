"""What a worker is told of its work, and the requests and completions on the line. No array library.

Prompts go as token ids and random keys as numbers: a worker renders nothing and draws what it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_ssd.decoding.draw import NO_TOKEN, Policy
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.distributed.wire import Line, Lost
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.requests import Completed, Request
from mlx_ssd.storage import hash_path

ADAPTER_BYTES = 64_000_000_000  # that are sent, at the most
REASONS = ("stop", "length", "loop")


@dataclass(frozen=True)
class Job:
    """model: as the recipe names it; revision: its exact weights; dtype: as `models.load` takes it. adapter: the hash
    of its folder, if there is one, and its files' names and sizes. total: completions of the whole work."""

    label: str
    model: str
    revision: str
    dtype: str
    adapter: str | None
    files: tuple[tuple[str, int], ...]
    policies: tuple[Policy, ...]
    stop_tokens: tuple[int, ...]
    loops: LoopStop | None
    rows: int
    total: int

    def message(self, bounds: Sequence[Request]) -> dict[str, Any]:
        """`bounds`: as of `bounding`."""
        described = asdict(self) | {
            "policies": [[asdict(stage) for stage in policy.stages] for policy in self.policies],
            "bounds": requests_message(list(enumerate(bounds)), self.policies),
        }
        return {"job": described}

    @classmethod
    def of(cls, message: dict[str, Any]) -> tuple[Job, list[Request]]:
        """The job and its bounds. Raises Lost."""
        try:
            found = dict(message["job"])
            bounds = found.pop("bounds")
            policies = tuple(_policy(stages) for stages in found["policies"])
            loops = found["loops"] and LoopStop(**found["loops"])
            files = tuple((str(name), int(size)) for name, size in found["files"])
            whole = {"policies": policies, "loops": loops, "files": files, "stop_tokens": tuple(found["stop_tokens"])}
            job = cls(**found | whole)
            sent = sum(size for _, size in files)
            if any(not _plain(name) or size < 0 for name, size in files) or sent > ADAPTER_BYTES:
                raise ValueError("files")
            return job, requests_of(bounds, policies)
        except (KeyError, TypeError, ValueError, BadInput):
            raise Lost("sent a job that this version does not understand") from None


def adapter_files(folder: Path) -> tuple[tuple[str, int], ...]:
    """Raises BadInput where they are too many bytes to be sent."""
    files = tuple((path.name, path.stat().st_size) for path in sorted(folder.iterdir()) if _plain(path.name))
    size = sum(size for _, size in files)
    if size > ADAPTER_BYTES:
        raise BadInput(f"{folder} has {size / 1e9:.1f} GB, and workers are sent {ADAPTER_BYTES / 1e9:.0f} at the most")
    return files


def receive_adapter(line: Line, job: Job, folder: Path) -> None:
    """Raises Lost where what came is not what the job names."""
    for name, size in job.files:
        line.receive_file(folder / name, size)
    if job.adapter and hash_path(folder) != job.adapter:
        raise Lost("sent another adapter than it named")


def bounding(requests: Sequence[Request]) -> list[Request]:
    """A few of the requests that stand for all where room is reckoned: what all prompts begin with, the longest prompt,
    the longest row, the most tokens that may be drawn."""
    measures: tuple[Callable[[Request], Any], ...] = (
        lambda r: r.prompt_ids,
        lambda r: len(r.prompt_ids),
        lambda r: len(r.prompt_ids) + r.max_tokens,
        lambda r: r.max_tokens,
    )
    chosen = [min(requests, key=measures[0]), *(max(requests, key=measure) for measure in measures)]
    return list({id(request): request for request in chosen}.values())


def requests_message(numbered: Sequence[tuple[int, Request]], policies: Sequence[Policy]) -> dict[str, Any]:
    """Requests by number; each prompt once."""
    prompts: dict[tuple[int, ...], int] = {}
    lines = [
        [
            number,
            prompts.setdefault(tuple(request.prompt_ids), len(prompts)),
            policies.index(request.policy),
            *request.random_key,
            request.max_tokens,
        ]
        for number, request in numbered
    ]
    return {"prompts": list(prompts), "requests": lines}


def requests_of(message: dict[str, Any], policies: Sequence[Policy]) -> list[Request]:
    """Their keys are their numbers. Raises Lost."""
    try:
        prompts = message["prompts"]
        return [
            Request(number, prompts[prompt], policies[policy], (first, second), most)
            for number, prompt, policy, first, second, most in message["requests"]
        ]
    except (KeyError, IndexError, TypeError, ValueError):
        raise Lost("sent requests that this version does not understand") from None


def completions_message(completed: Sequence[Completed]) -> list[list[Any]]:
    return [[one.key, one.completion_ids, one.finish_reason] for one in completed]


def completions_of(message: Any, requests: Sequence[Request]) -> list[Completed]:
    """What a worker delivers, by number. Raises Lost for what cannot be an answer to these requests."""
    found = []
    for line in message if isinstance(message, list) else [None]:
        whole = isinstance(line, list) and len(line) == 3 and _is_index(line[0], len(requests))
        whole = whole and isinstance(line[1], list) and all(_is_index(token, NO_TOKEN) for token in line[1])
        if not (whole and 0 < len(line[1]) <= requests[line[0]].max_tokens and line[2] in REASONS):
            raise Lost("delivered what is no completion")
        found.append(Completed(*line))
    return found


def _policy(stages: Any) -> Policy:
    policies = [DecodingPolicy(**stage) for stage in stages]
    return policies[0] if len(policies) == 1 else StagedPolicy(*policies)


def _is_index(value: Any, below: int) -> bool:
    return type(value) is int and 0 <= value < below


def _plain(name: str) -> bool:
    """A file's own name: no path, not hidden."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\\" not in name and "\0" not in name
