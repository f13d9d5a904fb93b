"""Problem sets: where prompts come from, and the tests that grade their answers.

One module a source: `embedded`, `jsonl` (a user's own file), `rstar_coder` (the paper's prompts), `livecodebench`
(the paper's tests), and the small test sets `humaneval`, `mbpp` and `gsm8k`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from mlx_ssd import models
from mlx_ssd.errors import BadInput
from mlx_ssd.problems import embedded, gsm8k, humaneval, jsonl, livecodebench, mbpp, rstar_coder
from mlx_ssd.problems.decontaminate import normal_form
from mlx_ssd.records import Problem
from mlx_ssd.sections import Problems, ProblemSource
from mlx_ssd.storage import hash_path

Account = dict[str, int | str]  # what was read, left out and kept, for the report


SUITES = {"humaneval": humaneval.SUITE, "mbpp": mbpp.SUITE, "gsm8k": gsm8k.SUITE}
_TEST_SETS = {"livecodebench": livecodebench, **SUITES}  # whose files are downloaded whole


class OtherProblems(UserWarning):
    """A set is not what its name says."""


def identity(source: ProblemSource, role: str) -> str:
    """What a fingerprint needs to know of the data: a hash of the contents, wherever they lie, or the data
    set and its commit. Reads no network. Raises BadInput for a file that is not there."""
    if source.source == "rstar_coder":
        return rstar_coder.identity(source, role)
    if source.source in _TEST_SETS:
        return _TEST_SETS[source.source].identity(source, role)
    return hash_path(problem_file(source, role))


def confirm_downloads(problems: Problems, ask: Callable[[str], bool] | None) -> None:
    """Have the test files that are not here confirmed, with their size, as models.confirm_download does."""
    asked = set()
    for role in ("train", "validation", "test"):
        source = getattr(problems, role)
        if source is None or source.source not in _TEST_SETS:
            continue
        what = SUITES[source.source].title if source.source in SUITES else f"LiveCodeBench {source.release}"
        if (what, source.revision) in asked:
            continue
        asked.add((what, source.revision))
        size = _TEST_SETS[source.source].download_bytes(source, role)
        models.confirm(what, size, ask, f"problems.{role}.path takes files on this disk too")


def refuse_missing(problems: Problems) -> None:
    """Raise BadInput where a `path` is not there, before anything is planned, measured or downloaded for the run."""
    for role in ("train", "validation", "test"):
        source = getattr(problems, role)
        if source is None or source.path is None:
            continue
        if source.source == "jsonl":
            jsonl.path(source, role)
        elif not Path(source.path).expanduser().exists():
            raise BadInput(f"problems.{role}.path: {source.path} does not exist")


def problem_file(source: ProblemSource, role: str) -> Path:
    """The JSONL file of an embedded or jsonl source. Raises BadInput when it is not there."""
    return embedded.path(role) if source.source == "embedded" else jsonl.path(source, role)


def read_problems(source: ProblemSource, role: str) -> list[Problem]:
    """The problems of `role` ("train", "validation" or "test") in the order of the data, `source.limit` of
    them after the first `source.skip`. Nothing is decontaminated: there is nothing to compare with.

    Raises BadInput for missing or malformed data, or when no problem is left; WorkFailed when a stream
    from the hub breaks off. Warns, in one sentence, of a test set that is not its authors'.
    """
    if source.source == "rstar_coder":
        return rstar_coder.select(source, (), role)[0]
    problems, account = _choose(source, role)
    if "note" in account:
        warnings.warn(str(account["note"]), OtherProblems, stacklevel=2)
    return problems


def select_training(source: ProblemSource, against: Sequence[Problem]) -> tuple[list[Problem], Account]:
    """The problems to sample from, and the account of what was left out and why (docs/problems.md).

    `against` are the problems that the student will be judged on: a problem of rStar-Coder that shares
    `source.decontaminate` words in a row with one of them is dropped. Any other source is sampled as it
    is; its account counts what is repeated in it and what is in `against` too. Raises as `read_problems`.
    """
    if source.source == "rstar_coder":
        return rstar_coder.select(source, against, "train")
    kept, account = _choose(source, "train")
    prompts = [normal_form(problem.prompt) for problem in kept]
    judged = {normal_form(problem.prompt) for problem in against}
    return kept, account | {
        "kept_though_repeated": len(prompts) - len(set(prompts)),
        "kept_though_in_tests": sum(prompt in judged for prompt in prompts),
    }


def _choose(source: ProblemSource, role: str) -> tuple[list[Problem], Account]:
    """The part of a set that a source names, and what was left out."""
    if source.source in _TEST_SETS:
        return _TEST_SETS[source.source].select(source, role)
    everything = jsonl.read(problem_file(source, role), role)
    fitting = [problem for problem in everything if source.difficulty in (None, problem.difficulty)]
    kept = fitting[source.skip :][: source.limit]
    if not fitting:
        raise BadInput(f"problems.{role}.difficulty: none of the {len(everything)} problems is {source.difficulty}")
    if not kept:
        raise BadInput(f"problems.{role}.skip: {source.skip} leaves none of the {len(fitting)} problems; lower it")
    account: Account = {
        "source": source.source,
        "rows": len(everything),
        "skipped": source.skip,
        "beyond_limit": len(fitting) - source.skip - len(kept),
        "kept": len(kept),
    }
    return kept, account | ({"other_difficulty": len(everything) - len(fitting)} if source.difficulty else {})
