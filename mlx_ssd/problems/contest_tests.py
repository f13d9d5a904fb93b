"""The tests of a LiveCodeBench row, public then private, in the form in which they are graded.

Private tests are often packed: base64 of zlib of a pickle of one JSON text. The pickle is not loaded but read, opcode
by opcode, and may hold one text and nothing else. An Unpickler that refuses every class would not do: a dozen bytes
(LONG_BINPUT with a large index) make it allocate gigabytes.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickletools
import zlib
from typing import Any

from mlx_ssd.errors import BadInput

LARGEST = 1 << 30  # bytes that the private tests of one problem may unpack to: a small file can unpack to anything
MEND = "download the file again"

# Memo opcodes are what every pickle writes after a text; without a way to read the memo back they mean nothing.
_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_FRAME = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"}


def read_tests(public: str, private: str, func_name: object, where: str) -> list[dict[str, Any]]:
    """Tests as records.Problem has them: {"stdin", "stdout"}, or {"args", "expected"} where `func_name` is called.

    public, private: the columns of the data set, JSON lists of {"input", "output", "testtype"}; private may be packed.
    Raises BadInput, beginning with `where`, with the number of the test (from 0, public ones first) that is wrong.
    """
    cases = [
        *_cases(public, f"{where}: the public tests"),
        *_cases(_unpacked(private, where), f"{where}: the private tests"),
    ]
    if not cases:
        raise BadInput(f"{where}: has no tests; {MEND}")
    kinds = {str(case["testtype"]) for case in cases}
    if len(kinds) > 1:
        raise BadInput(f"{where}: has tests of more than one testtype ({', '.join(sorted(kinds))}); {MEND}")
    if kinds == {"stdin"}:
        return [{"stdin": case["input"], "stdout": case["output"]} for case in cases]
    if kinds != {"functional"}:
        raise BadInput(f"{where}: testtype {kinds.pop()!r} is not known, only 'stdin' and 'functional'")
    if not isinstance(func_name, str) or not func_name:
        raise BadInput(f"{where}: has functional tests, but its metadata names no func_name to call; {MEND}")
    return [_call(case, f"{where}: test {number}") for number, case in enumerate(cases)]


def _call(case: dict[str, Any], where: str) -> dict[str, Any]:
    """One JSON value a line of the input; blank lines are none."""
    lines = [line for line in case["input"].split("\n") if line.strip()]
    return {
        "args": [_json(line, f"{where}: argument {number}") for number, line in enumerate(lines)],
        "expected": _json(case["output"], f"{where}: the output"),
    }


def _cases(text: str, where: str) -> list[dict[str, Any]]:
    cases = _json(text, where)
    if not isinstance(cases, list):
        raise BadInput(f"{where} are not a JSON list; {MEND}")
    for number, case in enumerate(cases):
        wrong = not isinstance(case, dict) or "testtype" not in case
        if wrong or not all(isinstance(case.get(key), str) for key in ("input", "output")):
            raise BadInput(f"{where}: number {number} of them is not {{input, output, testtype}}; {MEND}")
    return cases


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(": line", 1)[0]
        raise BadInput(f"{where}: not JSON ({reason}): {text[:60]!r}; {MEND}") from None


def _unpacked(private: str, where: str) -> str:
    """The JSON text, which stands there as it is or packed."""
    if private.lstrip().startswith("["):  # which base64 does not have
        return private
    where = f"{where}: the private tests"
    try:
        packed = base64.b64decode(private, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(f"{where} are neither JSON nor base64; {MEND}") from None
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, LARGEST + 1)
    except zlib.error:
        raise BadInput(f"{where} are not compressed with zlib; {MEND}") from None
    if len(data) > LARGEST:
        raise BadInput(f"{where} unpack to more than {LARGEST:,} bytes; they are not read")
    if not unpacking.eof:
        raise BadInput(f"{where} are cut off; {MEND}")
    return _text_of_pickle(data, where)


def _text_of_pickle(data: bytes, where: str) -> str:
    """The one str, or bytes in UTF-8, that a pickle holds. Nothing is built and nothing is called."""
    stream = io.BytesIO(data)
    found: list[str | bytes] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _TEXT:
                found.append(argument)
            elif opcode.name not in _FRAME:
                raise BadInput(f"{where} are a pickle with {opcode.name}, where only one text may be; it is not loaded")
        if len(found) != 1 or stream.read(1):
            raise BadInput(f"{where} are a pickle of something else than one text; it is not loaded")
        text = found[0]
        return text if isinstance(text, str) else text.decode("utf-8")
    except ValueError:  # an unknown opcode, one that is cut off, bytes that are not UTF-8
        raise BadInput(f"{where} are not a pickle of a text; {MEND}") from None
