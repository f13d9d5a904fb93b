"""The seam between grading and whatever runs untrusted programs.

A sandbox takes a program and its inputs and gives back what came out. It is never told what is expected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Level = Literal["namespaces", "landlock", "limits", "seatbelt"]
"""What shuts a program in beside its limits, see docs/sandbox.md."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    wall_seconds: for loading it, and again for each test. cpu_seconds: the same in processor time, rounded
    up to whole seconds. memory_mb: address space (resident size on macOS) of a process. output_kb: what one
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
    """What running one test gave; `value` (a JSON value, or the printed text) only where status is `ok`.

    `not_json`: the function returned something that JSON cannot hold. `harness_error`: the program was not
    run as it should have been; this says nothing about the program.
    """

    status: Literal["ok", "not_json", "error", "timeout", "memory", "harness_error"]
    value: object = None
    detail: str = ""


class Sandbox(Protocol):
    def call(self, code: str, entry_point: str, calls: Sequence[list], limits: Limits) -> Iterator[Outcome]:
        """Load `code` once, then call `entry_point(*args)` for each args in `calls`, in order.

        Yields one outcome a call and stops after the first that is not `ok`. Closing the iterator kills the
        program. A program that does not load yields that one outcome.
        """

    def run(self, code: str, stdin: str, limits: Limits) -> Outcome:
        """Run `code` as a script with `stdin` as its standard input; `value` is its standard output."""

    def describe(self) -> dict:
        """What is really enforced on this machine, found by trying."""
