"""Every command of README, CONTRIBUTING and docs is typed, run by a test that is named, or marked for the reader."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import mlx_ssd
from mlx_ssd import assets
from mlx_ssd.cli import main
from tests import faults
from tests.docs import held
from tests.docs.commands import MARK, Command, commands
from tests.docs.parsing import ROOT, NoCommand, named, parse, program_of, refusals

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LOOSE = "docs/decisions.md"
WRITTEN = "docs/commands.md"  # usages, not commands: test_synopsis.py


def text_of(page: Path) -> str:
    """Without the README's table of usages, which test_synopsis.py holds."""
    text = page.read_text(encoding="utf-8")
    if page.name != "README.md":
        return text
    before, after = text.split("\n## Commands\n")
    table, rest = after.split("\n\n[Every option]")
    return before + "\n" * (2 + table.count("\n")) + rest


ALL = [
    command
    for page in PAGES
    if (name := page.relative_to(ROOT).as_posix()) != WRITTEN
    for command in commands(name, text_of(page))
]
HELD = [command for command in ALL if command.document != LOOSE]


def is_a_name(command: Command) -> bool:
    """`mlx-ssd eval`, `mlx_lm fuse`: in a sentence the name of a command, ours or another's."""
    return command.inline and len(command.words) == 2 and command.words[0] != "make" and not command.words[1][0] == "-"


def test_there_are_commands_in_every_part():
    assert len(HELD) > 150 and {"README.md", "CONTRIBUTING.md", "docs/export.md"} <= {c.document for c in HELD}
    assert not set(held.TYPED) & set(held.BY_TEST) and not set(held.TYPED) & set(held.MARKED)
    assert not set(held.BY_TEST) & set(held.MARKED)


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.document}:{command.line}")
def test_its_program_takes_it(command):
    try:
        parse(command)
    except NoCommand as error:
        pytest.fail(f"{command.where}: {error}")


def test_programs_take_their_arguments():
    found = [command for command in ALL if program_of(command)]
    said = refusals([program_of(command) for command in found])
    assert [f"{c.where}: {why}" for c, why in zip(found, said, strict=True) if why] == []
    assert len(found) > 30


@pytest.mark.parametrize("command", HELD, ids=lambda command: f"{command.document}:{command.line}")
def test_it_is_typed_or_run_by_a_test_or_marked(command):
    if command.words[0] == "pytest" or command.text in held.TYPED or command.text in held.BY_TEST:
        return
    program = program_of(command)
    if program:
        assert program[0] in held.PROGRAMS, f"{command.where}: tests/docs/held.py names no test of {program[0]}"
        assert command.marks, f"{command.where}: mark it, such as `# minutes`, or (minutes) behind inline code"
    elif not is_a_name(command):
        assert command.text in held.MARKED, f"{command.where}: it needs a line in tests/docs/held.py"
        wanted = set(held.MARKED[command.text].split(", "))
        assert command.marks == wanted, f"{command.where}: the reader is told {sorted(command.marks)}, not {wanted}"


def test_the_table_has_no_command_that_no_document_has():
    known = {command.text for command in HELD}
    assert sorted({*held.TYPED, *held.BY_TEST, *held.MARKED} - known) == []
    assert sorted(set(held.PROGRAMS) - {program_of(command)[0] for command in HELD if program_of(command)}) == []


def test_the_tests_that_are_named_are_there():
    tests = {*held.BY_TEST.values(), *(test for test in held.PROGRAMS.values() if test)}
    assert [test for test in sorted(tests) if not (ROOT / test.split("::")[0]).exists() or not named(test)] == []
    for command, test in held.BY_TEST.items():
        words = shlex.split(command)
        if "mlx-ssd" in words:  # a test of that very command
            name, file = words[words.index("mlx-ssd") + 1], ROOT / test.split("::")[0]
            sources = file.read_text() + "".join(path.read_text() for path in file.parent.glob("conftest.py"))
            assert name in sources or name in file.name, f"{test} says nothing of {name}"


def test_marks_are_words_that_contributing_explains():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{mark}`" in text for mark in ("mac", "network", "minutes", "needs …"))
    for marks in held.MARKED.values():
        assert all(mark in MARK or mark.startswith("needs ") for mark in marks.split(", "))


@pytest.fixture(scope="module")
def desk(finished_run, tmp_path_factory):
    """A folder as a reader has it after `mlx-ssd run`."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("quickstart", "other"):
        shutil.copytree(finished_run, folder / "runs" / name)
    texts = [{"prompt": "Return the sum of xs.", "completion": "```python\nreturn sum(xs)\n```"}, {"text": "x = 1"}]
    (folder / "mine.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return folder


FILLED = {
    "RUN": "runs/quickstart", "NAME": "quickstart", "OTHER": "runs/other", "MODEL": str(assets.model_path()),
    "FILE": "mine.jsonl", "DIR": "found",
}  # fmt: skip


@pytest.mark.parametrize("typed", held.TYPED)
def test_as_it_stands(typed, desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.setattr(click, "launch", lambda page: click.echo(f"shown: {page}"))
    words = [
        "/".join(FILLED.get(part, part) for part in word.split("/")) if word != "…" else "runs/other"
        for word in shlex.split(typed)
    ]
    if "ssd_sampler.py" in typed and not Path(words[1]).exists():  # the command before it has not been typed
        CliRunner().invoke(main, ["export", "runs/quickstart", "--target", "preset"])
    if words[0] == "mlx-ssd":
        result = CliRunner().invoke(main, words[1:])
        code, output = result.exit_code, result.output
    else:
        known = {"python": [sys.executable], "mlx_lm.generate": [sys.executable, "-m", "mlx_lm", "generate"]}
        process = subprocess.run(known[words[0]] + words[1:], capture_output=True, text=True, env=faults.environment())
        code, output = process.returncode, process.stdout + process.stderr
    assert code == 0 or (code == 1 and "fail" in output and typed == "mlx-ssd doctor"), output
    assert " ".join(held.TYPED[typed].split()) in " ".join(output.split()), output


def test_a_virtual_environment(tmp_path):
    script = "python3 -m venv .venv && source .venv/bin/activate && python -c 'import sys; print(sys.prefix)' && pip -V"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_", "VIRTUAL"))}
    path = f"{Path(sys.executable).resolve().parent}:{env['PATH']}"
    process = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=env | {"PATH": path}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[0] == str(tmp_path / ".venv")


def test_the_readme_s_python(monkeypatch):
    [block] = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    called = []
    monkeypatch.setattr("mlx_ssd.pipeline.run", lambda recipe, out: called.append((recipe, out)))
    exec(block.split("```")[0], {})
    [(recipe, out)] = called
    assert recipe.name == "quickstart" and recipe.train.epochs == 1 and out == "runs/short"
    assert isinstance(recipe, mlx_ssd.Recipe)
