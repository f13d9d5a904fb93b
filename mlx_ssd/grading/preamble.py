"""What a judge has at hand before a program begins: imports and helper functions, put in front of it."""

import re

_FUTURE = re.compile(r"^from __future__ import [^\n(]*(?:\([^)]*\)[^\n]*)?$", re.MULTILINE)


def with_preamble(code: str | None, preamble: str | None) -> str | None:
    """`code` behind `preamble`, one line or several, and behind what must come first: imports from __future__.

    Lines that an error names count the preamble. Nothing is parsed: `code` is not trusted.
    """
    if code is None or not preamble:
        return code
    futures = list(_FUTURE.finditer(code))
    at = futures[-1].end() + 1 if futures else 0
    before = code[:at] if not code[:at] or code[:at].endswith("\n") else code[:at] + "\n"
    return f"{before}{preamble}\n{code[at:]}"
