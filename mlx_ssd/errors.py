"""The ways in which mlx-ssd gives up, each with one sentence for the user.

Exit codes: 0 done, 1 the work failed (`WorkFailed`), 2 bad input (`BadInput`), 130 interrupted.
"""


class SsdError(Exception):
    """A failure that the user is told in one sentence: what, where, how to mend."""

    exit_code = 1


class WorkFailed(SsdError):
    """The work itself failed, for example a loss that is not finite."""

    exit_code = 1


class BadInput(SsdError):
    """Something handed to mlx-ssd is wrong: a recipe, a model, a file, a full disk."""

    exit_code = 2


class OutOfMemory(WorkFailed):
    """There was not enough memory: with a smaller budget it may do."""


class RankLost(WorkFailed):
    """One of several machines that train together is gone: what is left goes on from the last checkpoint."""

    exit_code = 75  # EX_TEMPFAIL


class Interrupted(SsdError):
    """The user said stop: all is kept."""

    exit_code = 130


# As MLX, C++, Metal, CUDA and the dynamic linker put it.
OF_MEMORY = (
    "unable to allocate", "attempting to allocate", "bad_alloc", "insufficient memory", "out of memory",
    "cannot allocate memory", "failed to map segment",
)  # fmt: skip


def is_of_memory(error: Exception) -> bool:
    """Whether what was raised means that memory ran out."""
    return isinstance(error, (MemoryError, OutOfMemory)) or any(words in str(error).lower() for words in OF_MEMORY)
