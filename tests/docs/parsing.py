"""Whether a command of a document is one: parsed by the real program, and nothing of it run."""

from __future__ import annotations

import argparse
import ast
import functools
import itertools
import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click

from mlx_ssd.cli import main
from mlx_ssd.recipe import Recipe, parse_override
from tests.docs.commands import Command

ROOT = Path(__file__).parents[2]
# A document's own words for what the reader has, as something that parses.
FILLED = {
    "RECIPE": "quickstart", "MODEL": "embedded", "GB": "16", "CHIP": "Apple M4 Pro", "NAME": "quickstart",
    "…": "quickstart",
}  # fmt: skip
EXTRAS = {"torch", "peft", "coremltools", "coreai", "gguf", "playwright"}
OF_RECIPES = ("run", "plan", "probe")


class NoCommand(Exception):
    """Why a command cannot be typed as it stands."""


def parse(command: Command) -> None:
    """Raises NoCommand where the program knows no such command, option, target, module, extra or test."""
    for words in alternatives(command.words):
        program, *arguments = words
        if program == "mlx-ssd":
            _of_click(arguments, names_it=command.inline and len(arguments) == 1)
        elif program == "make":
            _of_make(arguments)
        elif program == "pip" and "-e" in arguments:
            _of_pip(arguments)
        elif program == "pytest":
            if not selected(arguments):
                raise NoCommand("chooses no test")


def alternatives(words: list[str]) -> Iterator[list[str]]:
    """A|B is either; [X] is X, for a usage that takes more takes less too."""
    choices = []
    for word in words:
        bare = word[1:-1] if re.fullmatch(r"\[[\w|]+\]", word) else word
        choices.append(bare.split("|") if re.fullmatch(r"[\w.-]+(\|[\w.-]+)+", bare) else [bare])
    yield from (list(found) for found in itertools.product(*choices))


def _of_click(arguments: list[str], names_it: bool = False) -> None:
    """`names_it`: `mlx-ssd eval` in a sentence is the command's name, which takes more when it is typed."""
    command, context, rest = main, click.Context(main, info_name="mlx-ssd"), [FILLED.get(a, a) for a in arguments]
    try:
        while isinstance(command, click.Group) and rest:
            name, command, rest = command.resolve_command(context, rest)
            context = click.Context(command, parent=context, info_name=name)
        context = command.make_context(command.name, rest, parent=context.parent)
    except click.MissingParameter as error:
        if names_it:
            return
        raise NoCommand(error.format_message()) from None
    except click.ClickException as error:
        raise NoCommand(error.format_message()) from None
    if command.name in OF_RECIPES:
        values = context.params
        settings = dict(parse_override(text) for text in values.get("overrides") or ())
        what = values.get("recipe") or values.get("what")
        if what != "embedded" and not str(what).endswith(("/", ".yaml")):
            Recipe.load(what, settings)


def _of_make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets, variables = set(re.findall(r"^([\w-]+):", text, re.M)), set(re.findall(r"^(\w+) \?=", text, re.M))
    for word in arguments:
        if word.split("=")[0] not in (variables if "=" in word else targets):
            raise NoCommand(f"the Makefile has no {word}")


def _of_pip(arguments: list[str]) -> None:
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for word in arguments:
        extras = set(re.findall(r"[\w-]+", word)) if word.startswith(".[") else set()
        if extras - known:
            raise NoCommand(f"no extra {', '.join(sorted(extras - known))}")


class _Parsed(BaseException):
    """The arguments are in order; nothing more is wanted."""


def program_of(command: Command) -> tuple[str, list[str]] | None:
    """Module and arguments of `python -m benchmarks.NAME …`, or of tests; None for any other command."""
    words = command.words
    ours = len(words) > 2 and words[:2] == ["python", "-m"] and words[2].startswith(("benchmarks.", "tests."))
    return (words[2], words[3:]) if ours else None


def refusals(programs: list[tuple[str, list[str]]]) -> list[str | None]:
    """Why each program does not take its arguments. In a process of their own: some import PyTorch."""
    command = [sys.executable, "-m", "tests.docs.parsing"]
    process = subprocess.run(command, input=json.dumps(programs), cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def _refusal(module: str, arguments: list[str]) -> str | None:
    try:
        _of_module(module, arguments)
    except NoCommand as error:
        return str(error)
    return None


def _of_module(module: str, arguments: list[str]) -> None:
    """Run a module up to where it has parsed its arguments. What has no parser takes none, or reads them itself."""
    path = ROOT / (module.replace(".", "/") + ".py")
    path = path if path.exists() else path.with_suffix("") / "__main__.py"
    if not path.exists():
        raise NoCommand(f"no program {module}")
    source = path.read_text(encoding="utf-8")
    if "argparse" not in source and "make_parser" not in source:
        if "__main__" not in source and not source.endswith("\nmain()\n"):
            raise NoCommand(f"{module} is no program")
        if arguments and "sys.argv" not in source:
            raise NoCommand(f"{module} takes no arguments")
        return
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        found = real(self, args, namespace)
        if sys._getframe(1).f_globals["__name__"] != "benchmarks.journal":
            raise _Parsed
        return found  # journal.start looks at the experiments' names, too

    def looked_at(*_):
        raise _Parsed

    with (
        mock.patch("sys.argv", [module, *arguments]),
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        mock.patch("benchmarks.journal._preload_blas", looked_at),
        mock.patch.object(argparse.ArgumentParser, "error", _refuse),
    ):
        try:
            runpy.run_module(module, run_name="__main__")
        except _Parsed:
            return
        except SystemExit:
            raise NoCommand("an argument is not known") from None
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in EXTRAS:
                return  # tests of this program are skipped too
            raise
    raise NoCommand(f"{module} ended before it had parsed its arguments")


def _refuse(self, message: str) -> None:
    raise NoCommand(message)


def selected(arguments: list[str]) -> list[str]:
    """The tests that pytest's arguments choose, by reading the files: paths, -k over names, -m over marks."""
    options = dict(zip(arguments, arguments[1:], strict=False))
    expression, mark = options.get("-k"), options.get("-m")
    values = {options.get("-k"), options.get("-m")}
    paths = [argument for argument in arguments if not argument.startswith("-") and argument not in values]
    for path in paths:
        if not (ROOT / path.split("::")[0]).exists():
            raise NoCommand(f"{path} does not exist")
    found = [test for path in paths or ["tests"] for test in named(path)]
    if expression:
        found = [test for test in found if _matches(expression, test)]
    if mark:
        found = [test for test in found if f"mark.{mark}" in (ROOT / test.split("::")[0]).read_text(encoding="utf-8")]
    return found


@functools.cache
def named(path: str) -> tuple[str, ...]:
    """Ids of the tests of a file or folder, without parameters; of FILE::NAME those of this name, in any class."""
    file, _, name = path.partition("::")
    files = sorted((ROOT / file).rglob("test_*.py")) if (ROOT / file).is_dir() else [ROOT / file]
    found = []
    for one in files:
        place = one.relative_to(ROOT).as_posix()
        for node in ast.parse(one.read_text(encoding="utf-8")).body:
            inside = node.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test") else [node]
            names = [n.name for n in inside if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
            before = f"{place}::{node.name}" if isinstance(node, ast.ClassDef) else place
            found += [f"{before}::{one}" for one in names]
    return tuple(test for test in found if not name or test.endswith(f"::{name}"))


def _matches(expression: str, test: str) -> bool:
    """pytest's -k: words are parts of the name, with and, or, not."""

    def holds(word: re.Match) -> str:
        return word[0] if word[0] in ("and", "or", "not") else str(word[0].lower() in test.lower())

    return bool(eval(re.sub(r"[^\s()]+", holds, expression), {"__builtins__": {}}))


if __name__ == "__main__":
    print(json.dumps([_refusal(*program) for program in json.load(sys.stdin)]))
