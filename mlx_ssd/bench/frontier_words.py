"""frontier.json as a table and sentences."""

from __future__ import annotations

from typing import Any

from mlx_ssd.bench.tables import columns, notes

SHOWN = ("first token ms", "decode t/s", "MLX peak MB", "process peak MB", "J/token")


def rows_of(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, rows)."""
    lines = facts["lines"]
    speed = columns([line["speed"] for line in lines])
    shown = [name for name in SHOWN if name in speed]
    header = ["model", "parameters", "bits", "decoding", "pass@1 %", *shown]
    rows = []
    for number, line in enumerate(lines):
        parameters, of = f"{line['speed']['parameters'] / 1e6:,.2f}M", line.get("pass_at_1")
        score = f"{100 * of['mean']:.1f} [{100 * of['low']:.1f}, {100 * of['high']:.1f}]" if of else ""
        cells = [line["name"], parameters, speed["bits"][number], line["decoding"], score]
        rows.append(cells + [speed[name][number] for name in shown])
    return header, rows


def sentences(facts: dict[str, Any]) -> list[str]:
    found = []
    for of in facts["comparisons"]:
        points = {name: 100 * value for name, value in of["difference"].items()}
        what = f"{of['small']} - {of['larger']} ({of['larger_decoding']}): {points['mean']:+.1f} "
        what += f"[{points['low']:+.1f}, {points['high']:+.1f}] points of pass@1"
        cost = f"{of['memory_ratio']:.2f} of its MLX peak memory"
        if speed := of.get("decode_ratio"):
            cost += f", {speed['mean']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}] times its decode tok/s"
        if points["low"] > 0:
            verdict = "it is better"
        elif points["high"] < 0:
            verdict = "it does not replace it"
        else:
            verdict = "no difference is shown"
        found.append(f"{what}: {verdict}; {cost}.")
    return found


def markdown(facts: dict[str, Any]) -> str:
    header, rows = rows_of(facts)
    lines = [f"# Small, small and self-distilled, or larger: {facts['run']}", ""]
    lines += [f"{facts['problems']} test problems, {facts['samples_per_problem']} samples each.", ""]
    lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {sentence}" for sentence in sentences(facts)), ""]
    if any("pass_at_1" in line for line in facts["lines"]):
        lines += ["![frontier](frontier.svg)", ""]
    return "\n".join([*lines, *notes([line["speed"] for line in facts["lines"]])]) + "\n"
