"""The commands that a Markdown document asks its reader to type. Nothing is run here.

They stand in blocks (fenced, or indented by four spaces) and in inline code. A block is one of commands where one of
its lines begins with a program: then each of its lines must be a command, but below a line with a prompt (`$ `), where
the rest is what it printed. Inline code is a command where a program is followed by more.

A command's mark says why nobody runs it here as it stands, and is there for the reader too: the first words of the
comment behind it, `# mac: a night`, or in brackets behind inline code, `python -m benchmarks.grading` (minutes); or of
all that a page holds, in a sentence of its own, "Every command here is marked minutes."
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

PROGRAMS = {
    "mlx-ssd", "make", "python", "python3", "pip", "pytest", "ruff", "git", "uv", "brew", "apt", "apt-get", "dnf", "hf",
    "llama-cli", "llama-server", "llama-quantize", "ollama", "vllm", "swift", "xcodebuild", "mpirun", "source",
    "export", "echo", "cd", "ssh", "curl",
}  # fmt: skip
FAMILIES = ("mlx_lm", "mlx.")  # mlx_lm.generate, mlx.launch
MARK = r"(?:mac|macs|network|minutes|needs [\w.-]+(?: \w+)?)"
MARKS = re.compile(rf"({MARK}(?:, {MARK})*)(?=$|[:;.])")
PAGE = re.compile(rf"^Every command here is marked ({MARK}(?:, {MARK})*)\b", re.MULTILINE)
INLINE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)(?:\s\(([^()]*)\))?", re.DOTALL)
NOT_SHELL = {"python", "swift", "json", "jsonl", "yaml", "toml", "text", "markdown", "xml"}


@dataclass(frozen=True)
class Command:
    document: str
    line: int
    text: str  # as it is typed: without prompt and comment, white space as one blank
    marks: frozenset[str] = frozenset()
    inline: bool = False

    @property
    def words(self) -> list[str]:
        """Without what is set before it (NAME=value) and without a redirection."""
        words = shlex.split(self.text)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        return words[: words.index(">")] if ">" in words else words

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


def commands(document: str, text: str) -> list[Command]:
    """All commands of a document, in its order. Raises ValueError for a line that is none in a block of commands."""
    found = []
    for language, lines in _blocks(text):
        if language not in NOT_SHELL:
            found += _of_block(document, lines)
    prose = _prose(text)
    for match in INLINE.finditer(prose):
        code = " ".join(match[2].split())
        if _begins_with_a_program(code) and len(code.split()) > 1 and not _is_setting_alone(code):
            line = prose.count("\n", 0, match.start()) + 1
            found.append(Command(document, line, code, _marks(match[3] or ""), inline=True))
    page = PAGE.search(text)
    everywhere = _marks(page[1]) if page else frozenset()
    found = [Command(c.document, c.line, c.text, c.marks | everywhere, c.inline) for c in found]
    return sorted(found, key=lambda command: command.line)


def _of_block(document: str, lines: list[tuple[int, str]]) -> Iterator[Command]:
    bodies = [body for _, body in lines]
    prompted = any(body.startswith("$ ") for body in bodies)
    if not _holds_commands(bodies):
        return
    for number, body in _joined(lines):
        if prompted and not body.startswith("$ "):
            continue
        typed, comment = _cut_comment(body.removeprefix("$ "))
        if not typed:
            continue
        for part in re.split(r" && | \| ", typed):
            if not _begins_with_a_program(part):
                raise ValueError(f"{document}:{number}: {part!r} stands among commands, with no program that is known")
            yield Command(document, number, " ".join(part.split()), _marks(comment))


def _blocks(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Language ("" where none is named) and numbered lines of each block, fenced or indented after an empty line."""
    block, fence, language, blank = [], "", "", True
    for number, line in enumerate([*text.splitlines(), ""], 1):
        opened = re.match(r"\s*(```+|~~~+)\s*(\w*)", line)
        if fence:
            if opened and opened[1].startswith(fence):
                yield language, block
                block, fence = [], ""
            else:
                block.append((number, line.strip()))
        elif opened:
            if block:
                yield "", block
            block, fence, language = [], opened[1], opened[2]
        elif line.startswith("    ") and line.strip() and (block or blank):
            block.append((number, line.strip()))
        elif line.strip() and block:
            yield "", block
            block = []
        blank = not line.strip()
    if block:
        yield language if fence else "", block


def _prose(text: str) -> str:
    """All but fences, blocks of commands and of other languages; every line in its place. A listing of files may name
    commands in inline code, as prose does."""
    lines = [*text.splitlines(), ""]
    for language, block in _blocks(text):
        if language in NOT_SHELL or _holds_commands([body for _, body in block]):
            for number, _ in block:
                lines[number - 1] = ""
    return "\n".join("" if re.match(r"\s*(```+|~~~+)\s*\w*$", line) else line for line in lines)


def _holds_commands(bodies: list[str]) -> bool:
    return any(_begins_with_a_program(body.removeprefix("$ ")) for body in bodies)


def _joined(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines that end in a backslash, and what follows them, as one."""
    begun = None
    for number, body in lines:
        first, before = begun or (number, "")
        if body.endswith("\\"):
            begun = (first, before + body[:-1].rstrip() + " ")
        else:
            yield first, before + body
            begun = None
    if begun:
        yield begun


def _cut_comment(line: str) -> tuple[str, str]:
    """A line and its comment: a # after white space (or at the beginning), outside of quotes."""
    quote = ""
    for at, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at].strip(), line[at + 1 :].strip()
    return line.strip(), ""


def _marks(comment: str) -> frozenset[str]:
    match = MARKS.match(comment.strip())
    return frozenset(match[1].split(", ")) if match else frozenset()


def _begins_with_a_program(text: str) -> bool:
    first = re.sub(r"^(?:[A-Z_]+=\S* +)+", "", text.strip()).split(" ", 1)[0]
    return first in PROGRAMS or (first.startswith(FAMILIES) and "(" not in first)


def _is_setting_alone(code: str) -> bool:
    return bool(re.fullmatch(r"(?:[A-Z_]+=\S*\s*)+", code))
