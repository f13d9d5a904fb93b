"""Files of a data set on the hub, each downloaded once, and the rows in them. No loader script is ever run."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_ssd.errors import BadInput

Row = dict[str, Any]


def from_hub(repository: str, name: str, revision: str, role: str) -> Path:
    """A file of the data set, downloaded where it is not here yet. Raises BadInput where it cannot be had."""
    return Path(_from_hub(repository, name, revision, role))


def missing_bytes(repository: str, name: str, revision: str, role: str) -> int:
    """What downloading the file would take; 0 where it is here. Downloads nothing. Raises BadInput as `from_hub`."""
    found = _from_hub(repository, name, revision, role, dry_run=True)
    return 0 if isinstance(found, str) or not found.will_download else found.file_size or 0


def _from_hub(repository: str, name: str, revision: str, role: str, dry_run: bool = False) -> Any:
    """The path; with dry_run what a download would be, where the file is not here."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = {"repo_id": repository, "filename": name, "repo_type": "dataset", "revision": revision}
    try:
        try:
            return hf_hub_download(**what, local_files_only=True)
        except LocalEntryNotFoundError:
            return hf_hub_download(**what, dry_run=dry_run)
    except Exception as error:  # whatever network and hub raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BadInput(
            f"problems.{role}: cannot get {name} of {repository} ({reason}); check the network and the revision, or "
            "give path: a local copy"
        ) from None


def rows(file: Path, role: str, columns: Mapping[str, type]) -> Iterator[tuple[str, Row]]:
    """(where, row) of a .parquet file, or of JSON: an object a line or one array of them, .gz or not.

    A row has `columns` alone, each of the type named; a list is one of texts. Raises BadInput for another.
    """
    read = _parquet if file.suffix == ".parquet" else _json
    for number, row in enumerate(read(file, role, columns), start=1):
        where = f"problems.{role}: {file.name}, row {number}"
        if not isinstance(row, dict):
            raise BadInput(f"{where}: not a JSON object")
        for name, kind in columns.items():
            if not _is(row.get(name), kind):
                known = ", ".join(columns)
                raise BadInput(f"{where}: {name} is missing or no {_NAMES[kind]}; a row has {known}")
        yield where, {name: row[name] for name in columns}


_NAMES = {str: "text", int: "whole number", list: "list of texts"}


def _is(value: object, kind: type) -> bool:
    texts = not isinstance(value, list) or all(isinstance(item, str) for item in value)
    return isinstance(value, kind) and not isinstance(value, bool) and texts


def _json(file: Path, role: str, _columns: Mapping[str, type]) -> Iterator[Any]:
    try:
        data = (gzip.decompress if file.suffix == ".gz" else bytes)(file.read_bytes())
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"problems.{role}: {file} is not a text file in UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"problems.{role}: cannot read {file} ({error}); download it again") from None
    if text.lstrip().startswith("["):
        yield from _value(text, f"problems.{role}: {file.name}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _value(line, f"problems.{role}: {file.name}, line {number}")


def _value(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: not JSON; download the file again") from None


def _parquet(file: Path, role: str, columns: Mapping[str, type]) -> list[Row]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            f"problems.{role}: {file.name} is parquet, which the package pyarrow reads; `pip install pyarrow`"
        ) from None
    try:
        table = pyarrow.parquet.ParquetFile(file)
        there = [name for name in columns if name in table.schema_arrow.names]
        return table.read(there).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"problems.{role}: cannot read {file} ({reason}); download it again") from None
