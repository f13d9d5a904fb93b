"""README.md of an export: what it is, what it was made of, what it scored, what was lost, and how it is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlx_ssd import models
from mlx_ssd.export import commands, devices, folder_name, swift
from mlx_ssd.layout import BASE
from mlx_ssd.report.markdown import decoding, percent, points
from mlx_ssd.storage import read_json

if TYPE_CHECKING:
    from mlx_ssd.export.source import Source

CARD = "README.md"
LIBRARIES = {"adapter": "mlx", "mlx": "mlx", "peft": "peft", "hf": "transformers", "gguf": "gguf"}
RELATIONS = {"adapter": "adapter", "peft": "adapter"}  # to the base, in the words of the hub; others are finetunes
UNKNOWN_LICENCE = "see the base's"
QUANTIZED_BASE = (
    "The base is a model quantized by MLX, which Transformers does not read: take the 16-bit model that it was made "
    "from. The adapter was trained on the quantized weights and verified beside them, dequantized; beside the original "
    "it was not measured."
)
PAPERS = (".json", ".txt", ".jinja", ".md")  # files that are read, not held in memory

# {folder} is the export's, {base} the base's name.
LOADING = {
    "peft": [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{folder}")',
    ],
    "hf": [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model, tokenizer = (kind.from_pretrained("{folder}") for kind in (AutoModelForCausalLM, AutoTokenizer))',
    ],
    "gguf": ["echo FROM ./{folder}/model.gguf > Modelfile && ollama create student -f Modelfile"],
}


def write(source: Source, name: str, precision: str, folder: Path, facts: dict[str, Any]) -> None:
    """Into the export's folder. `facts`: what `verify` found."""
    (folder / CARD).write_text(render(source, name, precision, facts), encoding="utf-8")


def render(source: Source, name: str, precision: str, facts: dict[str, Any]) -> str:
    folder = folder_name(name, precision)
    licence = licence_of(source.base.path)
    parts = [
        _front_matter(source, name, licence),
        [
            f"# {source.name}, {name} in {precision}",
            "",
            f"`{source.base_name}`, revision `{source.base.revision}`, after Simple Self-Distillation: it was trained "
            f"on its own samples. Licence: {licence or UNKNOWN_LICENCE}, of which this is made.",
        ],
        ["## Made of", "", *_made_of(source)],
        ["## Scores", "", *_scores(source)],
        ["## What the export kept", "", *_kept(facts)],
        ["## Size and memory", "", *_memory(source, name, facts)],
        ["## Prompting", "", *_prompting(source)],
        ["## Loading", "", *_loading(source, name, folder)],
    ]
    return "\n\n".join("\n".join(part).strip("\n") for part in parts) + "\n"


def licence_of(base: Path) -> str | None:
    """Of a base's folder: from the front matter of its README.md, or that there is a file; None where nothing says."""
    readme = base / "README.md"
    if readme.exists() and (found := re.match(r"---\n(.*?\n)---\n", readme.read_text("utf-8"), re.DOTALL)):
        try:
            licence = (yaml.safe_load(found[1]) or {}).get("license")
        except (yaml.YAMLError, AttributeError):
            licence = None
        if isinstance(licence, str):
            return licence
    named = sorted(file.name for file in base.glob("LICEN[SC]E*"))
    return f"{named[0]} of the base" if named else None


def _front_matter(source: Source, name: str, licence: str | None) -> list[str]:
    facts: dict[str, Any] = {}
    if licence and " " not in licence:
        facts["license"] = licence
    if models.is_hub_name(source.recipe.model.path):
        facts |= {"base_model": source.base_name, "base_model_relation": RELATIONS.get(name, "finetune")}
    if name in LIBRARIES:
        facts["library_name"] = LIBRARIES[name]
    facts |= {"pipeline_tag": "text-generation", "tags": ["self-distillation", "code"]}
    return ["---", yaml.safe_dump(facts, sort_keys=False).strip(), "---"]


def _made_of(source: Source) -> list[str]:
    recipe, files = source.recipe, source.files
    train = recipe.train
    lines = [f"- Samples: drawn from the base at {decoding(recipe.sample.decoding.model_dump())}."]
    if files.curation.exists():
        curation = read_json(files.curation)
        lines.append(f"- Kept: {curation['kept']:,} of {curation['samples']:,} samples.")
    how = f"LoRA of rank {train.rank}, scale {train.scale:g}" if train.method == "lora" else "all weights"
    targets = "the sampled tokens" if train.targets == "tokens" else "the distribution that each was drawn from"
    lines.append(f"- Training: {how}; targets are {targets}; learning rate {train.learning_rate:g}.")
    lines.append(f"- Recipe `{recipe.name}`, arm `{files.arm}`, student `{source.revision}`.")
    return lines


def _scores(source: Source) -> list[str]:
    if not source.files.scores.exists():
        return ["This run has not been evaluated."]
    facts = read_json(source.files.scores)
    scores = [score for score in facts["scores"] if score["arm"] in (BASE, source.files.arm) and score["pass_at"]]
    if not scores:
        tested = any(score.get("graded_problems") for score in facts["scores"])
        why = "not every test problem could be graded" if tested else "the run's test problems have no tests"
        return [f"Whether answers are right was not measured: {why}."]
    first = scores[0]
    ks = sorted({k for score in scores for k in score["pass_at"]}, key=int)
    lines = ["|  | " + " | ".join(f"pass@{k} %" for k in ks) + " |", "|---" * (1 + len(ks)) + "|"]
    for score in scores:
        lines.append(_row(score["arm"], [percent(score["pass_at"][k]) if k in score["pass_at"] else "-" for k in ks]))
    for comparison in facts["comparisons"]:
        if comparison["baseline"] == BASE and comparison["arm"] == source.files.arm:
            found = comparison["difference"]
            lines.append(_row("difference, points", [points(found[k]) if k in found else "-" for k in ks]))
    settings = decoding(source.recipe.evaluate.decoding.model_dump())
    return [
        *lines,
        "",
        f"Of the student before export: {first['problems']} problems of {first['suite']}, "
        f"{first['samples_per_problem']} samples each, at {settings}; 95 % bootstrap intervals over problems.",
    ]


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _kept(facts: dict[str, Any]) -> list[str]:
    texts, kept = facts["texts"], facts["kept"]
    lines = ["| against | largest logit difference | mean KL, nats | same first token |", "|---|---|---|---|"]
    names = {"conversion": "the student in the same precision", "compression": "the student as trained"}
    if "compression" not in facts:
        names = {"conversion": "the student as trained"}
    for key, name in names.items():
        found = facts[key]
        cells = [f"{found['max_abs']:.2g}", f"{found['kl_mean']:.2g}", f"{100 * found['top1']:.1f} %"]
        lines.append(_row(name, cells))
    return [
        *lines,
        "",
        f"KL from the student is {kept['kl_exported']:.2g} nats; the base's is {kept['kl_base']:.2g}. Measured on "
        f"{texts['count']} texts ({texts['from']}), on the machine that wrote it, by {facts['checked_by']}: "
        "verify.json. **Not run on an iPhone or iPad.**",
    ]


def _memory(source: Source, name: str, facts: dict[str, Any]) -> list[str]:
    sizes = facts["bytes"]
    lines = [f"{sum(sizes.values()) / 1e6:,.1f} MB."]
    if name not in swift.TARGETS and name != "gguf":
        return lines
    held = sum(size for file, size in sizes.items() if not file.endswith(PAPERS))
    if name == "adapter":
        held += sum(file.stat().st_size for file in source.base.path.glob("model*.safetensors"))
    longest, fixed = _longest(source, name)
    found = devices.needs(source.config, held, longest, fixed)
    if name in swift.SYSTEMS:
        lines.append(f"Needs at least {swift.SYSTEMS[name]}.")
    return [
        " ".join(lines),
        "",
        *devices.table(found),
        "",
        "Computed from the model's config.json, not measured: weights, a 16-bit cache, a chunk of the prompt and "
        f"{devices.RUNTIME / 1e6:.0f} MB for app and framework; an app is taken to get "
        f"{100 * devices.PHONE_SHARE:.0f} % of a phone's memory with the entitlement "
        "`com.apple.developer.kernel.increased-memory-limit`. Ask "
        "`os_proc_available_memory()` on the device.",
    ]


def _longest(source: Source, name: str) -> tuple[int, bool]:
    """(tokens of context that the export takes, whether its cache has their size from the beginning)."""
    if name == "coreml":
        from mlx_ssd.export.coreml import contract
        from mlx_ssd.torch_ref.qwen3_config import Qwen3Config

        return contract.context_of(Qwen3Config.of(source.config)), True
    if name == "coreai":
        from mlx_ssd.export.coreai import bundle

        return bundle.context_length(source.config), False
    config = source.config.get("text_config") or source.config
    return config.get("max_position_embeddings") or max(devices.CONTEXTS), False


def _prompting(source: Source) -> list[str]:
    evaluate = source.recipe.evaluate
    through = "as it is" if source.recipe.prompt.format == "raw" else "through its chat template"
    return [
        f"It was trained and evaluated on this, {through}; asked in another way it may answer worse than its base:",
        "",
        f"    {commands.prompted(source.recipe)}",
        "",
        f"Evaluated at {decoding(evaluate.decoding.model_dump())}, at most {evaluate.max_tokens:,} tokens.",
    ]


def _loading(source: Source, name: str, folder: str) -> list[str]:
    lines: list[str] = []
    recipe = source.recipe
    asking = {
        "adapter": commands.mlx_lm(recipe, source.base_name, folder),
        "mlx": commands.mlx_lm(recipe, folder),
        "gguf": commands.llama_cpp(recipe, f"{folder}/model.gguf"),
    }
    code = [asking[name]] if name in asking else []
    code += [line.format(folder=folder, base=source.base_name) for line in LOADING.get(name, ())]
    if code:
        lines += [*(f"    {line}".rstrip() for line in code), ""]
    if name in ("adapter", "mlx") and recipe.evaluate.decoding.order != "mlx_lm":
        lines += ["mlx_lm cuts by top-p and top-k before the temperature, which the evaluation did otherwise.", ""]
    if name == "peft" and source.config.get("quantization"):
        lines += [QUANTIZED_BASE, ""]
    if name in swift.TARGETS:
        lines.append(
            f"In an app: the Swift package `swift/{folder}` beside this folder. No Swift compiler has seen it."
        )
    return lines
