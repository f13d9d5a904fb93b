"""The number in an answer to a question of arithmetic; test kind {"answer": text}, as GSM8K has it.

Rules, in order, after thinking is removed as for programs (extract.py):

1. What stands in the last `\\boxed{…}` that is not empty.
2. The rest of the last line that has `####`, which is how the data set's own answers end.
3. The last number.

A number is digits with an optional sign, decimal point and thousands separated by commas, or as LaTeX has them:
`1{,}000`, `1,\\!000`, `1\\,000`. In 1 and 2 it is the first one behind the last equals sign, so
`\\boxed{x = 42 \\text{ m}^2}` gives 42; where there is none the answer is the text.
An answer without any of the three is none (verdict `no_code`: nothing to grade).
"""

import re
from decimal import Decimal

from mlx_ssd.grading.extract import without_thinking

# A minus counts where it does not stand between two things, as in 10-4.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-\N{MINUS SIGN}])?(?:\\?\$-?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)", re.ASCII
)
# What LaTeX sets between groups of three digits: a comma without its space, or a space. Not `~`: 100~200 is a range.
_SEPARATOR = r"(?:\{,\}|,\\!|\\[,;: ]|\{\\[,;: ]\})"
_THOUSANDS = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:(?:,|{_SEPARATOR})\d{{3}})+(?!\d)", re.ASCII)
_HASHES = re.compile(r"####([^\n]*)")
_BOXED = re.compile(r"\\boxed\s*\{")


def extract_answer(text: str) -> str | None:
    """The answer that `text` gives by the rules above, as it is written there, or None. LaTeX's thousands are given
    with commas."""
    text = _THOUSANDS.sub(lambda number: re.sub(_SEPARATOR, ",", number[0]), without_thinking(text))
    for marked in (_boxed(text), _HASHES.findall(text)):
        said = [part.strip() for part in marked if part.strip()]
        if said:
            number = _NUMBER.search(said[-1].rpartition("=")[2])
            return number[0] if number else said[-1]
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def same_answer(given: str, expected: str) -> bool:
    """Whether two answers are numbers of the same value: "$1,234.50" and "1234.5". Other texts must be equal."""
    numbers = [_decimal(text.strip()) for text in (given, expected)]
    if None in numbers:
        return given.strip() == expected.strip()
    return numbers[0] == numbers[1]


def _decimal(text: str) -> Decimal | None:
    plain = text.replace("\N{MINUS SIGN}", "-").replace("\\", "").replace("$", "").replace(",", "")
    return Decimal(plain) if _NUMBER.fullmatch(text) else None


def _boxed(text: str) -> list[str]:
    """The contents of each \\boxed{…}, up to the brace that closes it; of one that is cut off, nothing."""
    found = []
    for opening in _BOXED.finditer(text):
        depth = 1
        for brace in re.finditer(r"\\?[{}]", text[opening.end() : opening.end() + 1000]):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)  # \{ and \} are text
            if depth == 0:
                found.append(text[opening.end() : opening.end() + brace.start()])
                break
    return found
