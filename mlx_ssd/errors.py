"""The two ways in which mlx-ssd gives up, each with one sentence for the user.

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
