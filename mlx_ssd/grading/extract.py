"""The program in a model's answer.

Rules, in order:

1. Thinking is removed: every `<think>…</think>`; everything up to a `</think>` whose opening stood in the
   prompt; everything after a `<think>` that is never closed. Channels of gpt-oss come in that form too (thinking.py).
2. A fence is a line of at least three backticks or tildes, however indented, with an optional info string
   (no backticks in it). It closes at a line of the same character, at least as long, with nothing after it.
   Inside an open block a fence labelled Python starts a new block: the model forgot to close the first.
   CRLF is read as LF, and the fence's own indentation is taken off the block's lines.
3. A block counts when its label is Python (`python`, `python3`, `py`, `py3`, in any case, spaced or in
   braces) or absent, and it is not blank. Blocks labelled otherwise (`text`, `cpp`, `output`) never count.
4. The last complete block labelled Python wins; failing that the last complete block without a label, so
   that an example of the output after the program does not replace it.
5. An unclosed block (the answer was cut) is taken only when no complete block counts.
6. No block: None. Bare text is never taken for code, but where a problem has a `stem`, code that an answer goes on
   from (HumanEval: the function's head): without any fence the answer is taken to go on from it, up to where the
   authors of HumanEval stopped their model (arXiv 2107.03374, section 2.1): a line that begins with class, def, #, if
   or print.
"""

import re

from mlx_ssd.grading.preamble import with_preamble

_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)\Z")
_STOP = re.compile(r"\n(?:class|def|#|if|print)")
_PYTHON = {"python", "python3", "py", "py3"}


def extract_code(text: str) -> str | None:
    """The program in `text` by the rules above, or None where there is none (verdict `no_code`)."""
    complete, unclosed = _blocks(without_thinking(text))
    for blocks in (complete, unclosed):
        for wanted in (_is_python, _is_unlabelled):
            found = [body for label, body in blocks if wanted(label) and body.strip()]
            if found:
                return found[-1]
    return None


def extract_program(text: str, preamble: str | None = None, stem: str | None = None) -> str | None:
    """The whole program that is graded: the code in `text` behind `preamble`, or `text` behind `stem` (rule 6)."""
    code = extract_code(text)
    said = without_thinking(text).replace("\r\n", "\n")
    if code is None and stem and said.strip() and _blocks(said) == ([], []):
        return stem + _STOP.split(said, maxsplit=1)[0] + "\n"
    return with_preamble(code, preamble)


def without_thinking(text: str) -> str:
    """Rule 1."""
    text = _THINK.sub("", text)
    return text.rpartition("</think>")[2]


def _blocks(text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(label, body) of the complete and of the unclosed blocks."""
    complete, unclosed = [], []
    opening, body = None, []
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = _FENCE.match(line)
        label = _label(fence[3]) if fence else ""
        if opening is None:
            if fence:
                opening, body = fence, []
        elif fence and fence[2].startswith(opening[2]) and not fence[3].strip():
            complete.append((_label(opening[3]), "\n".join(body)))
            opening = None
        elif fence and fence[2] == opening[2] and _is_python(label):
            unclosed.append((_label(opening[3]), "\n".join(body)))
            opening, body = fence, []
        else:
            indent = len(opening[1])
            body.append(line[indent:] if not line[:indent].strip() else line.lstrip())
    if opening is not None:
        unclosed.append((_label(opening[3]), "\n".join(body)))
    return complete, unclosed


def _label(info: str) -> str:
    """First word of an info string, lower case: `{.Python title=x}` gives `python`."""
    return re.match(r"[\s{.]*([^\s{}.:,]*)", info)[1].lower()


def _is_python(label: str) -> bool:
    return label in _PYTHON


def _is_unlabelled(label: str) -> bool:
    return not label
