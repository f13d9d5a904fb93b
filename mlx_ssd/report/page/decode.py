"""From a token's id to the text that it stands for.

A token may be only a part of a character: it is shown as its bytes, ⟨e2⟩⟨80⟩. The pieces of a text are therefore not
always the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's way to write a byte


class Pieces:
    """Texts of the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._added = {int(token): str(added) for token, added in tokenizer.added_tokens_decoder.items()}
        self._size = max(len(tokenizer), *self._added, 0)

    def of(self, ids: Iterable[int]) -> list[str]:
        wanted = list(ids)
        known = [token for token in wanted if 0 <= token < self._size and token not in self._added]
        # At once: a call each would cost more than all the rest.
        names = dict(zip(known, self._tokenizer.convert_ids_to_tokens(known), strict=True)) if known else {}
        return [self._piece(token, names.get(token)) for token in wanted]

    def is_special(self, token: int) -> bool:
        """A control or an added token, whose text the model did not write letter by letter."""
        return token in self._added

    def _piece(self, token: int, name: str | None) -> str:
        if token in self._added:
            return self._added[token]
        if name is None:
            return f"⟨no token {token}⟩"
        return text_of(self._bytes(name))

    def _bytes(self, name: str) -> bytes:
        if self._byte_level:
            table = byte_of_character()
            return b"".join(table[c].to_bytes() if c in table else c.encode("utf-8", "replace") for c in name)
        if match := _BYTE.fullmatch(name):
            return bytes.fromhex(match[1])
        return name.replace("▁", " ").encode("utf-8", "replace")

    @property
    def _byte_level(self) -> bool:
        if not hasattr(self, "_is_byte_level"):
            decoder = getattr(getattr(self._tokenizer, "backend_tokenizer", None), "decoder", None)
            self._is_byte_level = "ByteLevel" in repr(decoder) or hasattr(self._tokenizer, "byte_decoder")
        return self._is_byte_level


def text_of(data: bytes) -> str:
    """UTF-8 where it is; each other byte as ⟨e2⟩."""
    found, rest = [], data
    while rest:
        try:
            found.append(rest.decode("utf-8"))
            break
        except UnicodeDecodeError as error:
            found.append(rest[: error.start].decode("utf-8"))
            found += [f"⟨{byte:02x}⟩" for byte in rest[error.start : error.end]]
            rest = rest[error.end :]
    return "".join(found)


@cache
def byte_of_character() -> dict[str, int]:
    """The letters by which a byte-level BPE writes bytes (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
