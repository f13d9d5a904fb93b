"""docs/commands.md, written from the command line's own definitions.

    python -m tests.docs.synopsis > docs/commands.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from mlx_ssd.cli import main

# A newcomer's order; a command that is not named here comes last.
ORDER = (
    "run", "plan", "probe", "doctor", "recipes", "sample", "curate", "train", "evaluate", "score", "analyze", "report",
    "try", "eval", "grade", "export", "parity", "bench", "frontier",
)  # fmt: skip
HEAD = """\
# Every command and option

As `mlx-ssd COMMAND --help` says it: this page is what `python -m tests.docs.synopsis` prints. RECIPE is a name
(`mlx-ssd recipes`) or a YAML file, RUN a run directory such as `runs/quickstart`, MODEL a folder, a name on the hub or
`embedded`. Exit codes: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
"""


def leaves(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that can be called, with its full name."""
    known = [name for name in ORDER if name in group.commands]
    for name in known + sorted(set(group.commands) - set(known)):
        command = group.commands[name]
        if command.hidden:
            continue
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")


def page() -> str:
    return HEAD + "".join(_section(name, command) for name, command in leaves(main))


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["mlx-ssd", name, *(text for text in arguments if text)])
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    text = inspect.cleandoc((command.help or "").replace("\b", ""))
    rows = [f"| `{_flag(option, context)}` | {_escaped(_meaning(option, context))} |\n" for option in options]
    table = "\n| option | |\n|---|---|\n" + "".join(rows) if rows else ""
    return f"\n## `{usage}`\n\n{text}\n{table}"


def _flag(option: click.Option, context: click.Context) -> str:
    names = "/".join([", ".join(option.opts), *option.secondary_opts])
    value = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    return _escaped(names + value)


def _meaning(option: click.Option, context: click.Context) -> str:
    default = option.default if option.show_default else None
    return (option.help or "") + (f" Usually {default}." if default is not None else "")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
