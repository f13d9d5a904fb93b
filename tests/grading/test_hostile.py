"""Programs that mean harm. None passes, none outlasts its limits, none touches what is outside.

Each is graded as a function whose right answer it cannot know, and as a script, with every variant of the
sandbox. `{secret}` is a file outside, `{port}` a port on which this test listens.
"""

import os
import socket
import time
from dataclasses import replace

import pytest

from mlx_ssd.grading import check_canaries, grade

EXPECTED = "the expected value that no program is told"

HOSTILE = {
    "memory flood": "x = []\nwhile True: x.append(bytearray(10_000_000))",
    "memory flood by a list": "x = [0]\nwhile True: x += x",
    "output flood": "while True: print('x' * 100_000)",
    "output flood on standard error": "import sys\nwhile True: sys.stderr.write('x' * 100_000)",
    "endless loop": "while True: pass",
    "endless loop that ignores every signal": """
import signal
for number in signal.valid_signals() - {{9, 19}}:
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
while True:
    try:
        while True: pass
    except BaseException: pass""",
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass",
    "child that outlives": "import os, time\nif os.fork() == 0: time.sleep(60)",
    "daemon": """
import os, time, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    os._exit(0)
os.wait()""",
    "daemon of an endless loop": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(60)
    os._exit(0)
while True: pass""",
    "many threads": """
import threading, time
for _ in range(30): threading.Thread(target=time.sleep, args=(60,)).start()""",
    "sys.exit": "import sys\nsys.exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "exit in the function": "def f(x): raise SystemExit(0)",
    "kills itself": "import os\nos.kill(os.getpid(), 9)\nwhile True: pass",
    "kills its parent": "import os\nif os.getppid(): os.kill(os.getppid(), 9)\nwhile True: pass",
    "kills its group": "import os\nos.killpg(0, 9)\nwhile True: pass",
    "closes everything": "import os\nos.closerange(0, 64)\ndef f(x): return x",
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)\nf(1)",
    "recursion through C": """
import sys
sys.setrecursionlimit(10**9)
x = []
for _ in range(10**6): x = [x]
repr(x)""",
    "deeply nested result": "def f(x):\n    for _ in range(900): x = [x]\n    return x",
    "circular result": "def f(x):\n    x = []\n    x.append(x)\n    return x",
    "exponential result": "def f(x):\n    for _ in range(60): x = [x, x]\n    return x",
    "huge integer": "def f(x): return 10**50_000",
    "huge power": "def f(x): return 9**9**9",
    "equal to everything": """
class All(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
class Any:
    def __eq__(self, other): return True
def f(x): return [All('x'), Any()][x % 2]""",
    "deceitful exception": """
class E(BaseException):
    def __str__(self): raise self
def f(x): raise E()""",
    "patched builtins": """
import builtins, json, sys
builtins.len = builtins.str = builtins.isinstance = builtins.map = lambda *_: True
builtins.type = lambda x: str
json.dumps = json.loads = lambda *_, **__: True
def f(x): return x""",
    "patched runner": """
import sys, gc
for o in gc.get_objects():
    try:
        if isinstance(o, dict) and 'run_calls' in o: o['encode'] = lambda value: '"pass"'
    except Exception: pass
def f(x): return x""",
    "forged results": """
import os, gc
nonce = [o.nonce for o in gc.get_objects() if type(o).__name__ == 'Results'] + ['none']
for fd in range(1, 64):
    for text in ('{{"step": 0, "value": "pass"}}', '{{"verdict": "pass"}}', '{{"step": "loaded"}}', '[[[[',
                 '1' * 9000,
                 '{{"int": "zz"}}', '{{"dict": [[[], 1]]}}', '[' * 30_000, 'null', '{{"failed": []}}', '0'):
        try: os.write(fd, f'\\n{{nonce[0]}} {{text}}\\n'.encode())
        except OSError: break
def f(x): return x""",
    "flood of the result pipe": """
import os
while True:
    for fd in range(3, 64):
        try: os.write(fd, b'x' * 60_000)
        except OSError: pass""",
    "writes outside": "open({secret!r}, 'w').write('changed')",
    "deletes outside": "import os\nos.remove({secret!r})",
    "renames outside": "import os\nos.rename({secret!r}, 'mine')",
    "links outside": "import os\nos.link({secret!r}, 'mine')\nopen('mine', 'w').write('changed')",
    "reads a secret": "print(open({secret!r}).read())\ndef f(x): return open({secret!r}).read()",
    "reads the grader": "import os\ndef f(x): return open('/proc/%d/environ' % {grader}).read()",
    "searches for the expected value": """
import gc
def f(x):
    for o in gc.get_objects():
        for value in o.values() if type(o) is dict else o if type(o) in (list, tuple) else ():
            if type(value) is str and value.startswith('the expected'): return value""",
    "runs another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo changed > {secret}'])",
    "connects": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "fills its directory": """
import os
for i in range(300): open(str(i), 'w')
for i in range(300): os.mkdir('d'); os.chdir('d')
while True: pass""",
    "locks its directory": "import os\nos.mkdir('a')\nopen('a/b', 'w')\nos.chmod('a', 0)\nos.chmod('.', 0)",
    "writes a huge file": "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "removes its directory": "import os\nos.rmdir(os.getcwd())",
}

# What harms the machine itself unless the variant has the mechanism named: not run otherwise.
NEEDS = {
    "writes outside": "landlock",
    "deletes outside": "landlock",
    "renames outside": "landlock",
    "links outside": "landlock",
    "reads a secret": "landlock",
    "reads the grader": "landlock",
    "runs another program": "landlock",
    "connects": "net",
}
TIGHT = {"wall_seconds": 0.4, "cpu_seconds": 5.0}


def held(sandbox) -> set[str]:
    found = sandbox.mechanisms()
    return set(found["namespaces"]) | ({"landlock"} if found["landlock"] else set())


@pytest.fixture
def outside(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(EXPECTED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.01)
        yield {"secret": str(secret), "port": listener.getsockname()[1], "grader": os.getpid()}
        with pytest.raises(TimeoutError):
            listener.accept()
    assert secret.read_text() == EXPECTED


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, sandbox, limits, outside):
    if NEEDS.get(name, "") not in held(sandbox) | {""}:
        pytest.skip(f"not held back without {NEEDS[name]}")
    limits = replace(limits, **TIGHT)
    code = HOSTILE[name].format(**outside)
    if "def f" not in code:  # the harm is done in the call, not in loading
        body = "\n".join("    " + line for line in code.split("\n"))
        function = f"def f(x):\n{body}\n"
    else:
        function = code
    for program, tests in (
        (function, [{"args": [1], "expected": EXPECTED}] * 2),
        (code, [{"stdin": "1\n", "stdout": EXPECTED}] * 2),
    ):
        started = time.monotonic()
        good = grade("def f(x): return x", "f", [{"args": [1], "expected": 1}], limits, sandbox)
        start_up = time.monotonic() - started
        assert good.verdict == "pass"
        started = time.monotonic()
        verdict = grade(program, "f", tests, limits, sandbox)
        assert verdict.verdict in ("wrong", "error", "timeout", "memory"), verdict
        assert verdict.failed_test == 0
        loads = 2 if "args" in tests[0] else 1
        # On an idle machine a second is enough; other work, and the disk that a program fills, are slower.
        assert time.monotonic() - started < loads * limits.wall_seconds + start_up + 3.0


@pytest.mark.parametrize(
    "name, verdict",
    [
        ("memory flood", "memory"),
        ("memory flood by a list", "memory"),
        ("endless loop", "timeout"),
        ("output flood", "error"),
        ("endless loop that ignores every signal", "timeout"),
        ("sys.exit", "wrong"),
        ("huge integer", "wrong"),
    ],
)
def test_the_verdict_names_the_limit(name, verdict, sandbox, limits):
    code = HOSTILE[name].replace("{{", "{").replace("}}", "}")
    tests = [{"args": [1], "expected": EXPECTED}] if "def f" in code else [{"stdin": "", "stdout": EXPECTED}]
    assert grade(code, "f", tests, replace(limits, wall_seconds=1.0), sandbox).verdict == verdict


def test_a_program_without_landlock_really_reads_outside(sandboxes, limits, outside):
    """The control: the attack works where nothing holds it, so the test above can fail."""
    code = HOSTILE["reads a secret"].format(**outside)
    tests = [{"args": [1], "expected": EXPECTED}]
    assert grade(code, "f", tests, limits, sandboxes["bare"]).verdict == "pass"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.kill(-1, 9)\nwhile True: pass",
        "import os, time\nfor _ in range(300): os.fork() or time.sleep(60)",
    ],
    ids=["kill(-1)", "many forks"],
)
def test_what_only_a_process_namespace_holds(code, sandboxes, limits):
    """Never run without one: they would end or fill this session."""
    sandbox = sandboxes["whole"]
    if "pid" not in held(sandbox):
        pytest.skip("no process namespace")
    verdict = grade(code, "f", [{"stdin": "", "stdout": EXPECTED}], replace(limits, **TIGHT), sandbox)
    assert verdict.verdict in ("wrong", "error", "timeout"), verdict


@pytest.mark.parametrize(
    "harm", ["os.mkdir('d'); os.chdir('d')", "open(os.urandom(8).hex(), 'w').write('x' * 60_000)"]
)
def test_a_directory_in_memory_cannot_be_overfilled(harm, sandboxes, limits):
    if not sandboxes["whole"].mechanisms()["directory"]:
        pytest.skip("no mount namespace")
    outcome = sandboxes["whole"].run(f"import os\nwhile True: {harm}", "", limits)
    assert "No space left on device" in outcome.detail


def test_the_grader_still_grades(sandbox, limits):
    check_canaries(sandbox, limits)
