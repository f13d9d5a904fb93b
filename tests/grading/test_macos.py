"""What is otherwise on macOS, as far as it can be shown elsewhere: the profile, and memory that is watched."""

import os
import re
import shutil
import sys
import time
from dataclasses import replace

import pytest

from mlx_ssd.grading import ProcessSandbox, process, running, wire
from mlx_ssd.grading.macos import interpreters, sandbox_exec
from tests.grading.test_sandbox import returned


@pytest.fixture
def unlimited(tmp_path, monkeypatch):
    """A sandbox whose programs may take all the address space they want."""
    copy = tmp_path / "inside"
    shutil.copytree(process.INSIDE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "program.py").read_text()
    for line, instead in (
        ('    lower(resource.RLIMIT_AS, limits["memory_mb"] << 20)\n', ""),
        ("return LINUX", "return False"),
    ):
        assert text.count(line) == 1
        text = text.replace(line, instead)
    (copy / "program.py").write_text(text)
    shutil.copy(wire.__file__, tmp_path)
    monkeypatch.setattr(process, "INSIDE", str(copy))
    return ProcessSandbox()


def test_memory_is_watched_where_the_system_cannot_limit_it(limits, unlimited):
    code = "import time\nx = b'x' * (%d << 20)\ntime.sleep(60)\n"
    limits = replace(limits, wall_seconds=30.0)  # memory is slow to fill on a busy machine
    assert unlimited.run(code % 400, "", limits).status == "memory"
    assert unlimited.run((code % 100).replace("60", "0.5"), "", limits).status == "ok"


def test_its_memory_is_looked_at_now_and_then(limits, unlimited, monkeypatch):
    """Not at each thing that it says: the system is asked about every process that there is."""
    looks, real = [], running._resident_mb
    monkeypatch.setattr(running, "_resident_mb", lambda pid: looks.append(pid) or real(pid))
    start = time.monotonic()
    with unlimited.load("def f(x): return x", "f", limits) as program:
        assert [program.call([n]).value for n in range(300)] == list(range(300))
    assert 1 <= len(looks) <= 2 + (time.monotonic() - start) / running.POLL_SECONDS


def test_the_profile_of_macos_quotes_paths():
    *_, profile = sandbox_exec(['/a "b"/python', "/c"], ["/lib"], "/home\\")
    assert '(literal "/a \\"b\\"/python")' in profile and '(subpath "/home\\\\")' in profile
    assert '(allow process-exec (literal "/c"))' in profile and "(deny network*)" in profile
    assert '(subpath "/private/tmp")' in profile.partition("(deny file-read-data")[2].partition("\n")[0]


def test_a_framework_s_interpreter_is_another_program(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    assert interpreters("/bin/python3") == ["/bin/python3"]
    inner = tmp_path / "Resources/Python.app/Contents/MacOS/Python"
    inner.parent.mkdir(parents=True)
    inner.touch()
    assert interpreters("/bin/python3") == ["/bin/python3", str(inner)]


# Landlock in place of sandbox-exec: what the profile lets nobody read cannot be read here.
SHUT_IN = """import sys
start, own, readable, given = sys.argv[1], sys.argv[2], sys.argv[3].split("|"), sys.argv[4:]
sys.path.insert(0, own)
from inside import linux
linux.restrict(linux.make_ruleset(readable, "/nowhere")[1])
for name in [name for name in sys.modules if name.split(".")[0] == "inside"]:
    del sys.modules[name]
sys.path[:] = sys.path[1:]
sys.path_importer_cache.clear()
sys.argv = [start, *given]
__file__ = start
exec(compile(open(start).read(), start, "exec"))
"""


@pytest.mark.skipif("not ProcessSandbox().mechanisms().get('landlock')", reason="needs Landlock")
def test_the_profile_of_macos_lets_a_program_start(limits, monkeypatch):
    """Where the package lies among the user's files."""

    def command(readable, home):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "platform", "darwin")
            _, _, profile, python, *flags, start = ProcessSandbox.command(sandbox, home)
        allowed = re.findall(r'\(allow file-read-data \(subpath "(.*)"\)\)', profile)
        own = os.path.dirname(os.path.dirname(start))
        return [python, *flags, "-c", SHUT_IN, start, own, "|".join(path for path in allowed if readable(path, own))]

    sandbox = ProcessSandbox(warm=False, namespaces=False, landlock=False)
    monkeypatch.setattr(sandbox, "command", lambda home: command(lambda path, own: True, home))
    assert returned(sandbox, limits, "6 * 7").value == 42
    monkeypatch.setattr(sandbox, "command", lambda home: command(lambda path, own: path != own, home))
    assert "PermissionError" in returned(sandbox, limits, "6 * 7").detail


@pytest.mark.mac
@pytest.mark.skipif(sys.platform != "darwin", reason="sandbox-exec is macOS's")
def test_sandbox_exec_holds(limits):
    found = ProcessSandbox().describe()
    assert all(found[key] for key in ("works", "time", "memory", "output", "files_written", "files_read", "network"))
