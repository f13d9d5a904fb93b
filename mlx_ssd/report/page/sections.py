"""Tables of what stands beside the scores: what changed inside, exports, parity, speed, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_ssd.progress import duration

Table = tuple[list[str], list[list[str]]]

# METRIC of an analysis -> words, and what it is multiplied by.
INSIDE = {
    "tail_mass": ("mass outside the kept set, %", 100.0),
    "top1": ("probability of the likeliest token, %", 100.0),
    "surviving": ("tokens left by the evaluation decoding", 1.0),
    "head": ("entropy inside the kept set, nats", 1.0),
    "tail": ("entropy outside it, nats", 1.0),
    "probability": ("probability of the text's token, %", 100.0),
}
LABELS = {"lock": "Locks", "between": "Between", "fork": "Forks", "all": "All tokens"}


def inside_tables(analysis: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """(title, before and after) of each label of analysis.json that has tokens."""
    of = {**analysis.get("labels", {}), "all": analysis.get("all", {})}
    found = []
    for label, words in LABELS.items():
        if not (facts := of.get(label)) or not facts.get("base"):
            continue
        title = f"{words}: {facts['tokens']:,} tokens" if "tokens" in facts else words
        if label != "all" and "share" in facts:
            title += f", {100 * facts['share']:.1f} % of all"
        rows = [_inside_row(facts, metric) for metric in INSIDE if metric in facts["base"]]
        found.append((title, (["measure", "base", "student", "change [95 %]"], rows)))
    return found


def _inside_row(facts: Mapping[str, Any], metric: str) -> list[str]:
    """In three digits of the larger side; the change in as many decimals."""
    words, scale = INSIDE[metric]
    sides = [facts.get(side, {}).get(metric) for side in ("base", "student")]
    largest = max((abs(value * scale) for value in sides if value), default=1.0)
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 6)
    cells = ["-" if value is None else f"{value * scale:.{decimals}f}" for value in sides]
    if not (change := facts.get("difference", {}).get(metric)):
        return [words, *cells, "-"]
    mean, low, high = (f"{change[key] * scale:+.{decimals}f}" for key in ("mean", "low", "high"))
    return [words, *cells, f"{mean} [{low}, {high}]"]


def sensitivity_table(analysis: Mapping[str, Any]) -> Table:
    """Header and rows: another rule a row; columns that every rule has."""
    entries = analysis.get("sensitivity", [])
    names = list(dict.fromkeys(name for entry in entries for name in entry if name != "rule"))
    rows = [[str(entry.get("rule", "-")), *(_any(entry.get(name)) for name in names)] for entry in entries]
    return ["rule", *(name.replace("_", " ") for name in names)], rows


def gain_table(analysis: Mapping[str, Any]) -> Table:
    """Prop. B.3 by label: means of logs."""
    header = ["tokens", "compression", "reshaping", "ideal student", "trained student"]
    keys = ("compression", "reshaping", "ideal", "student")
    rows = [
        [LABELS.get(label, label), *(_figure(entry.get(key), 1.0) for key in keys)]
        for label, entry in analysis.get("gain", {}).items()
        if entry
    ]
    return header, rows


def export_table(exports: Sequence[Mapping[str, Any]]) -> Table:
    """Header and rows: a verify.json a row."""
    header = ["target", "precision", "verdict", "MB", "logits within", "KL from student", "KL of base", "read by"]
    rows = []
    for facts in exports:
        conversion, kept = facts.get("conversion", {}), facts.get("kept", {})
        size = sum(facts["bytes"].values()) / 1e6 if facts.get("bytes") else None
        rows.append(
            [
                str(facts.get("target", "-")),
                str(facts.get("precision", "-")),
                str(facts.get("verdict", "-")),
                "-" if size is None else f"{size:,.1f}",
                *(_short(of.get(key)) for of, key in ((conversion, "max_abs"), (kept, "kl_exported"))),
                _short(kept.get("kl_base")),
                str(facts.get("checked_by", "-")),
            ]
        )
    return header, rows


def parity_table(parity: Mapping[str, Any]) -> Table:
    """Header and rows: those of parity.json."""
    header = ["quantity", "largest difference", "mean", "KL", "tolerance", "verdict"]
    rows = []
    for row in parity.get("rows", []):
        largest = f"{row['differ']:,} differ" if "differ" in row else _short(row.get("max_abs", row.get("relative")))
        figures = [largest, _short(row.get("mean_abs")), _short(row.get("kl")), _short(row.get("tolerance"))]
        rows.append([str(row.get("quantity", "-")), *figures, str(row.get("verdict", "-"))])
    return header, rows


def bench_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Header and rows: of bench.jsonl, what a reader asks first. Ratios stand in the file."""
    header = ["model", "adapter", "batch", "first token ms", "decode tokens/s", "MLX peak MB", "J/token"]
    found = []
    for row in rows:
        if "decode_tps" not in row:
            continue
        energy = row.get("energy") or {}
        found.append(
            [
                *(str(row.get(name, "-")) for name in ("model", "adapter", "batch")),
                _scaled(row.get("ttft_s"), 1e3),
                _scaled(row.get("decode_tps"), 1.0),
                _scaled(row.get("mlx_peak_bytes"), 1e-6),
                _short(energy.get("joules_per_token")),
            ]
        )
    return header, found


def unit_table(manifest: Mapping[str, Any]) -> Table:
    """Header and rows: of each unit of work the time, the peak memory and the processes that failed."""
    rows = []
    for name, entry in manifest.get("stages", {}).items():
        measured = entry.get("measured", {})
        if name == "report" or "seconds" not in measured:
            continue
        peak = f"{measured['peak_rss_bytes'] / 1e9:.2f}" if "peak_rss_bytes" in measured else "-"
        rows.append([name, duration(measured["seconds"]), peak, str(len(entry.get("failures", [])))])
    return ["stage", "time", "peak GB", "failed tries"], rows


def provenance(report: Mapping[str, Any], manifest: Mapping[str, Any], recipe: Mapping[str, Any]) -> Table:
    """What and where: ("", rows of name and value)."""
    machine, versions = manifest.get("machine", {}), manifest.get("versions", {})
    rows = [["model", report["model"]["path"]], ["model revision", report["model"]["revision"]]]
    if "seed" in recipe:
        rows.append(["seed", str(recipe["seed"])])
    rows += [[name, str(machine[name])] for name in ("system", "chip", "cores") if name in machine]
    if "memory_bytes" in machine:
        rows.append(["memory", f"{machine['memory_bytes'] / 1e9:.1f} GB"])
    return ["", ""], rows + [[name, str(version)] for name, version in versions.items()]


def hash_table(manifest: Mapping[str, Any]) -> Table:
    """sha256 of every file or folder that a stage wrote."""
    rows = [
        [path, value]
        for name, entry in manifest.get("stages", {}).items()
        if name != "report"
        for path, value in entry.get("outputs", {}).items()
    ]
    return ["file", "sha256"], rows


def _scaled(value: Any, scale: float) -> str:
    """A figure, or the mean of one that was measured several times."""
    if isinstance(value, Mapping):
        value = value.get("mean")
    return "-" if value is None else f"{value * scale:,.1f}"


def _figure(value: float | None, scale: float) -> str:
    return "-" if value is None else f"{value * scale:.3g}"


def _interval(found: Mapping[str, float], scale: float) -> str:
    mean, low, high = (found[key] * scale for key in ("mean", "low", "high"))
    return f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]"


def _any(value: Any) -> str:
    if isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys():
        return _interval(value, 1.0)
    return _figure(value, 1.0) if isinstance(value, (int, float)) else str(value if value is not None else "-")


def _short(value: Any) -> str:
    return "-" if value is None else (f"{value:.2g}" if isinstance(value, (int, float)) else str(value))
