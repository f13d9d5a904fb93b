"""How values travel out of a sandbox: JSON with tags, which keeps Python's exact types and no object's methods.

`encode` runs beside the untrusted program, in an interpreter that has not imported mlx_ssd: its code is sent along,
so this module imports no more than it must. `decode` runs in the grader and trusts nothing it reads.

    {"dict": [[key, value], …]}   {"tuple": […]}   {"set": […]}   {"frozenset": […]}
    {"complex": [real, imaginary]}   {"bytes": hexadecimal}   {"int": hexadecimal}, too long for decimal digits
"""

from _json import encode_basestring_ascii  # `json` imports re: milliseconds of every start

# A value of a subclass (Counter, OrderedDict, a named tuple) is seen as its base type has it.
_BASES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


class NotCarried(Exception):
    """A value of a type that cannot be sent; str() of it names the type."""


def encode(value: object) -> str:
    """`value` as text. Raises NotCarried for objects, functions, generators and the like."""
    if value is None:
        return "null"
    kind = next((base for base in _BASES if issubclass(type(value), base)), None)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return int.__repr__(value) if int.bit_length(value) < 10_000 else '{"int": "%s"}' % int.__format__(value, "x")
    if kind is float:
        spelled = float.__repr__(value)
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(spelled, spelled)
    if kind is complex:
        return '{"complex": [%s, %s]}' % (encode(complex.real.__get__(value)), encode(complex.imag.__get__(value)))
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is bytes:
        return '{"bytes": "%s"}' % bytes.hex(value)
    if kind is dict:
        return '{"dict": [%s]}' % ",".join([f"[{encode(key)},{encode(item)}]" for key, item in dict.items(value)])
    if kind is None:
        raise NotCarried(f"a value of type {type(value).__name__}")
    items = "[" + ",".join([encode(item) for item in kind.__iter__(value)]) + "]"
    return items if kind is list else '{"%s": %s}' % (kind.__name__, items)


def decode(text: str | bytes) -> object:
    """What `encode` was given. Raises ValueError, TypeError or RecursionError for text that it cannot have written."""
    import json

    return json.loads(text, object_pairs_hook=_untagged)


def _untagged(pairs: list) -> object:
    """An object of the wire; one without a known tag (the frame of a message) is a dict of strings."""
    tag, value = pairs[0] if len(pairs) == 1 else ("", None)
    if tag == "dict":
        return dict(zip(_hashed([key for key, _ in value]), [item for _, item in value], strict=True))
    if tag == "tuple":
        return tuple(value)
    if tag in ("set", "frozenset"):
        return (set if tag == "set" else frozenset)(_hashed(value))
    if tag == "complex":
        return complex(*value)
    if tag == "bytes":
        return bytes.fromhex(value)
    if tag == "int":
        return int(value, 16)
    return dict(pairs)


_HASHES_SHARED = 100


def _hashed(keys: list) -> list:
    """`keys`, unless they were made to share their hashes: a dict of them would take for ever to build."""
    from collections import Counter

    if len(keys) > _HASHES_SHARED and max(Counter(map(hash, keys)).values()) > _HASHES_SHARED:
        raise ValueError("too many keys with the same hash")
    return keys
