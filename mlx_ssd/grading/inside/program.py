"""One untrusted program: its limits, its inputs, its results. A fork of the template, see template.py.

The job (marshal: no import needed) and the arguments of calls come through a socket, each behind its length in eight
bytes; never what is expected. Results go back as lines `NONCE JSON`. A hostile program can forge such lines, but only
to claim a value that it could as well have returned; so the grader takes every line as a claim by the program.
"""

import atexit
import builtins
import gc
import itertools
import marshal
import os
import resource
import sys
import time
from _json import encode_basestring_ascii

import wire

LINUX = sys.platform == "linux"
_exit = os._exit


# ---------------------------------------------------------------- limits


def set_limits(limits: dict, processes: int | None) -> None:
    output = limits["output_kb"] * 1024
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, output + 1)  # where one byte more is printed, it was too much
    lower(resource.RLIMIT_NOFILE, 64)
    # Deep recursion through C code (functools.cache) is legitimate and needs more than the usual 8 MB.
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = 64 << 20
    try:
        resource.setrlimit(resource.RLIMIT_STACK, (stack if hard < 0 else min(stack, hard), hard))
    except (OSError, ValueError):
        pass
    if processes is not None:
        lower(resource.RLIMIT_NPROC, processes)
    lower(resource.RLIMIT_AS, limits["memory_mb"] << 20)


def lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard < 0 else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (OSError, ValueError):
        pass


def limits_address_space() -> bool:
    """macOS refuses."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS))
    except (OSError, ValueError):
        return False
    return LINUX


def allow_cpu(seconds: float) -> None:
    """From now on at least this many seconds of processor time, then SIGXCPU. Half as many again are given, because
    the limit is counted in ticks: a program that shares its core was charged 1.3 times what it used."""
    soft = int(time.process_time() + 1.5 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


# ---------------------------------------------------------------- results


class Results:
    def __init__(self, fd: int, nonce: str):
        self.fd, self.nonce = fd, nonce
        self.out_of_memory = self.line(
            '{"failed": "memory", "detail": "MemoryError"}'
        )  # allocates nothing later

    def line(self, text: str) -> bytes:
        # The leading newline ends whatever the program may have written here itself.
        return f"\n{self.nonce} {text}\n".encode()

    def send(self, text: str) -> None:
        self.write(self.line(text))

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def send_failure(self, error: BaseException, step: str = '"load"') -> None:
        if isinstance(error, MemoryError):
            self.write(self.out_of_memory)
            return
        kind, detail = "error", summary(error)
        if isinstance(error, wire.NotCarried):
            kind, detail = "not_json", f"returned {error}"
        self.send('{"step": %s, "failed": "%s", "detail": %s}' % (step, kind, encode_basestring_ascii(detail)))


def summary(error: BaseException) -> str:
    try:
        text = str(error)[:300]
    except BaseException:
        text = "(its message cannot be shown)"
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<program>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")


# ---------------------------------------------------------------- the program


def new_module(name: str) -> dict:
    builtins.exit = builtins.quit = sys.exit  # `site` makes these, and is not run
    module = type(sys)(name)
    sys.modules[name] = module  # dataclasses and pickle look there
    return module.__dict__


def run(job: dict, fd: int) -> None:
    """Never returns."""
    try:
        results = Results(fd, job["nonce"])
        if "entry_point" in job:
            run_calls(job, results)
        else:
            run_script(job, results)
    finally:
        _exit(1)


def read_message(fd: int) -> object:
    """The next object that the grader sends; EOFError where it has gone."""
    return marshal.loads(read_exactly(fd, int.from_bytes(read_exactly(fd, 8), "little")))


def read_exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def run_script(job: dict, results: Results) -> None:
    namespace = new_module("__main__")
    code = 0
    try:
        allow_cpu(job["limits"]["cpu_seconds"])
        exec(compile(job["code"], "<program>", "exec", dont_inherit=True), namespace)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        results.send_failure(error)
        _exit(1)
    end_as_interpreter(namespace, code)


def end_as_interpreter(namespace: dict, code: int) -> None:
    """What a script's end entails, in the interpreter's order: threads, atexit, what the globals' finalizers do,
    flushing. Its own end would also take down all that the template had imported, which takes milliseconds."""
    if "threading" in sys.modules:
        try:
            sys.modules["threading"]._shutdown()
        except BaseException:
            pass
    atexit._run_exitfuncs()
    flushed = flush()
    for private in (True, False):
        for name in list(namespace):
            if name != "__builtins__" and (name[:1] == "_" and name[1:2] != "_") == private:
                namespace[name] = None
    gc.collect()
    _exit(code & 0xFF if flush() and flushed else 120)


def flush() -> bool:
    try:
        for stream in (sys.stdout, sys.__stdout__, sys.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        return True
    except BaseException:
        return False


def run_calls(job: dict, results: Results) -> None:
    """Named `solution`, so that what stands under a main guard does not run. Goes on after an exception of a call."""
    namespace = new_module("solution")
    try:
        allow_cpu(job["limits"]["cpu_seconds"])
        exec(compile(job["code"], "<program>", "exec", dont_inherit=True), namespace)
        find_function(namespace, job["entry_point"])
        results.send('{"step": "loaded"}')
        for step in itertools.count():
            arguments = read_message(results.fd)
            allow_cpu(job["limits"]["cpu_seconds"])
            try:
                value = find_function(namespace, job["entry_point"])(*arguments)
                results.send('{"step": %d, "value": %s}' % (step, wire.encode(value)))
            except BaseException as error:
                results.send_failure(error, str(step))
    except BaseException as error:
        results.send_failure(error)
    _exit(0)


def find_function(namespace: dict, entry_point: str):
    """`f`, `Class.f`, or f of a class Solution; an instance is made anew for each call."""
    owner, _, name = entry_point.rpartition(".")
    if not owner and name in namespace:
        return namespace[name]
    owner = owner or "Solution"
    if owner not in namespace:
        raise NameError(f"the program defines no {entry_point}")
    return getattr(namespace[owner](), name)
