"""The README's table of commands and docs/commands.md, against the command line itself."""

import re
import shlex

from mlx_ssd.cli import main
from tests.docs import synopsis
from tests.docs.commands import Command
from tests.docs.parsing import ROOT, parse

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`mlx-ssd .*?) \| (.*) \|$", README.split("\n## Commands\n")[1].split("\n## ")[0], re.M)


def test_the_page_is_what_the_commands_say():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == synopsis.page(), "python -m tests.docs.synopsis > docs/commands.md"
    for name, command in synopsis.leaves(main):
        section = re.split(rf"\n## `mlx-ssd {name}[ `]", page)[1].split("\n## ")[0]
        options = [option for p in command.params for option in (*p.opts, *p.secondary_opts) if option.startswith("-")]
        assert [option for option in options if not re.search(rf"\n\| `[^`]*(?<![\w-]){option}[ `,/]", section)] == []


def test_every_public_command_stands_in_the_readme():
    named = {word for usage, _ in ROWS for code in re.findall(r"`([^`]*)`", usage) for word in code.split()}
    public = {name for name, command in main.commands.items() if not command.hidden}
    assert public - named == set() and len(ROWS) >= 15


def test_the_readme_s_usages_are_taken_and_its_options_are_of_these_commands():
    for usage, meaning in ROWS:
        first, *others = re.findall(r"`([^`]*)`", usage.replace("\\|", "|"))
        parse(Command("README.md", 0, first))
        assert all(other in main.commands for other in others)
        name = first.split()[1]
        options = {option for parameter in main.commands[name].params for option in parameter.opts}
        for code in re.findall(r"`([^`]*)`", meaning):
            if code.startswith("mlx-ssd "):
                parse(Command("README.md", 0, code))
                continue
            words = shlex.split(code)
            assert {word for word in words if word.startswith("--")} <= options, code
            asked = first if "--compare" not in code else "mlx-ssd report RUN"
            parse(Command("README.md", 0, f"{asked} {code}"))
