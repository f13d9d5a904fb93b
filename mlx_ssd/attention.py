"""The way into the attention of mlx-lm's models, for those that hold keys and values otherwise than mlx-lm does.

Each of its model files has `scaled_dot_product_attention` under its own name, and that is what it calls: there is no
other way in that leaves the model's code alone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import mlx.core as mx
from mlx_lm.models import base

# (queries, keys, values, cache, scale, mask, sinks=None), as mlx-lm's models call it
plain_attention = base.scaled_dot_product_attention


@contextlib.contextmanager
def attention_through(function: Callable[..., mx.array]) -> Iterator[None]:
    """Within it, all of mlx-lm's models that are loaded attend through `function`."""
    name = plain_attention.__name__
    modules = [
        module
        for path, module in list(sys.modules.items())
        if path.startswith("mlx_lm.models.") and getattr(module, name, None) is plain_attention
    ]
    for module in modules:
        setattr(module, name, function)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, name, plain_attention)
