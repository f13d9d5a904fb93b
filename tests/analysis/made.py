"""Texts and parts with numbers that are chosen, not computed by a model."""

import numpy as np

from mlx_ssd.analysis import store
from mlx_ssd.analysis.store import COLUMNS, LABEL_SUMS, SUMS, Text


def text(problem, tokens, index=0):
    return Text(problem_id=problem, sample_index=index, prompt_ids=[1, 2], completion_ids=list(range(3, 3 + tokens)))


def columns(first, lengths, seed=0, **chosen):
    """A part's arrays: of chosen columns a value or an array each, the others at random."""
    rng, tokens = np.random.default_rng(seed), sum(lengths)
    found = {name: rng.uniform(size=(tokens, *shape)).astype(dtype) for name, (dtype, shape) in COLUMNS.items()}
    for formats in (SUMS, LABEL_SUMS):
        found |= {name: np.ones((len(lengths), *shape), dtype) for name, (dtype, shape) in formats.items()}
    found["text"] = np.repeat(np.arange(first, first + len(lengths)), lengths)
    found["position"] = np.concatenate([np.arange(length) for length in lengths])
    found["text.index"], found["text.tokens"] = np.arange(first, first + len(lengths)), np.array(lengths)
    for name, value in chosen.items():
        name = name.replace("__", ".")
        found[name] = np.broadcast_to(value, found[name].shape).astype(found[name].dtype)
    return found


def top(first, second):
    """base.top_probabilities [n, TOP] of given first and second ones."""
    found = np.zeros((len(first), store.TOP), np.float32)
    found[:, 0], found[:, 1] = first, second
    return found
