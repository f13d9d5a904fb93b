"""Programs that mean harm, as data: what each does and what must not come of it.

`@secret@`, `@outside@`, `@tcp@`, `@udp@`, `@unix@`, `@abstract@`, `@victim@`, `@grader@`, `@key@` and `@homes@` stand
for what attack.py puts in their way: a file and its directory, listeners, a process of the same user, a System V key.
A program that prints `@expected@` says that it got what it was after.
"""

# ruff: noqa: E501  (a program on one line is easier to compare with the next)

from dataclasses import dataclass

EXPECTED = "the expected value that no program is told"  # also what the secret file holds


@dataclass(frozen=True)
class Hostile:
    """aim: what must not happen, beside passing, outlasting the limits and leaving something behind.

    landlock, limits: whether these levels hold it too; namespaces hold all. landlock is the version of Landlock that
    does, None for none. dangerous: not run where nothing holds it, for the sake of the machine. twice: run again.
    """

    name: str
    code: str
    aim: str = ""
    landlock: int | None = 0
    limits: bool = True
    dangerous: bool = False
    twice: bool = False


def _against_files(name: str, code: str, aim: str, landlock: int | None = 1) -> Hostile:
    return Hostile(name, code, aim, landlock, limits=False)


RESOURCES = [
    Hostile("memory flood", "x = []\nwhile True: x.append(bytearray(10_000_000))"),
    Hostile("memory flood by a list", "x = [0]\nwhile True: x += x"),
    Hostile("memory flood by mmap", "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 24))"),
    Hostile("memory flood caught", "x = []\nwhile True:\n    try: x.append('x' * 10_000_000)\n    except MemoryError: pass"),
    Hostile("output flood", "while True: print('x' * 100_000)"),
    Hostile("output flood caught", "while True:\n    try: print('x' * 100_000)\n    except BaseException: pass"),
    Hostile("output flood on standard error", "import sys\nwhile True: sys.stderr.write('x' * 100_000)"),
    Hostile("huge integer", "def f(x): return 10**50_000"),
    Hostile("huge power", "def f(x): return 9**9**9"),
    Hostile("deep recursion", "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)\nf(1)"),
    Hostile(
        "recursion through C",
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
    ),
    Hostile("deeply nested result", "def f(x):\n    for _ in range(900): x = [x]\n    return x"),
    Hostile("circular result", "def f(x):\n    x = []\n    x.append(x)\n    return x"),
    Hostile("exponential result", "def f(x):\n    for _ in range(60): x = [x, x]\n    return x"),
    Hostile("writes a huge file", "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))"),
    Hostile("big sparse file", "import os\nf = open('x', 'wb')\nos.truncate('x', 1 << 50)"),
    Hostile("many open files", "x = []\nwhile True: x.append(open('x', 'w'))"),
    Hostile("many files", "import os\nn = 0\nwhile True:\n    open(str(n), 'w').close()\n    n += 1"),
    # Without a directory of bounded size, clearing away takes as long again as the program had.
    Hostile("deep directories", "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')", "a long clearing away", None, False),
    Hostile("inotify flood", "import ctypes\nwhile True: ctypes.CDLL(None).inotify_init()"),
    Hostile("pipe flood", "import os\nx = []\nwhile True: x.append(os.pipe())"),
    Hostile("reads a fifo that nobody writes", "import os\nos.mkfifo('p')\nopen('p').read()"),
    Hostile("waits for more input", "import os, time\nwhile True: os.read(0, 1) or time.sleep(0.01)"),
]

ENDLESS = [
    Hostile("endless loop", "while True: pass"),
    Hostile("sleeps", "import time\ntime.sleep(600)"),
    Hostile("endless regular expression", "import re\nre.match('(a+)+b', 'a' * 60)"),
    Hostile(
        "endless loop that ignores every signal",
        """
import signal
for number in signal.valid_signals() - {9, 19}:
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
while True:
    try:
        while True: pass
    except BaseException: pass""",
    ),
    Hostile("stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass"),
    Hostile("stops its group", "import os, signal\nos.killpg(0, signal.SIGSTOP)\nwhile True: pass"),
    Hostile("endless atexit", "import atexit\n@atexit.register\ndef end():\n    while True: pass"),
    Hostile("endless finalizer", "class A:\n    def __del__(self):\n        while True: pass\na = A()"),
    Hostile("raises the limit of its time", "import resource\nfor w in (0, 1, 6, 7, 9):\n    try: resource.setrlimit(w, (-1, -1))\n    except (OSError, ValueError): pass\nwhile True: pass"),
    Hostile("alarm that never rings", "import signal\nsignal.alarm(600)\nsignal.pause()"),
    Hostile(
        "threads that outlive",
        "import threading, time\nfor _ in range(30): threading.Thread(target=time.sleep, args=(60,)).start()",
    ),
    Hostile(
        "hanging threads at the end",
        "import threading\nlock = threading.Lock()\nlock.acquire()\nthreading.Thread(target=lock.acquire).start()",
    ),
]

PROCESSES = [
    Hostile("child that outlives", "import os, time\nif os.fork() == 0: time.sleep(60)"),
    Hostile(
        "daemon",
        """
import os, time, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    os._exit(0)
os.wait()""",
        "a process that lives on",
    ),
    Hostile(
        "daemon of an endless loop",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\n"
        "while True: pass",
        "a process that lives on",
    ),
    Hostile(
        "child that writes later",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(0.2)\n    open('@outside@/late', 'w')",
        "a file written outside",
        landlock=1,
        limits=False,
    ),
    Hostile(
        "fork bomb",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "more processes than allowed",
        landlock=None,
        limits=False,
        dangerous=True,
    ),
    Hostile(
        "many forks",
        "import os, time\nfor _ in range(300): os.fork() or time.sleep(60)",
        "more processes than allowed",
        landlock=None,
        limits=False,
        dangerous=True,
    ),
    Hostile("kill(-1)", "import os\nos.kill(-1, 9)\nwhile True: pass", "the end of others", None, False, True),
    Hostile("kills itself", "import os\nos.kill(os.getpid(), 9)\nwhile True: pass"),
    Hostile("kills its group", "import os\nos.killpg(0, 9)\nwhile True: pass"),
    Hostile("kills its parent", "import os\nif os.getppid(): os.kill(os.getppid(), 9)\nwhile True: pass"),
    Hostile("kills another process", "import os\nos.kill(@victim@, 9)", "the end of another process", 6, False),
    Hostile("stops another process", "import os\nos.kill(@victim@, 19)", "another process stopped", 6, False),
    Hostile("segmentation fault", "import ctypes\nctypes.string_at(0)"),
    Hostile("aborts", "import os\nos.abort()"),
    Hostile(
        "runs another program",
        "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo changed > @secret@'])",
        "a changed file",
        landlock=1,
        limits=False,
    ),
    Hostile(
        "runs a shell",
        "import subprocess\nsubprocess.run('touch @outside@/shell', shell=True)",
        "a file written outside",
        landlock=1,
        limits=False,
    ),
    Hostile(
        "attaches to another process",
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "if libc.ptrace(16, @victim@, 0, 0) == 0: os.kill(@victim@, 9)",
        "the end of another process",
        landlock=1,
        limits=False,
    ),
    Hostile("lets itself be traced", "import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\nimport os\nos.kill(os.getpid(), 5)"),
]

FILES = [
    _against_files("writes outside", "open('@secret@', 'w').write('changed')", "a changed file"),
    _against_files("creates outside", "open('@outside@/new', 'w')", "a file written outside"),
    _against_files("deletes outside", "import os\nos.remove('@secret@')", "a deleted file"),
    _against_files("deletes all outside", "import shutil\nshutil.rmtree('@outside@')", "a deleted file"),
    _against_files("renames outside", "import os\nos.rename('@secret@', '@secret@.gone')", "a renamed file"),
    _against_files("truncates outside", "import os\nos.truncate('@secret@', 0)", "a changed file", 3),
    _against_files("hard link outside", "import os\nos.link('@secret@', 'mine')\nopen('mine', 'w').write('changed')", "a changed file"),
    _against_files("symbolic link outside", "import os\nos.symlink('@secret@', 'mine')\nopen('mine', 'w').write('changed')", "a changed file"),
    _against_files("locks outside", "import os\nos.chmod('@outside@', 0)", "a changed mode", None),
    _against_files("dates outside", "import os\nos.utime('@secret@', (0, 0))", "a changed date", None),
    _against_files("reads a secret", "print(open('@secret@').read(), end='')", "the secret"),
    _against_files("reads a secret by a link", "import os\nos.symlink('@secret@', 'x')\nprint(open('x').read(), end='')", "the secret"),
    _against_files("reads a secret by mmap", "import mmap\nf = open('@secret@')\nprint(mmap.mmap(f.fileno(), 0, access=1).read().decode(), end='')", "the secret"),
    _against_files(
        "reads a secret by another root",
        "import glob\nfor path in glob.glob('/proc/*/root@secret@') + glob.glob('/proc/*/cwd/secret'):\n"
        "    try: print(open(path).read(), end=''); break\n    except OSError: pass",
        "the secret",
    ),
    _against_files("searches for a secret", "import glob\nfor path in glob.glob('@outside@/s[e]cret*'): print(open(path).read(), end='')", "the secret"),
    _against_files("reads the users", "users = open('/etc/passwd').read()\nprint('@expected@' * ('root' in users), end='')", "what the machine holds"),
    _against_files(
        "lists homes",
        "import os\nfound = os.listdir('/root') + os.listdir('/home') + os.listdir('/etc')\nprint('@expected@', end='')",
        "what the machine holds",
    ),
    _against_files(
        "reads other programs' directories",
        "import glob, os, tempfile\nfor place in glob.glob('@homes@/*') + glob.glob('@homes@/*/*'):\n"
        "    if os.path.realpath(place) != os.getcwd() and os.path.isdir(place):\n        os.listdir(place)\n"
        "        print('@expected@', end='')",
        "what another program wrote",
    ),
    Hostile("reads the grader's environment", "print('@expected@' * ('PATH' in open('/proc/@grader@/environ').read()), end='')", "the environment of the grader", 1, False),
    Hostile("reads the grader's memory", "f = open('/proc/@grader@/mem', 'rb')\nprint('@expected@', end='')", "the memory of the grader", 1, False),
    Hostile("reads the grader's descriptors", "import os\nfor n in os.listdir('/proc/@grader@/fd'): print('@expected@', end=''); break", "the files of the grader", 1, False),
    Hostile("reads its environment", "import os\nprint('@expected@' * any(k not in ('HOME', 'TMPDIR', 'LANG', 'PYTHONHASHSEED', 'LC_CTYPE') for k in os.environ), end='')", "a variable of the grader"),
    Hostile("reads a disk", "import os\nfor name in ('mem', 'kmsg', 'vda', 'sda', 'nvme0n1'):\n    try: print(os.read(os.open('/dev/' + name, 0), 1) and '@expected@', end=''); break\n    except OSError: pass", "what the machine holds", 1, False),
    Hostile("locks its directory", "import os\nos.mkdir('a')\nopen('a/b', 'w')\nos.chmod('a', 0)\nos.chmod('.', 0)"),
    Hostile("removes its directory", "import os\nos.rmdir(os.getcwd())"),
]

NETWORK = [
    _against_files("connects by TCP", "import socket\nsocket.create_connection(('127.0.0.1', @tcp@), 1)", "a connection", 4),
    _against_files("sends by UDP", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @udp@))", "a packet", None),
    _against_files("connects to a Unix socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('@unix@')", "a connection", None),
    _against_files("connects to an abstract socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0@abstract@')", "a connection", 6),
    _against_files(
        "asks for a name",
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('192.0.2.1', 53))\n"
        "print('@expected@', end='')",
        "a route to the network",
        None,
    ),
    _against_files(
        "System V shared memory",
        "import ctypes\nif ctypes.CDLL(None).shmget(@key@, 4096, 0o1666) < 0: raise OSError",
        "memory that lives on",
        None,
    ),
    _against_files(
        "System V semaphores",
        "import ctypes\nif ctypes.CDLL(None).semget(@key@, 1, 0o1666) < 0: raise OSError",
        "semaphores that live on",
        None,
    ),
]

POWERS = [
    Hostile("mounts", "import ctypes\nif ctypes.CDLL(None).mount(b'tmpfs', b'.', b'tmpfs', 0, None): raise OSError\nprint('@expected@', end='')", "a mount"),
    Hostile("unmounts its directory", "import ctypes, os\nif ctypes.CDLL(None).umount2(os.getcwd().encode(), 2): raise OSError\nprint('@expected@', end='')", "a mount taken away"),
    Hostile("chroot", "import os\nos.chroot('.')\nprint('@expected@', end='')", "another root"),
    Hostile("escape from chroot", "import os\nos.mkdir('x')\nfd = os.open('/', 0)\nos.chroot('x')\nos.fchdir(fd)\nprint('@expected@', end='')", "another root"),
    Hostile("becomes root", "import os\nos.setresuid(0, 0, 0)\nos.setgroups([0])\nprint('@expected@', end='')", "root's powers"),
    Hostile("becomes another user", "import os\nos.setuid(1234)\nprint('@expected@', end='')", "another user"),
    Hostile("makes packets by hand", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nprint('@expected@', end='')", "forged packets"),
    Hostile("makes a device", "import os, stat\nos.mknod('d', 0o600 | stat.S_IFBLK, os.makedev(8, 0))\nprint('@expected@', end='')", "a device"),
    Hostile("sets the clock", "import time\ntime.clock_settime(0, time.time())\nprint('@expected@', end='')", "another time"),
    Hostile("sets the host's name", "import socket\nsocket.sethostname('x')\nprint('@expected@', end='')", "another name"),
    Hostile(
        "namespaces of its own",
        """
import ctypes, os
libc = ctypes.CDLL(None)
if libc.unshare(0x10000000 | 0x20000) == 0:
    user = os.getuid()
    if libc.mount(b'@outside@', b'.', None, 0x1000, None) == 0: print(open('secret').read(), end='')
    libc.mount(b'tmpfs', b'/', b'tmpfs', 0, None)""",
        "the secret",
        landlock=1,
        limits=False,
    ),
    Hostile("leaves its namespaces", "import ctypes, os\nfor name in ('mnt', 'net', 'pid', 'user'):\n    for pid in (1, @grader@, os.getppid()):\n        try: fd = os.open(f'/proc/{pid}/ns/{name}', 0)\n        except OSError: continue\n        if ctypes.CDLL(None).setns(fd, 0) == 0: print('@expected@', end='')", "the namespaces of others"),
]

DECEIT = [
    Hostile("sys.exit", "import sys\nsys.exit(0)"),
    Hostile("os._exit", "import os\nos._exit(0)"),
    Hostile("exit in the function", "def f(x): raise SystemExit(0)"),
    Hostile("exit code of a limit", "import os\nos._exit(24)"),
    Hostile("closes everything", "import os\nos.closerange(0, 64)\ndef f(x): return x"),
    Hostile("closes standard output", "import sys\nsys.stdout.close()"),
    Hostile("replaces standard output", "import io, sys\nsys.stdout = io.StringIO()\nprint('x')"),
    Hostile(
        "equal to everything",
        """
class All(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
class Any:
    def __eq__(self, other): return True
def f(x): return [All('x'), Any()][x % 2]""",
    ),
    Hostile("deceitful exception", "class E(BaseException):\n    def __str__(self): raise self\ndef f(x): raise E()"),
    Hostile(
        "patched builtins",
        """
import builtins, json, sys
builtins.len = builtins.str = builtins.isinstance = builtins.map = lambda *_: True
builtins.type = lambda x: str
json.dumps = json.loads = lambda *_, **__: True
def f(x): return x""",
    ),
    Hostile(
        "patched exit",
        "import os, sys\nfor m in list(sys.modules.values()):\n"
        "    for n in ('_exit', 'run_script', 'end_as_interpreter', 'kill'):\n"
        "        try: setattr(m, n, lambda *_: None)\n        except Exception: pass\nraise ValueError",
    ),
    Hostile(
        "patched runner",
        """
import sys, gc
for o in gc.get_objects() + [vars(m) for m in list(sys.modules.values()) if hasattr(m, '__dict__')]:
    try:
        if isinstance(o, dict) and 'run_calls' in o: o['encode'] = lambda value: '"pass"'
    except Exception: pass
def f(x): return x""",
    ),
    Hostile(
        "forged results",
        """
import os, gc
nonce = [o.nonce for o in gc.get_objects() if type(o).__name__ == 'Results'] + ['none']
for fd in range(1, 64):
    for text in ('{"step": 0, "value": "pass"}', '{"verdict": "pass"}', '{"step": "loaded"}', '[[[[', '1' * 9000,
                 '{"int": "zz"}', '{"dict": [[[], 1]]}', '[' * 30_000, 'null', '{"failed": []}', '0',
                 '{"failed": "harness_error"}'):
        try: os.write(fd, f'\\n{nonce[0]} {text}\\n'.encode())
        except OSError: break
def f(x): return x""",
    ),
    Hostile(
        "flood of its socket",
        "import os\nwhile True:\n    for fd in range(3, 64):\n        try: os.write(fd, b'x' * 60_000)\n"
        "        except OSError: pass",
    ),
    Hostile(
        "talks to the template",
        "import os, socket\nfor fd in range(64):\n    for text in (b'0 0.0 1\\n', b'k', b'r/tmp'):\n"
        "        try: os.write(fd, text)\n        except OSError: pass",
    ),
    Hostile(
        "searches memory for the expected value",
        """
import gc, sys
def f(x):
    for o in gc.get_objects():
        for value in o.values() if type(o) is dict else o if type(o) in (list, tuple) else ():
            if type(value) is str and value.startswith('the expected'): return value
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if type(value) is str and value.startswith('the expected'): return value
        frame = frame.f_back""",
    ),
    Hostile(
        "searches descriptors for the expected value",
        """
import os
for fd in range(64):
    try:
        os.lseek(fd, 0, 0)
        data = os.read(fd, 1 << 20).decode()
        if 'the expected' in data: print(data[data.index('the expected'):][:42], end='')
    except (OSError, ValueError): pass""",
    ),
    Hostile(
        "traces of the program before",
        "import os, sys, builtins\nfound = os.listdir('.') + [n for n in vars(builtins) if n == 'left']\n"
        "builtins.left = True\nopen('left', 'w')\nprint('@expected@' * bool(found), end='')",
        "state of another program",
        twice=True,
    ),
]

HOSTILE = RESOURCES + ENDLESS + PROCESSES + FILES + NETWORK + POWERS + DECEIT
