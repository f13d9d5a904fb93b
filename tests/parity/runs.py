"""Run directories to compare, made in seconds: a model's own samples, and an adapter with random weights on it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
from mlx_lm.models import qwen3_moe
from mlx_lm.utils import quantize_model, save_config, save_model

from mlx_ssd import models
from mlx_ssd.assets import model_path
from mlx_ssd.controls import policy_of
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Sample, TrainingRow
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.sections import ProblemSource
from mlx_ssd.storage import Journal
from mlx_ssd.training import lora
from tests.architectures import MOE
from tests.training.tiny import CONFIG, randomize_adapter

TOKENS = 24


def make_run(out: Path, model: Path | None = None, problems: int = 4, spread: float = 0.02, **settings) -> Path:
    """A run of `model`, or of the embedded one. `settings` as for --set, a dot written as two underscores."""
    overrides = {"model.path": str(model or "embedded"), "train.rank": 4, "arms": []}
    overrides |= {name.replace("__", "."): value for name, value in settings.items()}
    recipe, files = Recipe.load("quickstart", overrides), RunFiles(out)
    files.round.mkdir(parents=True)
    files.recipe.write_text(recipe.to_yaml())
    source = models.locate(recipe.model)
    loaded, tokenizer = models.load(source, "float32")
    chosen = read_problems(ProblemSource(limit=problems), "train")
    policy = policy_of(recipe.sample.decoding)
    requests = [
        Request(p.id, render(tokenizer, p.prompt, recipe.prompt), policy, sample_key(0, "train", p.id, 0), TOKENS)
        for p in chosen
    ]
    prompts = {request.key: request.prompt_ids for request in requests}
    with Journal(files.samples, Sample).appending() as samples, Journal(files.rows, TrainingRow).appending() as rows:
        for done in generate(loaded, requests, tokenizer.eos_token_ids, rows=len(requests)):
            row = {"problem_id": done.key, "sample_index": 0, "prompt_ids": prompts[done.key]}
            row |= {"completion_ids": done.completion_ids}
            drawn = {"policy": policy.name(), "seed": 0, "stream": "train", "model": source.revision, "template": ""}
            samples.append([Sample(**row, **drawn, finish_reason=done.finish_reason)])
            rows.append([TrainingRow(**row)])
    trained = SimpleNamespace(**recipe.train.model_dump(), seed=recipe.seed)
    lora.attach(loaded, trained)
    mx.random.seed(1)
    randomize_adapter(loaded, spread)
    lora.write(loaded, trained, files.adapter)
    return out


def moe_folder(folder: Path, bits: int | None = None) -> Path:
    """A mixture of experts with the embedded model's tokenizer and random weights, which may be quantized."""
    folder.mkdir(parents=True)
    config = CONFIG | MOE | {"model_type": "qwen3_moe", "vocab_size": 704, "tie_word_embeddings": False}
    config |= {"hidden_size": 64, "moe_intermediate_size": 64, "eos_token_id": 2}  # as groups of 64 ask for
    mx.random.seed(0)
    model = qwen3_moe.Model(qwen3_moe.ModelArgs.from_dict(config))
    model.apply(lambda array: array if array.ndim < 2 else 0.2 * mx.random.normal(array.shape))
    if bits:
        model.set_dtype(mx.bfloat16)  # as models are that are quantized: scales of 16 bits
        model, config = quantize_model(model, config, group_size=32, bits=bits)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    for path in model_path().iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    return folder
