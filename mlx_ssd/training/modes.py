"""A model's mode: with dropout in training, without it wherever it is measured."""

import contextlib
from collections.abc import Iterator

import mlx.nn as nn


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Within it, the model is in evaluation mode, and draws no random numbers; afterwards it is as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
