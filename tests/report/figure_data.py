"""What the figures are tested with: a quickstart's report.json and training logs, cut down, and invented data of what
that run does not have. The invented numbers are plausible and say nothing about any model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

QUICKSTART = Path(__file__).parent / "data" / "quickstart.json"
GRID = [round(0.4 + 0.2 * i, 1) for i in range(9)]


def quickstart() -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """(report.json, the training logs) of `mlx-ssd run quickstart`; of the logs every fifth step."""
    held = json.loads(QUICKSTART.read_text())
    return held["report"], held["log"]


def analysis(arm: str = "student", gain: float = 0.5) -> dict[str, Any]:
    """An analysis.json. gain: the share of the tail mass that the student has lost."""
    ranks = np.arange(1, 61)
    shares, sizes = {"lock": 0.72, "between": 0.17, "fork": 0.11}, {"lock": 0.004, "between": 0.06, "fork": 0.11}
    heads = {"lock": 0.03, "between": 0.5, "fork": 1.1}
    labels = {}
    for label, tail in sizes.items():
        base = _means(tail, heads[label], 1.3 + 2 * heads[label])
        student = _means(tail * (1 - gain), heads[label] * 1.04, 1.3 + 2.2 * heads[label])
        difference = {
            name: {"mean": student[name] - base[name], "low": student[name] - base[name] - 0.1 * abs(base[name]),
                   "high": student[name] - base[name] + 0.1 * abs(base[name])}
            for name in base
        }  # fmt: skip
        tokens = int(9400 * shares[label])
        labels[label] = {
            "tokens": tokens, "share": shares[label], "base": base, "student": student, "difference": difference
        }  # fmt: skip
    rests = {"base": 0.12 * ranks**-1.1, "student": 0.09 * ranks**-1.5}
    return {
        "v": 1,
        "arm": arm,
        "texts": {"source": "the base's answers to the test problems, decoded at t0.9-k20-p0.8", "sha": "0" * 64,
                  "texts": 200, "problems": 200, "tokens": 9400},
        "rule": {"name": "probability", "lock_top1": 0.9, "fork_second": 0.1,
                 "words": "lock: the likeliest token has at least 0.9; fork: the second has at least 0.1"},
        "labels": labels,
        "mass_by_rank": {side: (1 - rest).tolist() for side, rest in rests.items()},
        "temperatures": GRID,
        "surviving": {"base": [1 + 0.15 * t**2 for t in GRID], "student": [1 + 0.15 * t**2 * (1 + gain) for t in GRID]},
        "surviving_by_label": {
            label: {"base": [1 + size * t**2 for t in GRID], "student": [1 + size * t**2 * (1 + gain) for t in GRID]}
            for label, size in sizes.items()
        },
        "entropy_by_label": {
            label: {"base": [size * t for t in GRID], "student": [size * t * (1 + gain) for t in GRID]}
            for label, size in heads.items()
        },
        "entropy": {"base": [0.05 + 0.1 * t for t in GRID], "student": [0.05 + 0.1 * t * (1 + gain) for t in GRID]},
    }  # fmt: skip


def _means(tail: float, head: float, surviving: float) -> dict[str, float]:
    kept = 1 - tail
    gate = -kept * np.log(kept) - tail * np.log(tail)
    parts = {"gate": float(gate), "head": kept * head, "tail": tail * 2.5}
    return {
        "kept_mass": kept, "tail_mass": tail, "entropy": sum(parts.values()), **parts, "surviving": surviving,
        "loss": parts["head"] + tail, "top1": 0.97 - head / 3, "probability": 0.95 - head / 4,
    }  # fmt: skip


def frontier() -> dict[str, Any]:
    def line(name: str, role: str, mean: float, megabytes: float, rate: float, decoding: str) -> dict[str, Any]:
        speed = {"mlx_peak_bytes": megabytes * 1e6, "decode_tps": {"mean": rate, "std": rate / 50}}
        of = {"mean": mean, "low": mean - 0.05, "high": mean + 0.04}
        return {"name": name, "role": role, "decoding": decoding, "pass_at_1": of, "speed": speed}

    lines = [
        line("base", "base", 0.644, 11.0, 1410.0, "t0.9-k20-p0.8"),
        line("base-best", "base", 0.631, 11.0, 1410.0, "t1.35-k20-p0.8"),
        line("student", "student", 0.681, 11.2, 1395.0, "t0.9-k20-p0.8"),
        line("larger/model", "larger", 0.79, 31.0, 402.0, "t0.9-k20-p0.8"),
        line("larger/model", "larger", 0.77, 31.0, 402.0, "t1.35-k20-p0.8"),
    ]
    return {"v": 1, "run": "quickstart", "problems": 200, "samples_per_problem": 8, "lines": lines, "comparisons": []}


def rounds() -> list[dict[str, Any]]:
    return [
        {"round": number, "arm": arm, "pass_at": {"1": {"mean": mean, "low": mean - 0.05, "high": mean + 0.04}}}
        for arm, means in (("student", (0.6, 0.66, 0.68)), ("tokens", (0.6, 0.63, 0.62)))
        for number, mean in enumerate(means)
    ]


def toy() -> dict[str, Any]:
    temperatures = [round(0.3 + 0.03 * i, 3) for i in range(100)]
    curves = {
        side: [best * float(np.exp(-(np.log(t / at) ** 2) / wide)) for t in temperatures]
        for side, best, at, wide in (("teacher", 0.0833, 0.639, 0.3), ("student", 0.1377, 2.091, 0.9))
    }
    bars = {
        "lock": {"teacher": [0.75, 0.055, 0.05, 0.037, 0.02], "student": [0.948, 0.052]},
        "fork": {"teacher": [0.28, 0.148, 0.144, 0.14, 0.1], "student": [0.344, 0.169, 0.163, 0.162, 0.162]},
        "root": {"teacher": [0.329, 0.2, 0.19, 0.126, 0.06], "student": [0.406, 0.22, 0.21, 0.164]},
    }
    best = {"teacher": (0.639, 0.0833), "student": (2.091, 0.1377)}
    return {
        **{side: {"T": temperatures, "success": curves[side], "best_T": best[side][0], "best": best[side][1]}
           for side in curves},
        "bars": bars,
        "decoded": {state: {side: values[::-1] for side, values in of.items()} for state, of in bars.items()},
        "gaps": {"0.8": 0.0544, "0.65": 0.0396, "0.7": 0.0308, "0.75": 0.0418, "0.85": 0.0203, "0.9": 0.0135},
    }  # fmt: skip


def validated_log() -> list[dict[str, Any]]:
    """A log with held-out losses, a step that was skipped and one whose validation was not finite."""
    found: list[dict[str, Any]] = [{"step": 0, "validation": {"loss": 1.25}}]
    for step in range(1, 41):
        entry: dict[str, Any] = {"step": step, "loss": 1.2 - 0.01 * step, "loss_kept_mass": 0.2 - 0.004 * step}
        entry["loss_conditional"] = entry["loss"] - entry["loss_kept_mass"]
        if step % 10 == 0:
            entry["validation"] = {"loss": 1.0 + (step - 30) ** 2 / 4000} if step != 20 else {}
        found.append(entry)
    found[5] = {"step": 5, "skipped": "gradient"}
    return found
