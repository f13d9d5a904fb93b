"""Runs one untrusted program. Started by path in a fresh interpreter, never imported by mlx_ssd.

    python child.py JOB_FD RESULT_FD STATUS_FD REQUEST_FD

REQUEST_FD is read only where the job holds a function and no calls of it: they then come one at a time.

Three roles, each a fork of the one before:
  supervisor  enters new namespaces (Linux, where permitted: user, process, network, IPC, mount), and on
              SIGTERM or the death of its parent takes everything below it down;
  init        process 1 of the process namespace, where there is one: when it ends the kernel kills all in it;
  program     gives up what it can (limits, Landlock, capabilities), says hello, runs the program.

The job (marshal: no import needed) holds the program and its inputs, never what is expected. Results go out
as lines `NONCE JSON`. A hostile program can forge such lines, but only to claim a value that it could as well
have returned; so the parent takes every line as a claim by the program.
"""

import _signal as signal  # `signal` imports enum: 3 ms of start-up
import builtins
import marshal
import os
import resource
import sys
import time
from _json import encode_basestring_ascii

LINUX = sys.platform == "linux"
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
DIRECTORY_BYTES, DIRECTORY_FILES = 64 << 20, 2000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38


# ---------------------------------------------------------------- supervisor and init


def enter_namespaces(libc) -> list[str]:
    """A user namespace also takes root's powers over the machine away, so it is preferred for root too."""
    user, group = os.getuid(), os.getgid()
    spaces = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS
    names = ["pid", "net", "ipc", "mnt"]
    if libc.unshare(CLONE_NEWUSER | spaces) != 0:
        return names if libc.unshare(spaces) == 0 else []
    settings = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    try:
        for name, text in settings.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:  # nobody in there could own a file of a mount
        names.remove("mnt")
    return ["user", *names]


def mount_directory(libc, home: str) -> bool:
    """A file system in memory over `home`, bounded in size and files, that goes away with the namespace."""
    if libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return False
    options = b"size=%d,nr_inodes=%d,mode=700" % (DIRECTORY_BYTES, DIRECTORY_FILES)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if libc.mount(b"tmpfs", home.encode(), b"tmpfs", flags, options) != 0:
        return False
    os.chdir(home)
    return True


def fork_below(status_fd: int | None = None, clean_up: bool = False) -> None:
    """Returns in the child. The parent waits for it, reports its end on status_fd and exits."""
    # Blocked meanwhile: the program can be done, and we told to end, before we come to say what to do then.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    pid = os.fork()
    signal.signal(signal.SIGTERM, (lambda *_: kill(pid)) if pid else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if pid == 0:
        return
    ended = 0
    while ended != pid:  # init also reaps the orphans of its namespace
        ended, status, _ = os.wait4(-1, 0)
    if status_fd is not None:
        os.write(status_fd, b"%d\n" % status)
    if clean_up:
        kill_descendants(pid)
    os._exit(0)


def kill_descendants(group: int) -> None:
    """Without a process namespace: the process group, then what left it. Such orphans come to the
    supervisor, which is a subreaper on Linux; elsewhere a program that calls setsid gets away."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass  # already empty
    try:
        while True:
            kill_children()
            if os.waitpid(-1, 0 if LINUX else os.WNOHANG)[0] == 0:
                return
    except ChildProcessError:
        pass


def kill_children() -> None:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            for pid in children.read().split():
                kill(int(pid))
    except OSError:
        pass  # no /proc


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# ---------------------------------------------------------------- what the program gives up


def set_limits(limits: dict, spaces: list[str]) -> bool:
    """Whether the address space is limited: macOS refuses."""
    output = limits["output_kb"] * 1024
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, output)
    lower(resource.RLIMIT_NOFILE, 64)
    # Deep recursion through C code (functools.cache) is legitimate and needs more than the usual 8 MB.
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = 64 << 20
    try:
        resource.setrlimit(resource.RLIMIT_STACK, (stack if hard < 0 else min(stack, hard), hard))
    except (OSError, ValueError):
        pass
    if "user" in spaces:  # elsewhere it counts all processes of the user; root is exempt in any case
        lower(resource.RLIMIT_NPROC, limits["processes"] + 3)
    return lower(resource.RLIMIT_AS, limits["memory_mb"] << 20)


def lower(which: int, value: int) -> bool:
    hard = resource.getrlimit(which)[1]
    value = value if hard < 0 else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (OSError, ValueError):
        return False
    return True


def allow_cpu(seconds: float) -> None:
    """From now on this many seconds of processor time, then SIGXCPU."""
    soft = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def landlock(libc, readable: list[str], home: str) -> int:
    """Only `readable` can be read and only `home` written, no file executed. Landlock version, 0 for none."""
    from ctypes import c_long, c_size_t

    def pack(*pairs) -> bytes:
        return b"".join(value.to_bytes(size, sys.byteorder) for value, size in pairs)

    abi = libc.syscall(c_long(444), None, c_size_t(0), c_long(1))
    if abi < 1:
        return 0
    execute, write, read, read_dir, make_char, make_block, truncate = (
        1 << bit for bit in (0, 1, 2, 3, 6, 11, 14)
    )
    every = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    tcp = 3 if abi >= 4 else 0  # bind and connect
    scope = 3 if abi >= 6 else 0  # abstract Unix sockets and signals: only within this sandbox
    ruleset = libc.syscall(c_long(444), pack((every, 8), (tcp, 8), (scope, 8)), c_size_t(24), c_long(0))
    rules = [(path, read | read_dir) for path in readable]
    rules += [("/dev/null", (read | write | truncate) & every)]
    rules += [(home, every & ~(execute | make_char | make_block))]
    for path, access in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this machine
        if not os.path.isdir(path):
            access &= ~read_dir
        libc.syscall(c_long(445), c_long(ruleset), c_long(1), pack((access, 8), (fd, 4)), c_long(0))
        os.close(fd)
    enforced = libc.syscall(c_long(446), c_long(ruleset), c_long(0)) == 0
    os.close(ruleset)
    return abi if enforced else 0


def drop_capabilities(libc) -> None:
    libc.capset((0x20080522).to_bytes(4, sys.byteorder) + bytes(4), bytes(24))


# ---------------------------------------------------------------- results


class Results:
    def __init__(self, fd: int, nonce: str, wire: dict):
        self.fd, self.nonce = fd, nonce
        self.encode, self.not_carried = wire["encode"], wire["NotCarried"]
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
        if isinstance(error, self.not_carried):
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


def run_script(job: dict, results: Results) -> None:
    """Ends as a script does: exit code, atexit and flushing are the interpreter's own."""
    namespace = new_module("__main__")
    allow_cpu(job["limits"]["cpu_seconds"])
    try:
        exec(compile(job["code"], "<program>", "exec", dont_inherit=True), namespace)
    except SystemExit:
        raise
    except BaseException as error:
        results.send_failure(error)
        os._exit(1)


def run_calls(job: dict, calls, results: Results) -> None:
    """Named `solution`, so that what stands under a main guard does not run. Of the calls in a job the first
    failure is the last thing said; a program that is asked call by call goes on after an exception."""
    namespace = new_module("solution")
    step = '"load"'
    try:
        allow_cpu(job["limits"]["cpu_seconds"])
        exec(compile(job["code"], "<program>", "exec", dont_inherit=True), namespace)
        find_function(namespace, job["entry_point"])
        results.send('{"step": "loaded"}')
        for index, arguments in enumerate(calls):
            step = str(index)
            allow_cpu(job["limits"]["cpu_seconds"])
            try:
                value = find_function(namespace, job["entry_point"])(*marshal.loads(arguments))
                results.send('{"step": %s, "value": %s}' % (step, results.encode(value)))
            except BaseException as error:
                if calls is job.get("calls"):
                    raise
                results.send_failure(error, step)
    except BaseException as error:
        results.send_failure(error, step)
    os._exit(0)


def requested(fd: int):
    """The arguments of each call, as they are asked for."""
    with open(fd, "rb") as requests:
        while True:
            try:
                yield marshal.load(requests)
            except EOFError:
                return


def find_function(namespace: dict, entry_point: str):
    """`f`, `Class.f`, or f of a class Solution; an instance is made anew for each call."""
    owner, _, name = entry_point.rpartition(".")
    if not owner and name in namespace:
        return namespace[name]
    owner = owner or "Solution"
    if owner not in namespace:
        raise NameError(f"the program defines no {entry_point}")
    return getattr(namespace[owner](), name)


def main() -> None:
    job_fd, result_fd, status_fd, request_fd = map(int, sys.argv[1:5])
    with open(job_fd, "rb") as file:
        job = marshal.load(file)
    sys.argv[:] = ["program.py"]
    sys.set_int_max_str_digits(0)
    libc, spaces, mounted = None, [], False
    if LINUX:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        spaces = enter_namespaces(libc) if job["namespaces"] else []
    if spaces:
        mounted = "mnt" in spaces and mount_directory(libc, job["home"])
        fork_below()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    fork_below(status_fd, clean_up="pid" not in spaces)
    os.close(status_fd)
    if libc and "pid" not in spaces:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    address_space = set_limits(job["limits"], spaces)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)  # standard error was the supervisor's, for its own failures
    os.close(null)
    abi = 0
    if libc:
        abi = landlock(libc, job["readable"], job["home"]) if job["landlock"] else 0
        drop_capabilities(libc)
    wire: dict = {}
    exec(job["wire"], wire)
    results = Results(result_fd, job["nonce"], wire)
    names, mounted, address_space = map(results.encode, (spaces, mounted, address_space))
    results.send(
        f'{{"step": "hello", "namespaces": {names}, "landlock": {abi}, "directory": {mounted},'
        f' "address_space": {address_space}}}'
    )
    if "entry_point" in job:
        run_calls(job, job["calls"] if "calls" in job else requested(request_fd), results)
    else:
        run_script(job, results)


if __name__ == "__main__":
    main()
