"""A test set that is one small file at the hub: HumanEval, MBPP, GSM8K. Each has a module that says what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_ssd.errors import BadInput
from mlx_ssd.problems import hub_files
from mlx_ssd.records import Problem
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import hash_path


@dataclass(frozen=True)
class Suite:
    title: str
    repository: str
    revision: str  # commit; without one in the recipe
    file: str
    copies: tuple[str, ...]  # names under which its authors gave it out, for a folder given as path
    columns: dict[str, type]
    problems: int  # that its authors have
    problem: Callable[[hub_files.Row, int, str], Problem | None]
    """(row, its number from 0, where it stands) -> a problem; None: of another split. BadInput for a malformed row."""

    def identity(self, source: ProblemSource, role: str) -> str:
        """`REPOSITORY@COMMIT`, or a hash of a local copy's contents."""
        if source.path is None:
            return f"{self.repository}@{source.revision or self.revision}"
        return hash_path(self._local_file(source.path, role))

    def download_bytes(self, source: ProblemSource, role: str) -> int:
        """Bytes that are not on this disk yet. Downloads nothing."""
        if source.path is not None:
            return 0
        return hub_files.missing_bytes(self.repository, self.file, source.revision or self.revision, role)

    def select(self, source: ProblemSource, role: str) -> tuple[list[Problem], dict[str, int | str]]:
        """`source.limit` problems after the first `source.skip`, in the order of the file, and the account of all rows.

        The account has a `note`, one sentence, where the set is not as large as its authors'. Raises BadInput for data
        that is missing or malformed, or where no problem is left.
        """
        if source.path is not None:
            file = self._local_file(source.path, role)
        else:
            file = hub_files.from_hub(self.repository, self.file, source.revision or self.revision, role)
        count: Counter[str] = Counter()
        found: dict[str, Problem] = {}
        for number, (where, row) in enumerate(hub_files.rows(file, role, self.columns)):
            count["rows"] += 1
            problem = self.problem(row, number, where)
            if problem is None:
                count["other_split"] += 1
                continue
            if problem.id in found:
                raise BadInput(f"{where}: problem {problem.id!r} is there twice; download the file again")
            found[problem.id] = problem
        everything = list(found.values())
        problems = everything[source.skip :][: source.limit]
        if not problems:
            raise BadInput(f"problems.{role}: skip {source.skip} leaves none of {len(everything)} problems; lower it")
        account: dict[str, int | str] = {
            "source": source.source,
            "rows": count["rows"],
            "other_split": count["other_split"],
            "skipped": source.skip,
            "beyond_limit": len(everything) - source.skip - len(problems),
            "kept": len(problems),
        }
        if len(everything) != self.problems:
            account["note"] = (
                f"{self.title}: {len(everything)} problems were found where its authors have {self.problems}, "
                "so scores are not those of their set"
            )
        return problems, account

    def _local_file(self, given: str, role: str) -> Path:
        path = Path(given).expanduser()
        names = (self.file, Path(self.file).name, *self.copies)
        for file in [path] if path.is_file() else [path / name for name in names]:
            if file.is_file():
                return file
        raise BadInput(
            f"problems.{role}.path: {path} is neither a file of {self.repository} nor a folder with "
            f"{' or '.join(dict.fromkeys(Path(name).name for name in names))}"
        )
