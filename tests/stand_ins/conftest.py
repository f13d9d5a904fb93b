"""The stand-in models, each built once. Where a registry cannot be reached the tests that need it are skipped with
its name; MLX_SSD_STAND_INS=required, as in continuous integration, makes that a failure."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.stand_ins.__main__ import BUILDERS
from benchmarks.stand_ins.fetch import Unreachable


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory) -> Callable[[str], Path]:
    """`stand_in("qwen3")` is the folder of that model."""
    folder = tmp_path_factory.mktemp("stand-ins")
    missing: dict[str, str] = {}
    required = os.environ.get("MLX_SSD_STAND_INS") == "required"

    def build(name: str) -> Path:
        if name == "smollm2" and not required:
            pytest.importorskip("gguf", reason="smollm2 is read from GGUF: pip install -e '.[stand-ins]'")
        out = folder / name
        if not out.exists() and name not in missing:
            try:
                BUILDERS[name](out)
            except Unreachable as error:
                if required:
                    raise
                missing[name] = str(error)
        if name in missing:
            pytest.skip(missing[name])
        return out

    return build
