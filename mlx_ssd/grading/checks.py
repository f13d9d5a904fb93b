"""Checks: assertions that call the program, as HumanEval and MBPP have them; test kind {"check": source}.

A check is Python source. It finds the program's function under the name of the entry point, and under `candidate` where
it defines `check(candidate)`, which is then called. It comes with a downloaded data set and says what is expected, so
it is shut in as the program is, and apart from it: two processes, and between them the grader, which carries plain
values from one to the other (wire.py). The program cannot read what is expected, nor change what compares, nor give an
object that equals everything.

Values are carried, not objects: what a check hands over is a copy, and a generator, a function or an object of a class
that is returned is "wrong". An exception of the program arrives in the check, which may expect it. Arguments are
positional.
"""

import inspect
import re
import threading
from collections.abc import Sequence
from dataclasses import replace

from mlx_ssd.grading import checker
from mlx_ssd.grading.sandbox import Limits, Outcome, Program, Sandbox
from mlx_ssd.grading.verdict import Verdict, short

CHECK_SECONDS = 10.0  # for a check between two calls, where the program's own limits are less: they are not for it
MOST_CALLS = 10_000  # a check may loop until the program says stop

_LINE = re.compile(r" \(line \d+\)\Z")  # that the sandbox adds to a message
_CHECKER = inspect.getsource(checker)


def grade_checks(
    code: str, entry_point: str, tests: Sequence[dict], limits: Limits, sandbox: Sandbox, stop: threading.Event
) -> Verdict:
    """Runs the checks in order, with the program loaded once. `stop` ends it at the next call.

    An assertion that fails, or any exception of the check once it has called the program, is `wrong`; what goes wrong
    before is the check's own fault, a harness_error. A check that takes too long over what the program returned is
    the program's failure too. Raises OSError where no process can be started.
    """
    name = entry_point.rpartition(".")[2]
    source = f"{_CHECKER}\n\nstart({name!r}, {[test['check'] for test in tests]!r})\n"
    room = replace(
        limits,
        wall_seconds=max(limits.wall_seconds, CHECK_SECONDS),
        cpu_seconds=max(limits.cpu_seconds, CHECK_SECONDS),
        processes=limits.processes + 1,  # its thread
    )
    with sandbox.load(code, entry_point, limits) as program, sandbox.load(source, "advance", room) as check:
        return _converse(program, check, stop)


def _converse(program: Program, check: Program, stop: threading.Event) -> Verdict:
    reply, outcome = None, Outcome("ok")
    for calls in range(MOST_CALLS):
        said = check.call([reply])
        if said.status != "ok":
            return _check_failed(said, calls)
        if stop.is_set():
            return Verdict("harness_error", detail="grading was stopped")
        match said.value:
            case ["call", args, dict(keywords)] if not keywords:
                outcome = program.call(list(args))
            case ["call", _, _]:
                return Verdict("harness_error", detail="the check gives arguments by keyword, not only by place")
            case ["passed"]:
                return Verdict("pass")
            case ["failed", int(number), where]:
                return Verdict("wrong", number, f"{where}; last returned {short(outcome.value)}")
            case ["raised", int(number), where]:
                return Verdict("error", number, f"{outcome.detail}; {where}")
            case ["broken", _, where]:
                return Verdict("harness_error", detail=f"the check is broken: {where}")
            case other:
                return Verdict("harness_error", detail=f"the check said {short(other)}")
        if outcome.status == "ok":
            reply = ["value", outcome.value]
        elif outcome.raised:
            name, _, message = outcome.detail.partition(": ")
            reply = ["raise", name, _LINE.sub("", message)]
        else:
            return _program_failed(outcome, check)
    return Verdict("timeout", 0, f"the check called the program {MOST_CALLS:,} times and found no end")


def _check_failed(said: Outcome, calls: int) -> Verdict:
    """The checker itself did not answer."""
    if said.status in ("timeout", "memory", "error") and calls:
        return Verdict(said.status, 0, f"the check, over what the program returned: {said.detail}")
    what = said.detail
    if said.status == "not_json":
        what = what.replace("returned", "it calls the program with", 1)
    return Verdict("harness_error", detail=f"the check cannot be run: {what}")


def _program_failed(outcome: Outcome, check: Program) -> Verdict:
    """The program did not answer; which assertion it was that called it is a question for the check."""
    if outcome.status == "harness_error":
        return Verdict("harness_error", detail=outcome.detail)
    asked = check.call([["end", outcome.status]])
    ended = asked.status == "ok" and asked.value[0] == "raised"
    number, where = asked.value[1:] if ended else (0, "")
    verdict = "wrong" if outcome.status == "not_json" else outcome.status
    return Verdict(verdict, number, f"{outcome.detail}; {where}" if where else outcome.detail)
