"""A verdict for a program against its tests."""

import contextlib
import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.grading.compare import same_output, same_value
from mlx_ssd.grading.sandbox import Limits, Outcome, Sandbox


@dataclass(frozen=True)
class Verdict:
    """`failed_test` is the index of the first test not passed (0 where the program does not load), None for
    pass, no_code and harness_error. `harness_error` is never a failure of the program: it was not graded."""

    verdict: Literal["pass", "wrong", "error", "timeout", "memory", "no_code", "harness_error"]
    failed_test: int | None = None
    detail: str = ""


class Known(Protocol):
    """Verdicts of programs that were graded before; see `GradeCache`."""

    def key(self, job: Hashable) -> bytes: ...

    def get(self, key: bytes) -> Verdict | None: ...

    def put(self, key: bytes, verdict: Verdict) -> None: ...


Item = tuple[Hashable, str | None, str | None, Sequence[dict]]
"""(key, code, entry_point, tests): one program to be graded."""


def grade(
    code: str | None, entry_point: str | None, tests: Sequence[dict], limits: Limits, sandbox: Sandbox
) -> Verdict:
    """Runs the tests in order up to the first that is not passed.

    code: None (nothing could be extracted) gives `no_code`. tests: all functional, `{"args": [...],
    "expected": value}`, or all of standard input, `{"stdin": text, "stdout": text}`; BadInput otherwise,
    or where functional tests have no entry_point.
    """
    return _grade(code, entry_point, tests, limits, sandbox, threading.Event())


def grade_many(
    items: Iterable[Item], limits: Limits, sandbox: Sandbox, workers: int, known: Known | None = None
) -> Iterator[tuple[Hashable, Verdict]]:
    """(key, verdict) of each item; `workers` programs run at a time.

    The same program with the same tests is run once and its verdict given to every key; not at all where `known` has
    a verdict of it. Those come first, the others in order of completion. Closing the iterator ends the running
    programs at their current test.
    """
    keys, work, digests = defaultdict(list), {}, {}
    for key, code, entry_point, tests in items:
        if id(tests) not in digests:  # samples of one problem share their tests, which can be megabytes
            digests[id(tests)] = hashlib.sha256(json.dumps(tests).encode()).digest()
        job = (code, entry_point, digests[id(tests)])
        keys[job].append(key)
        work[job] = (code, entry_point, tests)  # also keeps `tests` alive, so that its id stays its own
    if known:
        for job in list(work):
            if verdict := known.get(known.key(job)):
                del work[job]
                for key in keys[job]:
                    yield key, verdict
    stop = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="grading") as pool:
        futures = {pool.submit(_grade, *work[job], limits, sandbox, stop): job for job in work}
        try:
            for future in as_completed(futures):
                verdict = future.result()
                if known:
                    known.put(known.key(futures[future]), verdict)
                for key in keys[futures[future]]:
                    yield key, verdict
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _grade(code, entry_point, tests, limits, sandbox, stop: threading.Event) -> Verdict:
    functional = _check_tests(entry_point, tests)
    if code is None:
        return Verdict("no_code")
    try:
        if functional:
            calls = sandbox.call(code, entry_point, [test["args"] for test in tests], limits)
            with contextlib.closing(calls):
                outcomes = iter(calls)
                return _first_failure(tests, outcomes, "expected", same_value, stop)
        outcomes = (sandbox.run(code, test["stdin"], limits) for test in tests)
        return _first_failure(tests, outcomes, "stdout", same_output, stop)
    except OSError as error:  # no process, no pipe, no room for the inputs
        return Verdict("harness_error", detail=f"{type(error).__name__}: {error}")


def _check_tests(entry_point: str | None, tests: Sequence[dict]) -> bool:
    """Whether the tests are functional; BadInput where they are not of one known kind."""
    if tests and all({"args", "expected"} <= test.keys() for test in tests):
        if not entry_point:
            raise BadInput("functional tests without an entry_point; name the function to call")
        return True
    if tests and all({"stdin", "stdout"} <= test.keys() for test in tests):
        return False
    raise BadInput("a problem's tests must be all {args, expected} or all {stdin, stdout}, and at least one")


def _first_failure(tests, outcomes: Iterator[Outcome], key: str, same, stop: threading.Event) -> Verdict:
    for index, test in enumerate(tests):
        if stop.is_set():
            return Verdict("harness_error", detail="grading was stopped")
        outcome = next(outcomes, Outcome("harness_error", detail="the sandbox gave no outcome"))
        if outcome.status == "harness_error":
            return Verdict("harness_error", detail=outcome.detail)
        if outcome.status == "not_json":
            return Verdict("wrong", index, outcome.detail)
        if outcome.status != "ok":
            return Verdict(outcome.status, index, outcome.detail)
        if not same(outcome.value, test[key]):
            return Verdict("wrong", index, f"got {_short(outcome.value)}, expected {_short(test[key])}")
    return Verdict("pass")


def _short(value: object) -> str:
    try:
        text = json.dumps(value)
    except ValueError:  # an integer too long for decimal digits
        text = "a very long number"
    return text if len(text) <= 100 else text[:100] + "…"


_CANARY_CALL = [{"args": [20, 22], "expected": 42}]
_CANARY_STDIN = [{"stdin": "20 22\n", "stdout": "42\n"}]
_CANARIES = {  # what it is: (functional form, standard input form, verdict that it must get)
    # Threads are how programs get a deeper stack, and the first thing that too tight a limit breaks.
    "a correct": (
        "import threading\n"
        "def f(a, b):\n"
        "    sums = []\n"
        "    thread = threading.Thread(target=lambda: sums.append(a + b))\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    return sums[0]",
        "print(sum(map(int, input().split())))",
        "pass",
    ),
    "a wrong": ("def f(a, b): return a - b", "print(0)", "wrong"),
    "a raising": ("def f(a, b): raise ValueError('canary')", "raise ValueError('canary')", "error"),
    "an endless": ("def f(a, b):\n    while True: pass", "while True: pass", "timeout"),
}


def check_canaries(sandbox: Sandbox, limits: Limits) -> None:
    """Grades programs whose verdicts are known; WorkFailed where one comes out otherwise. Run it before each
    grading: the common failure of graders is a silent zero."""
    for name, (function, script, expected) in _CANARIES.items():
        if expected == "timeout":
            limits = replace(limits, wall_seconds=min(limits.wall_seconds, 1.0))
        for code, tests in ((function, _CANARY_CALL), (script, _CANARY_STDIN)):
            verdict = grade(code, "f", tests, limits, sandbox)
            if verdict.verdict != expected:
                kind = "function" if tests is _CANARY_CALL else "script"
                raise WorkFailed(
                    f"the grader is not to be trusted here: {name} {kind} was graded {verdict.verdict}"
                    f" instead of {expected} ({verdict.detail})"
                )
