"""The seam between grading and whatever runs untrusted programs.

A sandbox takes a program and its inputs and gives back what came out. It is never told what is expected.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

Level = Literal["namespaces", "landlock", "limits", "seatbelt"]
"""What shuts a program in beside its limits, see docs/sandbox.md."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    wall_seconds: for loading it, and again for each test. cpu_seconds: the same in processor time and half as
    much again, in whole seconds. memory_mb: address space (resident size on macOS) of a process. output_kb: what one
    test may print or return, and the largest file. processes: how many processes and threads the program may
    have besides its own.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_mb: int
    output_kb: int
    processes: int


@dataclass(frozen=True)
class Outcome:
    """What running one test gave; `value` (what a function returned, or the printed text) only where status is `ok`.

    A returned value is None or of bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, and so is
    all in it; of a subclass's value it is what the base type holds. `not_json`: the function returned something else.
    `harness_error`: the program was not run as it should have been; this says nothing about the program. `raised`:
    the error is an exception of the call, and the program can be called again.
    """

    status: Literal["ok", "not_json", "error", "timeout", "memory", "harness_error"]
    value: object = None
    detail: str = ""
    raised: bool = False


class Program(Protocol):
    """A loaded program."""

    def call(self, args: list) -> Outcome:
        """Call the function with `args`, values as Outcome has them; ValueError for others.

        The limits hold anew for each call. A failure to load is the outcome of the first call. After an exception
        (`raised`), or a value of another type, the program goes on; any other failure is that of all later calls.
        """


class Sandbox(Protocol):
    def call(self, code: str, entry_point: str, calls: Sequence[list], limits: Limits) -> Iterator[Outcome]:
        """Load `code` once, then call `entry_point(*args)` for each args in `calls`, in order.

        Yields one outcome a call and stops after the first that is not `ok`. Closing the iterator kills the
        program. A program that does not load yields that one outcome.
        """

    def load(self, code: str, entry_point: str, limits: Limits) -> AbstractContextManager[Program]:
        """Load `code` to be called call by call; leaving the context kills the program."""

    def runs(self, code: str, stdins: Sequence[str], limits: Limits) -> Iterator[Outcome]:
        """Run `code` as a script for each of `stdins`, its standard input, in order; `value` is its standard output.

        Each run is a process of its own, with an empty directory. Yields one outcome a run and stops after the first
        that is not `ok`. A program that does not compile yields that one outcome.
        """

    def run(self, code: str, stdin: str, limits: Limits) -> Outcome:
        """The outcome of one run."""

    def describe(self) -> dict:
        """What is really enforced on this machine, found by trying."""
