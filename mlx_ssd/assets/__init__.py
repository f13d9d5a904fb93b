"""The files of the embedded model and its problems; how they were made: benchmarks/embedded_model."""

from pathlib import Path

from mlx_ssd.errors import BadInput

SPLITS = ("train", "validation", "test")

_HERE = Path(__file__).resolve().parent


def model_path() -> Path:
    """The folder of the embedded model, in Hugging Face layout."""
    return _HERE / "model"


def problems_path(split: str) -> Path:
    """The JSONL file of one split; raises BadInput for a name that is none of SPLITS."""
    if split not in SPLITS:
        raise BadInput(f"the embedded problems have no split {split!r}: choose one of {', '.join(SPLITS)}")
    return _HERE / "problems" / f"{split}.jsonl"
