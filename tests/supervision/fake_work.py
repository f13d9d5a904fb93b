"""`python fake_work.py SCRIPT`: a process that computes nothing and ends as its script says, which has a line a start.

SCRIPT is a JSON list, one object for each start in turn: budget (bytes), room (bytes of address space that are left to
it), helper (start a process), marks ([label, done, total], …) and end: an exit code, a signal's name or one of ENDS.
What each start was allowed goes to SCRIPT.seen.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from mlx_ssd import heartbeat
from mlx_ssd.child import exit_code
from mlx_ssd.errors import BadInput, WorkFailed

script = Path(sys.argv[1])
seen = script.with_suffix(".seen")


def next_act():
    starts = json.loads(script.read_text())
    number = len(seen.read_text().splitlines()) if seen.exists() else 0
    return starts[min(number, len(starts) - 1)]


def note(allowed, helper):
    with seen.open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "allowed": allowed, "helper": helper}) + "\n")


def work():
    act = next_act()
    allowed = heartbeat.budget(act["budget"]) if "budget" in act else None
    helper = subprocess.Popen(["sleep", "60"]).pid if act.get("helper") else None
    note(allowed, helper)
    heartbeat.BEAT_SECONDS = 0.0
    for mark in act.get("marks", []):
        heartbeat.beat(*mark)
    if "room" in act:
        taken = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (taken + act["room"], resource.RLIM_INFINITY))
    how = act["end"]
    if how in ENDS:
        ENDS[how](allowed)
    elif isinstance(how, str):
        os.kill(os.getpid(), getattr(signal, how))
    else:
        sys.exit(how)


def wait(_):
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        script.with_suffix(".saved").write_text("")
        raise


def wait_and_die(_):
    """As of a SIGINT while the interpreter shuts down."""
    with contextlib.suppress(KeyboardInterrupt):
        wait(_)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def breathe_and_die(_):
    """As of a step on a GPU that never ends well: the processor does nothing, and nothing gets done."""
    for _ in range(40):
        heartbeat.alive()
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGILL)


def fill(allowed):
    held = bytearray(allowed)
    held[::4096] = b"x" * len(held[::4096])


def memory(_):
    raise RuntimeError("[malloc] Unable to allocate 123 bytes.")


def memory_in_words(_):
    raise WorkFailed("the grader cannot be trusted ([Errno 12] Cannot allocate memory)")


def refuse(_):
    raise BadInput("it does not fit")


FUNCTIONS = (wait, wait_and_die, breathe_and_die, fill, memory, memory_in_words, refuse)
ENDS = {function.__name__: function for function in FUNCTIONS}


if __name__ == "__main__":
    if next_act()["end"] == "no start":
        note(None, None)
        raise ImportError("failed to map segment from shared object")
    sys.exit(exit_code(work))
