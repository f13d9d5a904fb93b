"""Imported once by the process that `faults.Forked` copies: what is slow to import. It computes nothing itself, for
threads are not copied."""

from mlx_ssd import models

models.without_pytorch()

import mlx_lm  # noqa: E402, F401

import mlx_ssd.sampling.engine  # noqa: E402, F401
import tests.distributed.ranks  # noqa: E402, F401
import tests.distributed.training_ranks  # noqa: E402, F401
import tests.sampling.drawing  # noqa: E402, F401
import tests.suites.grading_child  # noqa: E402, F401
import tests.training.train_child  # noqa: E402, F401
