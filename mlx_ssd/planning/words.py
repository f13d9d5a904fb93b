"""The plan for people: the whole, and the lines that a run begins with."""

from __future__ import annotations

from mlx_ssd.planning.mends import as_options
from mlx_ssd.planning.plan import STAGES, Plan
from mlx_ssd.progress import duration

PARTS = {
    "weights": "weights",
    "kv": "KV caches",
    "adapter": "adapter",
    "trained": "trained weights",
    "optimizer": "gradient, optimizer",
    "activations": "activations",
    "working": "one layer's work",
    "logits": "logits",
    "loading": "loading",
}
DISK = {"download": "download", "samples": "samples", "answers": "answers", "checkpoints": "checkpoints"}


def in_full(plan: Plan) -> str:
    """Of many lines."""
    costs, record = plan.costs, plan.record()
    stages = record["stages"]
    lines = [
        f"{plan.recipe.name} on {on(plan)}: {gigabytes(costs.memory)} GB of it can be counted on",
        f"{plan.model}: {_parameters(costs.size.parameters)}, {costs.size.dtype}",
        "",
        f"{'GB':20}" + "".join(f"{stage:>10}" for stage in STAGES),
    ]
    for part, name in PARTS.items():
        if any(part in stages[stage]["bytes"] for stage in STAGES):
            cells = (stages[stage]["bytes"].get(part) for stage in STAGES)
            lines.append(f"{name:20}" + "".join(f"{gigabytes(size) if size else '-':>10}" for size in cells))
    lines.append(f"{'peak':20}" + "".join(f"{gigabytes(stages[stage]['peak_bytes']):>10}" for stage in STAGES))
    if plan.seconds:
        lines.append(f"{'time':20}" + "".join(f"{duration(plan.seconds[stage]):>10}" for stage in STAGES))
    lines += ["", *_sentences(plan)]
    return "\n".join(lines)


def in_short(plan: Plan) -> list[str]:
    """Two or three lines: peak, time, and what decides them."""
    peak, costs = plan.costs.peak_bytes, plan.costs
    highest = max(STAGES, key=lambda stage: peak[stage])
    part = max(costs.parts[highest], key=lambda name: costs.parts[highest][name])
    lines = [
        f"plan: {gigabytes(peak[highest])} GB at the highest, of {gigabytes(costs.memory)} that can be counted on; "
        f"the most of it is for {PARTS[part]}, in {VERBS[highest]}"
    ]
    if plan.seconds:
        longest = max(plan.seconds, key=lambda stage: plan.seconds[stage])
        times = ", ".join(f"{VERBS[stage]} {duration(took)}" for stage, took in plan.seconds.items())
        lines.append(
            f"plan: about {duration(sum(plan.seconds.values()))}, most of it {VERBS[longest]} ({times}); "
            f"{costs.speed.source}"
        )
    else:
        lines.append(
            f"plan: the time is not known, for the speed of {plan.machine['chip']} is not published; "
            f"`mlx-ssd plan {plan.recipe.name}` measures it, in about ten seconds unless the model is too large "
            "for a processor"
        )
    return lines


VERBS = {"sample": "sampling", "train": "training", "evaluate": "evaluation", "analyze": "analysis"}


def on(plan: Plan) -> str:
    return f"{plan.machine['chip']}, {plan.machine['memory_bytes'] / 2**30:.0f} GB"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3f}" if size < 1e8 else f"{size / 1e9:.2f}" if size < 1e10 else f"{size / 1e9:.1f}"


def _rounds(plan: Plan) -> list[str]:
    rounds = plan.recipe.rounds
    if rounds.last == 1:
        return []
    many = f"{rounds.last} rounds" if rounds.count != "auto" else f"{rounds.last} rounds, the most there may be"
    return [f"time and disk are those of {many}; the validation of each counts as evaluation"]


def _sentences(plan: Plan) -> list[str]:
    costs, cut, sampling = plan.costs, plan.costs.largest.plan, plan.costs.sampling
    rows = {stage: getattr(costs, f"{stage}_rows") for stage in plan.most_rows}
    again = " and recomputes activations" if cut.gradient_checkpointing else ""
    lines = [
        *in_short(plan),
        f"rows side by side: {rows['sample']} in sampling of {plan.most_rows['sample']} that fit, {rows['evaluate']} "
        f"in evaluation of {plan.most_rows['evaluate']}; training takes rows of {cut.row_tokens:,} tokens{again}",
        f"longest that fits: one answer of {plan.longest['sample']:,} tokens, one sample of {plan.longest['train']:,} "
        "in training",
        *_rounds(plan),
        f"assumed: {costs.problems:,} problems, {sampling.prompt:,} tokens a prompt, {sampling.answer:,} an answer, "
        f"{costs.judging.answer:,} in evaluation",
        "disk: " + ", ".join(f"{gigabytes(size)} GB {what}" for what, size in plan.disk.items()),
    ]
    for size, settings in plan.smaller.items():
        change = "does not fit, whatever is shortened" if settings is None else as_options(settings) or "fits as it is"
        lines.append(f"on a Mac with {size} GB: {change}")
    return lines


def _parameters(count: float) -> str:
    return f"{count / 1e9:.2f} billion parameters" if count >= 1e9 else f"{count / 1e6:.1f} million parameters"
