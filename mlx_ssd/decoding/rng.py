"""Counter-based randomness: a token's uniform is a pure function of its sample's key and its position.

There is no state: a sample does not depend on batch mates, batch size, order or restart. A few uint32
operations, the same bits in numpy, MLX and torch.
"""

import hashlib
import json
import operator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np


def sample_key(seed: int, stream: str, problem_id: str, sample_index: int) -> tuple[int, int]:
    """64 bits for one sample, as two uint32. `stream` keeps uses apart: 'train/round-1', 'eval'."""
    fields = [operator.index(seed), str(stream), str(problem_id), operator.index(sample_index)]
    # JSON because it is unambiguous: no two lists of fields have the same text.
    digest = hashlib.blake2b(json.dumps(fields).encode(), digest_size=8, person=b"mlx-ssd draw").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def uniform_u32(key: tuple[Any, Any], position: Any, xp: ModuleType = np) -> Any:
    """Uniform uint32, one a draw: the same bits from `xp` numpy and mlx.core.

    key: two uint32 numbers or arrays; position: number or array; all broadcast together. The position goes in
    first and every word of the key after it, so all 64 bits of the key count; hashing the key first would
    leave 32, and some two of 80,000 samples would probably share all their draws.
    """
    u32 = partial(xp.array, dtype=xp.uint32)  # numpy 1 would widen a lone number that meets a Python integer

    def finalise(mixed: Any) -> Any:
        """MurmurHash3's: an input bit flips each output bit with probability near 1/2."""
        mixed = (mixed ^ (mixed >> u32(16))) * u32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> u32(13))) * u32(0xC2B2AE35)
        return mixed ^ (mixed >> u32(16))

    with np.errstate(over="ignore"):  # numpy warns when a lone number wraps around
        mixed = u32(position)
        for word in (key[0], key[1], key[0]):
            mixed = finalise((mixed + u32(word)) * u32(0x9E3779B1) + u32(0x9E3779B9))
    return mixed
