"""coremltools, without what it says of things that no export needs. Everything else that it says is heard."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

# Apple's runtime is not in the Linux wheel; k-means is not used; newer versions of torch are tested here; and a state
# that is written in every layer is "added again" in each.
NOISE = ("scikit-learn version", "Torch version", "Torch var")
NO_RUNTIME = "Failed to load _ML"


class Noise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not message.startswith(NOISE) and not (message.startswith(NO_RUNTIME) and sys.platform != "darwin")


@functools.cache
def coremltools() -> Any:
    """The module. Its own logger is filtered before it is imported: most of the noise is made then."""
    logging.getLogger("coremltools").addFilter(Noise())
    import coremltools

    return coremltools


@contextmanager
def no_bars() -> Iterator[None]:
    """Without coremltools' own progress bars, one a pass over the program."""
    import tqdm

    silent = functools.partialmethod(tqdm.tqdm.__init__, disable=True)
    with mock.patch.object(tqdm.tqdm, "__init__", silent):
        yield
