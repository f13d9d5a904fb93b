"""The process that programs are forked from, one at a time.

It has one thread, imported what programs commonly import, and holds nothing of any program: only its forks read
code and inputs. Two roles, where namespaces are permitted:
  keeper    enters the namespaces that all programs of this template share, one after the other, and waits;
  template  process 1 of the first process namespace. Each program gets a process namespace, an IPC namespace and
            a directory of its own, and is process 1 there: when it ends, the kernel kills all that it started.
When the grader dies the socket to it closes, and everything here ends.

    grader → template   marshal: {"readable", "namespaces", "landlock", "uid", "warm"}, once
    template → grader   marshal: what was granted
    grader → template   b"r" + the program's directory, with the descriptor of its socket
    grader → template   b"k": kill it
    template → grader   b"STATUS CPU_SECONDS STARTED\\n" when it and all that it started are gone; STARTED is 0 where
                        it ended before the program began, which is then no fault of the program
"""

import _signal as signal  # `signal` imports enum: 3 ms of start-up
import _socket
import gc
import marshal
import os
import select
import sys
import time

from inside import program

LINUX = sys.platform == "linux"
if LINUX:
    from inside import linux

# Each page of theirs makes a fork dearer, so only what many programs import. Not `random`, which seeds itself anew
# after each fork, nor `threading`: what it does then takes a millisecond.
COMMON = (
    "abc bisect builtins collections collections.abc contextlib copy enum functools"
    " heapq io itertools math operator re string time types typing"
).split()
MESSAGE = 1 << 16
RESULTS = 3  # descriptor of the program's socket, in the program
DESCRIPTOR = _socket.CMSG_SPACE(4)


def main(fd: int, clock: int) -> None:
    os.environ.pop("LD_BIND_NOW", None)
    while os.dup(0) <= RESULTS:  # keeps those numbers for programs
        pass
    # The grader may have so many files that these numbers are beyond those that are closed for a program.
    inherited, fd, clock = (fd, clock), os.dup(fd), os.dup(clock)
    for number in inherited:
        if number > RESULTS:
            os.close(number)
    channel = _socket.socket(fileno=fd)
    setup = marshal.loads(channel.recv(MESSAGE))
    if setup["warm"]:
        for name in COMMON:
            __import__(name)
    Template(channel, clock, setup).serve()


class Template:
    def __init__(self, channel, clock, setup: dict):
        self.channel, self.readable = channel, setup["readable"]
        self.spaces, self.root, self.uid = [], False, None  # uid: what the program becomes
        if LINUX:
            self.shut_in(setup)
        self.landlock, self.rules = 0, -1
        if LINUX and setup["landlock"]:
            self.landlock, self.rules = linux.make_ruleset(self.readable, linux.BOX)
        self.clock = clock  # file shared with the grader: when the program began, by time.monotonic_ns(), or 0
        self.null = os.open(os.devnull, os.O_RDWR)
        self.wake, wake = os.pipe()
        for end in (self.wake, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        program.rehearse()
        gc.collect()
        gc.freeze()  # a fork's collector would otherwise write to all of it
        sys.argv[:] = ["program.py"]
        sys.set_int_max_str_digits(0)
        granted = {"namespaces": self.spaces, "root": self.root, "own_uid": self.uid is not None}
        granted |= {"landlock": self.landlock}
        channel.sendall(marshal.dumps(granted | {"address_space": program.limits_address_space()}))

    def shut_in(self, setup: dict) -> None:
        # No death signal from the grader: it would come with the end of the thread that started us.
        linux.libc.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        linux.libc.prctl(linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if setup["namespaces"] and linux.namespaces_work(setup["uid"]):
            self.spaces = linux.enter_namespaces(setup["uid"])
        if not self.spaces:
            return
        if pid := os.fork():
            self.channel.close()
            os.waitpid(pid, 0)
            os._exit(0)
        linux.forbid_user_namespaces()
        self.own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.root = linux.make_root(self.readable)
        if self.root:
            os.environ["HOME"] = os.environ["TMPDIR"] = linux.HOME
        linux.exit_on(signal.SIGXCPU)
        # Without a root of its own the program's directory, and what leads to it, is the grader's.
        if self.root and os.getuid() == 0 and linux.readable_by(setup["uid"], os.__file__):
            self.uid = setup["uid"]
        linux.libc.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # last: a change of the uid takes it back

    def serve(self) -> None:
        while True:
            data, control, *_ = self.channel.recvmsg(MESSAGE, DESCRIPTOR)
            if not data:
                os._exit(0)
            request = data.lstrip(b"k")  # the program was done before we were told to kill it
            if request:
                socket = int.from_bytes(control[0][2], sys.byteorder)
                self.channel.sendall(self.run(os.fsdecode(request[1:]), socket))

    def run(self, home: str, socket: int) -> bytes:
        """One program, from its fork until nothing of it is left; what the grader is told."""
        if self.root:
            home = linux.HOME
            linux.mount_home(os.getuid() if self.uid is None else self.uid)
        try:
            pid = self.fork(home, socket)
            status, seconds = self.watch(pid)
            if "pid" not in self.spaces:
                kill_descendants(pid)
        except BlockingIOError:  # no more processes
            status, seconds = 0, 0.0
        os.close(socket)
        if self.root:
            linux.unmount_home()
        return b"%d %.3f %d\n" % (status, seconds, os.pread(self.clock, 8, 0) != bytes(8))

    def fork(self, home: str, socket: int) -> int:
        if self.spaces:
            linux.check(linux.libc.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWIPC))
        try:
            pid = os.fork()
            if pid == 0:
                self.become_program(home, socket)
            return pid
        finally:  # only the parent comes here
            if self.spaces:
                linux.check(linux.libc.setns(self.own_namespace, linux.CLONE_NEWPID))

    def watch(self, pid: int) -> tuple[int, float]:
        """Until it ended: (wait status, processor time of it and those it waited for)."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self.channel.fileno() in ready:
                told = self.channel.recv(1)
                kill(pid)
                if not told:
                    kill_descendants(pid)
                    os._exit(0)
            if self.wake in ready:
                os.read(self.wake, 4096)
                ended = None
                while ended not in (0, pid):  # others are orphans
                    ended, status, usage = os.wait4(-1, os.WNOHANG)
                    if ended and os.WIFSTOPPED(status):  # it had us trace it, and would never end
                        kill(ended)
                        ended = None
                if ended == pid:
                    return status, usage.ru_utime + usage.ru_stime

    def become_program(self, home: str, socket: int) -> None:
        """Gives up what it can and runs the program; never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for target, fd in enumerate([self.null, self.null, self.null, socket]):
                os.dup2(fd, target)
            job = program.read_message(RESULTS)
            os.chdir(home)
            if not self.root:
                os.environ["HOME"] = os.environ["TMPDIR"] = home
            if LINUX:
                self.give_up(home)
            forks = "entry_point" not in job  # a script's runs are forks of it
            program.set_limits(job["limits"], self.processes(job["limits"]["processes"] + forks))
            os.pwrite(self.clock, time.monotonic_ns().to_bytes(8, sys.byteorder), 0)
            os.closerange(RESULTS + 1, 64)
        except BaseException as error:
            os.write(RESULTS, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        program.run(job, RESULTS, self.shut_in_fork)

    def give_up(self, home: str) -> None:
        if self.uid is not None:
            linux.become(self.uid)
        if "pid" not in self.spaces:
            linux.libc.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            linux.libc.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # as process 1 of a namespace is
        if self.landlock:
            linux.restrict(self.rules if self.root else linux.make_ruleset(self.readable, home)[1])
        linux.drop_capabilities()

    def shut_in_fork(self) -> None:
        if LINUX:  # elsewhere it is by its group that it is found
            os.setpgid(0, 0)
            if "pid" not in self.spaces:
                linux.libc.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)

    def processes(self, allowed: int) -> int | None:
        """How many the user of the program may have. None where that counts all processes of the user on the
        machine; root is exempt in any case."""
        if self.uid is not None:
            return allowed + 1
        return allowed + 3 if "user" in self.spaces else None  # keeper and template are of the same user


# ---------------------------------------------------------------- the end of a program


def kill_descendants(group: int) -> None:
    """Without a process namespace: the process group, then what left it. Such orphans come to the
    template, which is a subreaper on Linux; elsewhere a program that calls setsid gets away."""
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
    except OSError:
        pass
