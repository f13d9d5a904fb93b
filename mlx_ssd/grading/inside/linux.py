"""Linux's means to shut a process in, by system calls: no package, no privilege, no setuid helper.

Namespaces and a root of its own are what bubblewrap's `bwrap` gives, made by the same calls; where the kernel or a
container's filter forbids them it forbids them to `bwrap` too (unless that is setuid root, which no distribution
ships any more), so the binary is not used.
"""

import os
import sys
from ctypes import CDLL, c_char_p, c_long, c_size_t, c_ulong, c_void_p, cast, get_errno

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 0x1000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_READ_ONLY = -100, 0x8000, 1 | 2 | 4  # and no setuid files, no devices
DIRECTORY_BYTES, DIRECTORY_FILES = 64 << 20, 2000
BOX, HOME = "/box", "/box/home"  # Landlock grants BOX: a grant would not outlive a new file system mounted at HOME
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]

libc = CDLL(None, use_errno=True)
libc.mount.argtypes = [c_char_p, c_char_p, c_char_p, c_ulong, c_char_p]


def check(result: int) -> None:
    if result != 0:
        raise OSError(get_errno(), os.strerror(get_errno()))


# ---------------------------------------------------------------- namespaces


def enter_namespaces(spare: int) -> list[str]:
    """The namespaces entered, none where the system forbids them. The process namespace begins with the next fork.

    A user namespace also takes root's powers over the machine away, so it is preferred for root too. Root is
    mapped to itself and the uid `spare` to itself, any other user to itself alone.
    """
    user, group = os.getuid(), os.getgid()
    spaces = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS
    names = ["pid", "net", "ipc", "mnt"]
    both = user == 0 and os.geteuid() == 0
    entered, entry = os.pipe()
    mapped, mapping = os.pipe()
    helper = os.fork() if both else None  # who is inside may map only itself
    if helper == 0:
        os.close(entry)
        if os.read(entered, 1):
            try:
                map_ids(os.getppid(), f"0 0 1\n{spare} {spare} 1", f"{group} {group} 1\n{spare} {spare} 1")
                os.write(mapping, b"m")
            except OSError:
                pass
        os._exit(0)
    os.close(mapping)
    try:
        if libc.unshare(CLONE_NEWUSER | spaces) != 0:
            return names if libc.unshare(spaces) == 0 else []
        if both:
            os.write(entry, b"e")
            if not os.read(mapped, 1):
                raise OSError("the users of the new namespace could not be mapped")
        else:
            with open("/proc/self/setgroups", "w") as file:
                file.write("deny")
            map_ids("self", f"{user} {user} 1", f"{group} {group} 1")
        return ["user", *names]
    finally:
        for fd in (entered, entry, mapped):
            os.close(fd)
        if helper:
            os.waitpid(helper, 0)


def namespaces_work(spare: int) -> bool:
    """Tried by a fork, since there is no way back from one that was entered and cannot be used."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if enter_namespaces(spare) else 1)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def map_ids(process: int | str, users: str, groups: str) -> None:
    for name, text in (("uid_map", users), ("gid_map", groups)):
        fd = os.open(f"/proc/{process}/{name}", os.O_WRONLY)
        os.write(fd, text.encode())  # the kernel takes one write only
        os.close(fd)


def forbid_user_namespaces() -> None:
    """In one of its own a program would have capabilities. Best effort: /proc/sys is often read-only."""
    try:
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
    except OSError:
        pass


# ---------------------------------------------------------------- a root of its own


def make_root(readable: list[str]) -> bool:
    """Makes `readable` and a few devices all there is, read-only, beside HOME. No /proc, no /sys, no /etc.

    False where the system forbids it; then everything is as it was.
    """
    base = "/tmp" if os.path.isdir("/tmp") else "/usr"  # covered, in this mount namespace only
    sources = [(path, os.open(path, os.O_PATH)) for path in parents_first(readable) + DEVICES if os.path.exists(path)]
    covered = False
    try:
        check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        check(libc.mount(b"tmpfs", base.encode(), b"tmpfs", MS_NOSUID, b"size=1m,mode=755"))
        covered = True
        for path, fd in sources:
            bind(fd, base + path, read_only=path not in DEVICES)
        for path in readable:
            link(base, path)
        os.makedirs(base + HOME)
        os.symlink(HOME, base + "/tmp")
        os.chdir(base)
        check(libc.pivot_root(b".", b"."))
        check(libc.umount2(b".", MNT_DETACH))
        os.chdir("/")
        check(libc.mount(None, b"/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, None))
        return True
    except OSError:
        os.chdir("/")
        if covered:
            libc.umount2(base.encode(), MNT_DETACH)
        return False
    finally:
        for _, fd in sources:
            os.close(fd)


def parents_first(paths: list[str]) -> list[str]:
    """The real paths, without those below another."""
    kept: list[str] = []
    for path in sorted({os.path.realpath(path) for path in paths}):
        if not any(path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def bind(fd: int, target: str, read_only: bool) -> None:
    """By its descriptor, since the path may be covered by now."""
    source = f"/proc/self/fd/{fd}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT))
    check(libc.mount(source.encode(), target.encode(), None, MS_BIND | MS_REC, None))
    if read_only:
        attributes = MOUNT_ATTR_READ_ONLY.to_bytes(8, sys.byteorder) + bytes(24)
        path = c_char_p(target.encode())
        check(libc.syscall(c_long(442), c_long(AT_FDCWD), path, c_long(AT_RECURSIVE), attributes, c_size_t(32)))


def link(base: str, path: str) -> None:
    """`path` may be reached through links, as /lib is /usr/lib today."""
    if path != os.path.realpath(path) and not os.path.lexists(base + path):
        os.makedirs(os.path.dirname(base + path), exist_ok=True)
        os.symlink(os.path.realpath(path), base + path)


def mount_home(owner: int) -> None:
    """A new, empty file system in memory, bounded in size and files."""
    options = b"size=%d,nr_inodes=%d,mode=700,uid=%d,gid=%d" % (DIRECTORY_BYTES, DIRECTORY_FILES, owner, owner)
    check(libc.mount(b"tmpfs", HOME.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options))


def unmount_home() -> None:
    check(libc.umount2(HOME.encode(), MNT_DETACH))


# ---------------------------------------------------------------- Landlock, capabilities, users


def make_ruleset(readable: list[str], home: str) -> tuple[int, int]:
    """(Landlock version, descriptor of the rules); (0, -1) for none. Only `readable` can be read and only what
    is in `home` written, no file executed."""

    def pack(*pairs) -> bytes:
        return b"".join(value.to_bytes(size, sys.byteorder) for value, size in pairs)

    abi = libc.syscall(c_long(444), None, c_size_t(0), c_long(1))
    if abi < 1:
        return 0, -1
    execute, write, read, read_dir, make_char, make_block, truncate = (1 << bit for bit in (0, 1, 2, 3, 6, 11, 14))
    every = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    tcp = 3 if abi >= 4 else 0  # bind and connect
    scope = 3 if abi >= 6 else 0  # abstract Unix sockets and signals: only within this sandbox
    rules = libc.syscall(c_long(444), pack((every, 8), (tcp, 8), (scope, 8)), c_size_t(24), c_long(0))
    grants = [(path, read | read_dir) for path in readable]
    grants += [("/dev/null", (read | write | truncate) & every)]
    grants += [(home, every & ~(execute | make_char | make_block))]
    for path, access in grants:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this machine
        if not os.path.isdir(path):
            access &= ~read_dir
        libc.syscall(c_long(445), c_long(rules), c_long(1), pack((access, 8), (fd, 4)), c_long(0))
        os.close(fd)
    return (abi, rules) if rules >= 0 else (0, -1)


# Looked up and built once: what a fork need not do again costs it no copied page.
_syscall, _capset, _restrict_self, _flags = libc.syscall, libc.capset, c_long(446), c_long(0)
_capabilities = (0x20080522).to_bytes(4, sys.byteorder) + bytes(4), bytes(24)


def restrict(rules: int) -> None:
    check(_syscall(_restrict_self, c_long(rules), _flags))


def drop_capabilities() -> None:
    check(_capset(*_capabilities))


def become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def readable_by(user: int, path: str) -> bool:
    """A library under /root, say, is of no use to another user."""
    os.seteuid(user)
    try:
        return os.access(path, os.R_OK, effective_ids=True)
    finally:
        os.seteuid(0)


def exit_on(number: int) -> None:
    """The signal ends the process with its number as exit code, at once. Process 1 of a namespace would
    otherwise ignore it: its default action does not count there."""
    libc.signal.argtypes, libc.signal.restype = [c_long, c_void_p], c_void_p
    libc.signal(number, cast(libc._exit, c_void_p))
