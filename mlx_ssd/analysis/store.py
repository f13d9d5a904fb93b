"""What the analysis leaves on disk (docs/formats.md): the texts, and per arm their tokens in parts.

    FOLDER/texts.jsonl                    one Text a line; its number, from 0, is the `text` of a token
    FOLDER/ARM/part-00000.safetensors     columns of the analysed tokens of consecutive texts
    FOLDER/ARM/analysis.json              their summary

A part holds some thousands of tokens. Whoever reads takes one at a time, so memory does not grow with the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlx_ssd.errors import BadInput
from mlx_ssd.records import Record
from mlx_ssd.storage import Journal, atomic_path, read_json, write_json, write_records

VERSION = 1
SIDES = ("base", "student")
LABELS = ("lock", "between", "fork")  # the order of the label axis
TOP = 10  # likeliest tokens kept of each side
RANKS = 60  # of the mean cumulative mass by rank
TEMPERATURES = tuple(round(0.2 * step, 1) for step in range(2, 11))  # 0.4, 0.6, ..., 2.0

# Columns of a part: name -> (dtype, shape after the first axis). The first axis is tokens, n.
_OF_SIDE = {
    # On S_s, the support of q_s: the base's tokens under the arm's sampling policy. Nats, T = 1.
    "kept_mass": (np.float32, ()),  # of S_s, a fraction
    "entropy": (np.float32, ()),  # of the whole vocabulary; = gate + head + tail (Eq. 30)
    "gate": (np.float32, ()),  # h2(kept mass)
    "head": (np.float32, ()),  # kept mass * entropy within S_s
    "tail": (np.float32, ()),  # (1 - kept mass) * entropy outside
    "loss": (np.float32, ()),  # cross-entropy to q_s; = compression + conditional
    "compression": (np.float32, ()),  # -log kept mass
    "conditional": (np.float32, ()),  # cross-entropy to q_s within S_s; = reshaping + anchor + target_entropy
    "reshaping": (np.float32, ()),  # (1 - T) H_{1/T} within S_s
    "anchor": (np.float32, ()),  # T KL(q_s || the distribution within S_s, tempered)
    # Of the token that the text has there, T = 1, whole vocabulary.
    "rank": (np.int32, ()),  # from 0; ties go to the lower id
    "probability": (np.float32, ()),
    "surviving": (np.int32, ()),  # tokens that the evaluation policy leaves
    "top_ids": (np.int32, (TOP,)),
    "top_probabilities": (np.float32, (TOP,)),  # T = 1, descending
}
COLUMNS: dict[str, tuple[type, tuple[int, ...]]] = {
    "text": (np.int32, ()),  # line of texts.jsonl, from 0
    "position": (np.int32, ()),  # in the completion, from 0
    "token": (np.int32, ()),
    "support": (np.int32, ()),  # |S_s|
    "target_entropy": (np.float32, ()),  # T H(q_s), the loss's constant
    # Prop. B.3, logs: ideal = compression + reshaping, of the base's likeliest token; student is the trained one's.
    "gain.compression": (np.float32, ()),
    "gain.reshaping": (np.float32, ()),
    "gain.ideal": (np.float32, ()),
    "gain.student": (np.float32, ()),
    **{f"{side}.{name}": kind for side in SIDES for name, kind in _OF_SIDE.items()},
}
# Sums over the tokens of a text; the first axis is the part's texts.
SUMS: dict[str, tuple[type, tuple[int, ...]]] = {
    "text.index": (np.int32, ()),
    "text.tokens": (np.int32, ()),
    **{f"{side}.mass_by_rank": (np.float32, (RANKS,)) for side in SIDES},  # of the r likeliest, T = 1
    # After the evaluation's top-k and top-p at every temperature of TEMPERATURES.
    **{f"{side}.surviving_by_temperature": (np.float32, (len(TEMPERATURES),)) for side in SIDES},
    **{f"{side}.entropy_by_temperature": (np.float32, (len(TEMPERATURES),)) for side in SIDES},
}
# The same over the tokens of each label, in the order of LABELS. A part need not have them.
LABEL_SUMS: dict[str, tuple[type, tuple[int, ...]]] = {
    f"{side}.{name}_by_temperature_and_label": (np.float32, (len(LABELS), len(TEMPERATURES)))
    for side in SIDES
    for name in ("surviving", "entropy")
}


class Text(Record):
    """A text whose completion tokens are analysed."""

    problem_id: str
    sample_index: int
    prompt_ids: list[int]
    completion_ids: list[int]
    finish_reason: Literal["stop", "length", "loop"] | None = None
    verdict: str | None = None
    difficulty: str | None = None


@dataclass(frozen=True)
class Part:
    """The tokens of the texts first_text, first_text + 1, ..., in order."""

    first_text: int
    texts: int
    columns: Mapping[str, np.ndarray]  # COLUMNS, SUMS and perhaps LABEL_SUMS, by name

    @property
    def tokens(self) -> int:
        return len(self.columns["token"])


def texts(folder: Path) -> list[Text]:
    """Raises BadInput where there is no analysis."""
    if not texts_file(folder).is_file():
        raise BadInput(f"{folder} holds no analysis; make one with mlx-ssd analyze")
    return Journal(texts_file(folder), Text).read()


def write_texts(folder: Path, found: list[Text]) -> None:
    write_records(texts_file(folder), found)


def arms(folder: Path) -> list[str]:
    """The arms that have a summary, by name; the main student first."""
    names = sorted(file.parent.name for file in folder.glob("*/analysis.json"))
    return sorted(names, key=lambda name: name != "student")


def summary(folder: Path, arm: str) -> dict[str, Any]:
    found = read_json(summary_file(folder, arm))
    if not isinstance(found, dict) or found.get("v") != VERSION:
        raise BadInput(f"{summary_file(folder, arm)} is not an analysis of this version; analyse again")
    return found


def write_summary(folder: Path, arm: str, found: Mapping[str, Any]) -> None:
    write_json(summary_file(folder, arm), {"v": VERSION, **found})


def parts(folder: Path, arm: str) -> Iterator[Part]:
    """One part at a time, in the order of the texts."""
    for file in part_files(folder, arm):
        yield read_part(file)


def part_files(folder: Path, arm: str) -> list[Path]:
    return sorted((folder / arm).glob("part-*.safetensors"))


def part_file(folder: Path, arm: str, number: int) -> Path:
    return folder / arm / f"part-{number:05}.safetensors"


def texts_file(folder: Path) -> Path:
    return folder / "texts.jsonl"


def summary_file(folder: Path, arm: str) -> Path:
    return folder / arm / "analysis.json"


def write_part(
    file: Path, first_text: int, count: int, columns: Mapping[str, np.ndarray], identity: str = ""
) -> None:
    """Write a part, whole or not at all. `identity` is a hash of all that its numbers depend on.

    Raises ValueError where a column is missing, not of the format, or of another length than its like.
    """
    from safetensors.numpy import save_file

    checked = _checked(columns, count)
    about = {"v": str(VERSION), "first_text": str(first_text), "texts": str(count), "identity": identity}
    with atomic_path(file) as beside:
        save_file(checked, beside, metadata=about)


def read_part(file: Path) -> Part:
    """Raises BadInput where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    about = _about(file)
    try:
        columns = load_file(file)
        count = int(about["texts"])
        return Part(int(about["first_text"]), count, _checked(columns, count))
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise _damaged(file, error) from None


def is_whole(file: Path, first_text: int, count: int, identity: str) -> bool:
    """Whether this very part is there already: a part is renamed into place only when it is whole."""
    if not file.exists():
        return False
    try:
        about = _about(file)
    except BadInput:
        return False
    wanted = {"v": str(VERSION), "first_text": str(first_text), "texts": str(count), "identity": identity}
    return all(about.get(name) == value for name, value in wanted.items())


def _about(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> BadInput:
    return BadInput(f"{file} is damaged ({error}); delete it and analyse again")


def _checked(columns: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The columns in the format's types. Raises ValueError, naming the column."""
    formats = {**COLUMNS, **SUMS, **LABEL_SUMS}
    if strange := sorted(columns.keys() - formats.keys()):
        raise ValueError(f"unknown column {strange[0]}")
    if missing := [name for name in (*COLUMNS, *SUMS) if name not in columns]:
        raise ValueError(f"no column {missing[0]}")
    tokens, checked = len(columns["token"]), {}
    for name, values in columns.items():
        dtype, shape = formats[name]
        rows = tokens if name in COLUMNS else count
        if np.shape(values) != (rows, *shape):
            raise ValueError(f"column {name} has shape {list(np.shape(values))}, not {[rows, *shape]}")
        checked[name] = np.ascontiguousarray(values, dtype=dtype)
    return checked
