"""A run's fit, made once and kept beside its exports: it takes minutes, and verifying reads it again."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from mlx_ssd.export import quantizer
from mlx_ssd.export.quantizer import distilling, rounding
from mlx_ssd.export.source import Source
from mlx_ssd.export.texts import drawn
from mlx_ssd.records import Sample
from mlx_ssd.storage import Journal, atomic_path, hash_json
from mlx_ssd.training.arrays import write_arrays
from mlx_ssd.training.rows import TokenRow

COUNT = 384
MAX_TOKENS = 256  # of a completion: the memory of a step is bounded, and later positions teach little that is new
SETTINGS = [
    *(rounding.DAMPING, rounding.MOMENT_ROWS),
    *(distilling.STEPS, distilling.ROWS_PER_STEP, distilling.PEAK, distilling.MOST),
]


def calibration(source: Source, count: int = COUNT) -> list[TokenRow]:
    """The run's own samples, one a problem, spread over all problems; none of a problem that verify measures on."""
    measured = {text.prompt_ids for text in drawn(source)[0]}
    of: dict[str, Sample] = {}
    for sample in sorted(Journal(source.files.samples, Sample).read(), key=lambda sample: sample.key):
        if sample.completion_ids and tuple(sample.prompt_ids) not in measured:
            of.setdefault(sample.problem_id, sample)
    chosen = list(of.values())[:: max(1, len(of) // count)][:count]
    return [TokenRow(s.problem_id, s.sample_index, s.prompt_ids, s.completion_ids[:MAX_TOKENS]) for s in chosen]


def fitted(source: Source, report: Callable[[int, int], None]) -> dict[str, dict[str, mx.array]]:
    """`quantizer.fit` on the run's samples; from disk where it was made before."""
    rows = calibration(source)
    key = hash_json([source.revision, SETTINGS, [[row.prompt_ids, row.completion_ids] for row in rows]])
    path = source.files.directory / "export" / ".fitted" / f"{key[:16]}.safetensors"
    if not path.exists():
        found = quantizer.fit(source.base, source.adapter, rows, report)
        with atomic_path(path) as beside:
            write_arrays(beside, {f"{name}.{part}": a for name, arrays in found.items() for part, a in arrays.items()})
    modules: dict[str, dict[str, mx.array]] = {}
    for name, array in mx.load(str(path)).items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = array
    return modules
