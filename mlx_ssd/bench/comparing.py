"""Ratios of configurations that took turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlx_ssd import statistics
from mlx_ssd.bench.measuring import Row

RATES = {"ttft_s": "time to first token", "prompt_tps": "prompt tok/s", "decode_tps": "decode tok/s"}
SIDE = ("model", "revision", "adapter", "bits", "prompt_tokens", "generated_tokens", "batch")
BYTES = {"mlx_peak_bytes": "MLX peak", "footprint_peak_bytes": "process peak", "kv_bytes": "KV bytes"}


def ratios(first: Row, other: Row) -> dict[str, dict[str, float]]:
    """other / first by quantity. Of what was measured each round: the geometric mean of the rounds' own ratios, with
    the 95 % interval of a bootstrap over rounds; of memory one ratio."""
    found = {}
    for name in RATES:
        if interval := ratio(first["series"][name], other["series"][name]):
            found[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return found | {name: {"mean": other[name] / first[name]} for name in BYTES if name in first and name in other}


def ratio(a: Sequence[float], b: Sequence[float]) -> statistics.Interval | None:
    """b / a, round by round; None with fewer than two rounds."""
    found = statistics.bootstrap_mean(np.log(np.array(b) / np.array(a)))
    return found and statistics.Interval(*(float(np.exp(value)) for value in (found.mean, found.low, found.high)))


def comparison(first: Row, other: Row) -> dict[str, Any]:
    sides = {"baseline": side(first), "other": side(other)}
    return {"v": 1, **sides, "rounds": first["repetitions"], "ratios": ratios(first, other)}


def side(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in SIDE}


def columns(comparisons: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """A row a comparison, with its interval; what the baseline is stands in `baseline`. Columns that are empty are left
    out."""
    found = {name: [str(of["other"][name]) for of in comparisons] for name in ("model", "bits", "adapter")}
    found["test"] = [test_of(of["other"]) for of in comparisons]
    for name, words in (RATES | BYTES).items():
        found[words] = [_cell(of["ratios"].get(name)) for of in comparisons]
    return {name: cells for name, cells in found.items() if any(cells)}


def heading(comparison: dict[str, Any]) -> str:
    of = comparison["baseline"]
    what = f"{of['model']}, {of['bits']} bit, adapter {of['adapter']}, {test_of(of)}"
    return f"Ratios to {what}; {comparison['rounds']} rounds in turns, 95 % intervals by a bootstrap over rounds:"


def test_of(of: dict[str, Any]) -> str:
    batch = f" x {of['batch']}" if of["batch"] > 1 else ""
    return f"pp{of['prompt_tokens']}+tg{of['generated_tokens']}{batch}"


def _cell(of: dict[str, float] | None) -> str:
    if not of:
        return ""
    return f"{of['mean']:.3f}" + (f" [{of['low']:.3f}, {of['high']:.3f}]" if "low" in of else "")
