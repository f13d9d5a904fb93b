"""When a result counts as right. Only the grading process compares: a program never sees what is expected."""

import json
import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def same_value(result: object, expected: object) -> bool:
    """Whether what a function returned equals the expected JSON value.

    - lists: same length, equal item by item; tuples count as lists, for JSON has no tuple;
    - dicts: same keys, equal values; keys that are not strings count by their JSON spelling (1 as "1");
    - numbers: equal by value, exactly, no tolerance: 1 equals 1.0, and 0.1 + 0.2 is not 0.3; NaN equals NaN;
    - True and False equal only themselves: True is not 1;
    - strings and None: identical; "5" is not 5, and "ab " is not "ab";
    - sets, bytes and whatever else JSON has not equal nothing.
    """
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(result, (list, tuple))
            and len(result) == len(expected)
            and all(map(same_value, result, expected))
        )
    if isinstance(expected, dict):
        if not isinstance(result, dict):
            return False
        spelled = {_spelled(key): value for key, value in result.items()}
        return (
            len(spelled) == len(result)  # not both 1 and "1"
            and spelled.keys() == expected.keys()
            and all(same_value(spelled[key], value) for key, value in expected.items())
        )
    if isinstance(expected, bool) or isinstance(result, bool):
        return result is expected
    if isinstance(expected, (int, float)):
        return isinstance(result, (int, float)) and (
            result == expected or (result != result and expected != expected)
        )
    return type(result) is type(expected) and result == expected


def _spelled(key: object) -> object:
    """A key as json.dumps would spell it; one that it refuses stays what it is, and equals no string."""
    if key is None or isinstance(key, (bool, int, float)):
        try:
            return json.dumps(key)
        except ValueError:  # an integer too long for decimal digits
            return key
    return key


def same_output(output: str, expected: str) -> bool:
    """Whether what a program printed is the expected text.

    Blank lines at both ends are dropped; then the same number of lines, and on each the same number of
    tokens (split at white space, so spacing within a line is not judged). Two tokens agree when they are
    the same text, or plain decimal numbers of exactly the same value ("2.50" and "2.5", "1e3" and "1000"):
    no tolerance, no "nan", no "1_000".
    """
    got, want = output.strip().split("\n"), expected.strip().split("\n")
    return len(got) == len(want) and all(map(_same_line, got, want))


def _same_line(got: str, want: str) -> bool:
    got_tokens, want_tokens = got.split(), want.split()
    return len(got_tokens) == len(want_tokens) and all(map(_same_token, got_tokens, want_tokens))


def _same_token(got: str, want: str) -> bool:
    if got == want:
        return True
    if not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(want)):
        return False
    try:
        return Decimal(got) == Decimal(want)
    except InvalidOperation:  # an exponent beyond what Decimal holds
        return False
