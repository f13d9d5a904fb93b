"""Every family that recipes are for, through every stage at tiny scale: the night's recipe with a random model of the
same architecture, quantized as the published one is. Fused, the model is what it was with its adapter."""

import json

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_ssd.export import fused
from mlx_ssd.export.__main__ import make
from mlx_ssd.export.source import source_of
from mlx_ssd.layout import MAIN, RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Sample
from mlx_ssd.storage import Journal
from tests import faults
from tests.families import family_folder

PROBLEMS, TOKENS = 4, 40  # longer than gpt-oss's window of 24
SMALL = {
    "problems.train": f"{{source: embedded, limit: {PROBLEMS}}}",
    "problems.test.limit": "2",
    "sample.max_tokens": str(TOKENS),
    "train.rank": "4",
    "train.rows_per_step": "2",
    "train.validation": "null",
    "train.learning_rate": "0.01",
    "evaluate.samples_per_problem": "1",
    "evaluate.pass_at": "[1]",
    "evaluate.max_tokens": "16",
    "evaluate.base_best": "null",
    "curate.drop_stubs": "false",  # random weights write a line of nonsense
}
# The recipe, further settings, and the adapters there are: q, k, v, o, and the MLP's three or the router, in 2 layers;
# the experts' three where they are trained.
FAMILIES = {
    "llama": ("mac-llama-8b", {}, 2 * 7),
    "qwen3-moe": ("mac-30b-instruct", {"evaluate.two_stage": "false"}, 2 * 5),
    "gpt-oss": ("mac-gpt-oss-20b", {"train.experts": "true"}, 2 * 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_sample_train_evaluate_fuse_and_load_again(name, tmp_path):
    recipe, more, adapters = FAMILIES[name]
    model, out = family_folder(tmp_path / "model", name), tmp_path / "run"
    settings = [part for key, value in (SMALL | more).items() for part in ("--set", f"{key}={value}")]
    process = faults.run("run", recipe, "--model", str(model), "--out", str(out), *settings)
    assert process.returncode == 0, process.stderr

    files = RunFiles(out, MAIN)
    samples = Journal(files.samples, Sample).read()
    assert len(samples) == PROBLEMS and max(len(s.completion_ids) for s in samples) == TOKENS
    assert json.loads(files.report_json.read_text())["arms"][0]["training"]["steps"] == 2
    journals = sorted(out.glob("eval/*/*.generations.jsonl"))
    controls = Recipe.load(files.recipe).evaluate.two_stage
    assert [path.parent.name for path in journals] == ["base"] * (1 + controls) + ["student"]
    assert all(len(Journal(path, Generation).read()) == 2 for path in journals)

    base, _ = mlx_lm.load(str(model))
    student, tokenizer = mlx_lm.load(str(model), adapter_path=str(files.adapter))
    assert sum(key.endswith("lora_b") for key, _ in tree_flatten(student.parameters())) == adapters
    asked = mx.array([samples[0].prompt_ids + samples[0].completion_ids])
    if name == "gpt-oss":
        said = tokenizer.decode(samples[0].prompt_ids)
        assert "Reasoning: medium" in said and said.endswith("<|start|>assistant")

    for whole in (base, student):
        whole.set_dtype(mx.float32)
    logits = [whole(asked) for whole in (base, student)]
    moved = mx.abs(logits[1] - logits[0])
    assert moved.mean().item() > 0.05, "the adapter does something"
    worn = [(path, module) for path, module in student.named_modules() if "lora_a" in module]
    student.update_modules(tree_unflatten([(path, fused.fuse(module)) for path, module in worn]))
    assert mx.abs(student(asked) - logits[1]).max().item() < 1e-3 * moved.max().item(), "fused, it is the same model"

    make(source_of(out), "mlx", "bfloat16")  # it verifies what it wrote, and fails where the update is lost
    again, _ = mlx_lm.load(str(out / "export" / "mlx-bfloat16"))
    again.set_dtype(mx.float32)
    lost = mx.abs(again(asked) - logits[1])
    assert lost.mean().item() < 0.3 * moved.mean().item(), "loaded again, it is, but for weights of 16 bits"
