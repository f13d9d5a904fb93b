"""README.md of a preset: what it is, what it scored, how it is used, and what other tools can express of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_ssd.controls import BASE_BEST
from mlx_ssd.export.preset import Rule, base_name, load_name
from mlx_ssd.export.preset.llama_cpp import Chain
from mlx_ssd.layout import BASE, MAIN, RunFiles
from mlx_ssd.report.markdown import decoding, percent, points
from mlx_ssd.storage import read_json

ARMS = (BASE, BASE_BEST, MAIN)


def card(directory: Path, rule: Rule, chain: Chain | str, facts: dict[str, Any]) -> str:
    base, name, kind = base_name(rule.recipe), load_name(rule.recipe), rule.policy.kind
    first, *later = (decoding(asdict(stage)) for stage in rule.policy.stages)
    parts = [
        [
            f"# {kind.capitalize()} decoding of {base}",
            "",
            "A sampler, no model: with it the base draws from the distribution that a student would have which "
            "self-distillation fitted ideally. Nothing was trained.",
            "",
            f"1. The tokens that {first} keeps: temperature, then top-k, then top-p.",
            *(f"{n}. Of these, tempered once more, the tokens that {stage} keeps." for n, stage in enumerate(later, 2)),
            "",
            f"One of what is left is drawn. The temperatures multiply: {rule.effective_temperature:g}.",
        ],
        ["## Measured", "", *_measured(directory, kind)],
        [
            "## In mlx-lm",
            "",
            "    from mlx_lm import generate, load",
            "    from ssd_sampler import sampler",
            "",
            f'    model, tokenizer = load("{name}")',
            "    generate(model, tokenizer, prompt, sampler=sampler)",
            "",
            f'or `python ssd_sampler.py "{name}" "Write a function that reverses a string."`. It works as the '
            "`sampler` of `generate`, `stream_generate` and `generate_step`; mlx_lm.server takes none.",
            "",
            f"Checked when it was written: probabilities within {facts['probabilities']['max_abs']:.1g} of the "
            f"definition in float64, and {facts['draws']['count']:,} draws within "
            f"{facts['draws']['largest_deviations']:.1f} standard deviations (verify.json).",
        ],
        ["## In llama.cpp and Ollama", "", *_llama_cpp(chain)],
        [
            "## In an app with mlx-swift-lm, and in LM Studio",
            "",
            "mlx-swift-lm's `GenerateParameters` has one temperature, top-k and top-p, and its sampler cuts before it "
            "tempers (top-p, min-p, top-k, then T: Evaluate.swift): two stages cannot be said with it. A "
            "`LogitSampler` of the app's own can do it, in the steps of ssd_sampler.py; `TokenIterator` takes one. "
            "None is written here, since no Swift compiler was at hand.",
            "",
            "LM Studio has one temperature, top-k and top-p, and no order: it cannot express two stages. There, and "
            "wherever the decoder is not one's own, a trained student is the way: the rule is then in its weights.",
        ],
    ]
    return "\n\n".join("\n".join(part).strip("\n") for part in parts) + "\n"


def _measured(directory: Path, kind: str) -> list[str]:
    files, probe = RunFiles(directory), directory / "probe.json"
    if files.scores.exists():
        facts = read_json(files.scores)
        scores = [s for s in facts["scores"] if s["arm"] in (*ARMS, kind) and s["pass_at"]]
        if any(s["arm"] == kind for s in scores):
            first = scores[0]
            ks = sorted({k for score in scores for k in score["pass_at"]}, key=int)
            lines = ["|  | " + " | ".join(f"pass@{k} %" for k in ks) + " |", "|---" * (1 + len(ks)) + "|"]
            for score in scores:
                cells = [percent(score["pass_at"][k]) if k in score["pass_at"] else "-" for k in ks]
                lines.append(f"| {score['arm']} | " + " | ".join(cells) + " |")
            for found in facts["comparisons"]:
                if kind in (pair := {found["arm"], found["baseline"]}) and pair <= {*ARMS, kind}:
                    cells = [points(found["difference"][k]) if k in found["difference"] else "-" for k in ks]
                    lines.append(f"| {found['arm']} - {found['baseline']}, points | " + " | ".join(cells) + " |")
            return [
                *lines,
                "",
                f"{first['problems']} problems of {first['suite']}, {first['samples_per_problem']} samples each; 95 % "
                "bootstrap intervals over problems.",
            ]
    if probe.exists():
        said = [line for line in read_json(probe)["verdict"] if f"{kind} decoding" in line.lower()]
        return [f"By a probe of the base: {line}" for line in said]
    return [f"Nothing yet: this run has not been evaluated under {kind} decoding."]


def _llama_cpp(chain: Chain | str) -> list[str]:
    if isinstance(chain, str):
        return [f"Not expressible by `--samplers`: {chain}"]
    temperatures = [f"{stage.temperature:.4g}" for stage in chain.stages]
    return [
        f"    llama-cli -m MODEL.gguf {chain.arguments}",
        "",
        "A sampler may stand in the chain more than once, but there is one --temp, --top-k and --top-p for all of them "
        "(common/sampling.cpp). The temperature therefore stands as often as its power is near to each stage's: "
        f"{', '.join(temperatures[:-1])} and {temperatures[-1]}, in this order. Penalties and min-p are not in this "
        "chain. Computed from the source, not run. Ollama takes no chain: it cannot express it.",
    ]
