"""One untrusted program: its limits, its inputs, its results. A fork of the template, see template.py.

The job (marshal: no import needed) and the arguments of calls come through a socket, each behind its length in eight
bytes; never what is expected. Results go back as lines `NONCE JSON`. A hostile program can forge such lines, but only
to claim a value that it could as well have returned; so the grader takes every line as a claim by the program.

A script is compiled once and forked for each input but the last, which it runs itself: a process of its own each, in
which nothing has run before.
"""

import _signal as signal  # `signal` imports enum: 3 ms of start-up
import _socket
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
REHEARSED = "try:\n    print(input())\nexcept EOFError:\n    print(end='')"  # its standard input is empty
REHEARSALS = 20  # CPython adapts a function that ran eight times
NO_PROCESS = 75  # exit code: a script's next process could not be forked


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


def allow_cpu(seconds: float) -> tuple[int, int]:
    """From now on at least this many seconds of processor time, then SIGXCPU. Half as many again are given, because
    the limit is counted in ticks: a program that shares its core was charged 1.3 times what it used."""
    soft = int(time.process_time() + 1.5 * seconds) + 1
    limit = soft, resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, limit)
    return limit


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


def run(job: dict, fd: int, shut_in_fork) -> None:
    """Never returns. shut_in_fork(): what a run of a script that is a fork of this process has still to give up."""
    try:
        results = Results(fd, job["nonce"])
        if "entry_point" in job:
            run_calls(job, results)
        else:
            run_script(job, results, shut_in_fork)
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


def run_script(job: dict, results: Results, shut_in_fork) -> None:
    """A process for each input that is sent, as long as none leaves anything to the next: the grader then begins anew.

    What is done here once the forks need not do, and what is touched here after a fork is copied: so it is little.
    """
    unlimited = resource.getrlimit(resource.RLIMIT_CPU)
    try:
        limit = allow_cpu(job["limits"]["cpu_seconds"])
        code = compile(job["code"], "<program>", "exec", dont_inherit=True)
    except BaseException as error:
        results.send_failure(error)
        _exit(1)
    resource.setrlimit(resource.RLIMIT_CPU, unlimited)  # for our own work, be the inputs ever so many
    channel = _socket.socket(fileno=results.fd)
    namespace = new_module("__main__")
    gc.freeze()
    results.send('{"step": "loaded"}')
    for step in itertools.count():
        last, given, printed = receive_descriptors(channel)
        try:
            pid = 0 if last else os.fork()
        except OSError:
            _exit(NO_PROCESS)
        if pid == 0:
            os.dup2(given, 0)
            os.dup2(printed, 1)
            os.closerange(results.fd + 1, 64)
            if last:
                most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
                if most > 0:
                    lower(resource.RLIMIT_NPROC, most - 1)  # set for a fork more
                allow_cpu(job["limits"]["cpu_seconds"])
            else:
                shut_in_fork()
                signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # a fork is not process 1
                resource.setrlimit(resource.RLIMIT_CPU, limit)
            run_once(code, namespace, results, step)
        status = os.waitpid(pid, 0)[1]  # at once: what is touched while the fork lives is copied
        while os.WIFSTOPPED(status):  # it had us trace it, and would never end
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        os.close(given)
        os.close(printed)
        clean = nothing_left()
        results.send('{"step": %d, "status": %d, "clean": %d}' % (step, status, clean))
        if not clean:
            _exit(0)


def receive_descriptors(channel) -> tuple[bool, int, int]:
    """Whether the next run is the last; its standard input and output."""
    data, control, *_ = channel.recvmsg(1, _socket.CMSG_SPACE(8))
    if not data:
        _exit(0)
    pair = control[0][2]
    return data == b"l", int.from_bytes(pair[:4], sys.byteorder), int.from_bytes(pair[4:8], sys.byteorder)


def nothing_left() -> bool:
    """Of the process that ended: no descendant (orphans come to us), and an empty directory."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return False
    except ChildProcessError:
        pass
    try:
        return not os.listdir() and os.access(".", os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        return False


def run_once(code, namespace: dict, results: Results, step: int) -> None:
    status = 0
    try:
        exec(code, namespace)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        results.send_failure(error, str(step))
        _exit(1)
    _exit(status & 0xFF if end_as_interpreter(namespace) else 120)


def end_as_interpreter(namespace: dict) -> bool:
    """What a script's end entails, in the interpreter's order: threads, atexit, what the globals' finalizers do,
    flushing. Its own end would also take down all that the template had imported, which takes milliseconds.

    False where not all that was printed could be written.
    """
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
    return flush() and flushed


def rehearse() -> None:
    """A script of ours, in the template: what the interpreter notes about the code that it runs and the names that it
    looks up, it would otherwise note in every fork, on a page copied for that."""
    for _ in range(REHEARSALS):
        namespace = new_module("__main__")
        exec(compile(REHEARSED, "<program>", "exec", dont_inherit=True), namespace)
        end_as_interpreter(namespace)


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
