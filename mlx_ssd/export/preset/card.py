"""README.md of a preset: what it is, what it scored, how it is used, and what other tools can express of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_ssd.export.preset import base_name, load_name
from mlx_ssd.export.preset.llama_cpp import Chain
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.report.markdown import decoding, percent, points
from mlx_ssd.storage import read_json

ARMS = (BASE, "base-best", "two-stage", "student")


def card(directory: Path, recipe: Recipe, chain: Chain | str, facts: dict[str, Any]) -> str:
    train, evaluation = recipe.sample.decoding, recipe.evaluate.decoding
    base, name = base_name(recipe), load_name(recipe)
    parts = [
        [
            f"# Two-stage decoding of {base}",
            "",
            "A sampler, no model: with it the base draws from the distribution that a student would have which "
            "self-distillation fitted ideally. Nothing was trained.",
            "",
            f"1. The tokens that {decoding(train.model_dump())} keeps: temperature, then top-k, then top-p.",
            f"2. Of these, tempered once more, the tokens that {decoding(evaluation.model_dump())} keeps; one is "
            f"drawn. The temperatures multiply: {train.temperature * evaluation.temperature:g}.",
        ],
        ["## Measured", "", *_measured(directory)],
        [
            "## In mlx-lm",
            "",
            "    from mlx_lm import generate, load",
            "    from two_stage import two_stage",
            "",
            f'    model, tokenizer = load("{name}")',
            "    generate(model, tokenizer, prompt, sampler=two_stage)",
            "",
            f'or `python two_stage.py "{name}" "Write a function that reverses a string."`. It works as the `sampler` '
            "of `generate`, `stream_generate` and `generate_step`; mlx_lm.server takes none.",
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
            "`LogitSampler` of the app's own can do it, in the steps of two_stage.py; `TokenIterator` takes one. None "
            "is written here, since no Swift compiler was at hand.",
            "",
            "LM Studio has one temperature, top-k and top-p, and no order: it cannot express two stages. There, and "
            "wherever the decoder is not one's own, a trained student is the way: the rule is then in its weights.",
        ],
    ]
    return "\n\n".join("\n".join(part).strip("\n") for part in parts) + "\n"


def _measured(directory: Path) -> list[str]:
    files, probe = RunFiles(directory), directory / "probe.json"
    if files.scores.exists():
        facts = read_json(files.scores)
        scores = [s for s in facts["scores"] if s["arm"] in ARMS and s["pass_at"]]
        if any(s["arm"] == "two-stage" for s in scores):
            first = scores[0]
            ks = sorted({k for score in scores for k in score["pass_at"]}, key=int)
            lines = ["|  | " + " | ".join(f"pass@{k} %" for k in ks) + " |", "|---" * (1 + len(ks)) + "|"]
            for score in scores:
                cells = [percent(score["pass_at"][k]) if k in score["pass_at"] else "-" for k in ks]
                lines.append(f"| {score['arm']} | " + " | ".join(cells) + " |")
            for found in facts["comparisons"]:
                if "two-stage" in (found["arm"], found["baseline"]) and {found["arm"], found["baseline"]} <= {*ARMS}:
                    cells = [points(found["difference"][k]) if k in found["difference"] else "-" for k in ks]
                    lines.append(f"| {found['arm']} - {found['baseline']}, points | " + " | ".join(cells) + " |")
            return [
                *lines,
                "",
                f"{first['problems']} problems of {first['suite']}, {first['samples_per_problem']} samples each; 95 % "
                "bootstrap intervals over problems.",
            ]
    if probe.exists():
        said = [line for line in read_json(probe)["verdict"] if line.startswith("Two-stage")]
        return [f"By a probe of the base: {line}" for line in said]
    return ["Nothing yet: this run has not been evaluated under two-stage decoding."]


def _llama_cpp(chain: Chain | str) -> list[str]:
    if isinstance(chain, str):
        return [f"Not expressible by `--samplers`: {chain}"]
    first, second = chain.stages
    return [
        f"    llama-cli -m MODEL.gguf {chain.arguments}",
        "",
        "A sampler may stand in the chain more than once, but there is one --temp, --top-k and --top-p for all of them "
        "(common/sampling.cpp). The temperature therefore stands as often as its power is near to each stage's: "
        f"{first.temperature:.4g} for the first and {second.temperature:.4g} for the second. Penalties and "
        "min-p are not in this chain. Computed from the source, not run. Ollama takes no chain: it cannot express it.",
    ]
