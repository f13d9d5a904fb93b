"""A verdict for a program against its tests."""

import contextlib
import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Protocol

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.grading.answers import same_answer
from mlx_ssd.grading.checks import grade_checks
from mlx_ssd.grading.compare import same_output, same_value
from mlx_ssd.grading.sandbox import Limits, Outcome, Sandbox
from mlx_ssd.grading.verdict import Verdict, short


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

    code: None (nothing could be extracted) gives `no_code`. tests: all of one kind, `{"args": [...], "expected":
    value}`, `{"check": source}` (checks.py), `{"stdin": text, "stdout": text}`, or `{"answer": text}`, where `code` is
    no program but the answer that was given (answers.py). BadInput otherwise, or where there is no entry_point for
    functional tests and checks.
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
    kind = _kind(entry_point, tests)
    if code is None:
        return Verdict("no_code")
    try:
        if kind == "answer":
            outcomes = iter([Outcome("ok", code)] * len(tests))
            return _first_failure(tests, outcomes, "answer", same_answer, stop)
        if kind == "check":
            return grade_checks(code, entry_point, tests, limits, sandbox, stop)
        if kind == "expected":
            calls = sandbox.call(code, entry_point, [test["args"] for test in tests], limits)
            with contextlib.closing(calls):
                outcomes = iter(calls)
                return _first_failure(tests, outcomes, "expected", same_value, stop)
        runs = sandbox.runs(code, [test["stdin"] for test in tests], limits)
        with contextlib.closing(runs):
            return _first_failure(tests, iter(runs), "stdout", same_output, stop)
    except OSError as error:  # no process, no pipe, no room for the inputs
        return Verdict("harness_error", detail=f"{type(error).__name__}: {error}")


def _kind(entry_point: str | None, tests: Sequence[dict]) -> str:
    """The key of what is expected; BadInput where the tests are not all of one known kind."""
    for keys in ({"args", "expected"}, {"check"}, {"stdin", "stdout"}, {"answer"}):
        if tests and all(keys <= test.keys() for test in tests):
            if keys & {"args", "check"} and not entry_point:
                raise BadInput("functional tests and checks need an entry_point; name the function to call")
            return next(key for key in ("expected", "check", "stdout", "answer") if key in keys)
    raise BadInput(
        "a problem's tests must be all {args, expected}, all {check}, all {stdin, stdout} or all {answer}, "
        "and at least one"
    )


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
            return Verdict("wrong", index, f"got {short(outcome.value)}, expected {short(test[key])}")
    return Verdict("pass")


_CANARY_TESTS = {
    "function": [{"args": [20, 22], "expected": 42}],
    "checked function": [{"check": "def check(candidate):\n    assert candidate(20, 22) == 42"}],
    "script": [{"stdin": "20 22\n", "stdout": "42\n"}],
}
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
            limits = replace(limits, wall_seconds=min(limits.wall_seconds, 0.5))
        for kind, tests in _CANARY_TESTS.items():
            verdict = grade(script if kind == "script" else function, "f", tests, limits, sandbox)
            if verdict.verdict != expected:
                raise WorkFailed(
                    f"the grader is not to be trusted here: {name} {kind} was graded {verdict.verdict}"
                    f" instead of {expected} ({verdict.detail})"
                )
