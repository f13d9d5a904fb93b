"""The engine in PyTorch draws MLX's samples, in any batch; where one differs, the draw was on a boundary (rule 3)."""

import json
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ssd import models, pipeline
from mlx_ssd.decoding.divergence import boundary_distance
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.decoding.rng import sample_key, uniform_u32
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Sample
from mlx_ssd.sampling import engines
from mlx_ssd.sampling.engine import generate
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.requests import Request
from mlx_ssd.sections import Model, ProblemSource, Prompt
from mlx_ssd.stages import sample
from mlx_ssd.storage import Journal, read_json
from mlx_ssd.weights import WeightFiles
from tests.architectures import COMMON, MODELS, tiny

torch = pytest.importorskip("torch")

from mlx_ssd.sampling import torch_engine  # noqa: E402
from mlx_ssd.torch_ref import model as torch_model  # noqa: E402

EXPLAINED = 1e-5  # docs/method.md
STOPS = range(4)
POLICIES = (
    DecodingPolicy(1.0, 20, 0.8),
    DecodingPolicy(0.7),
    DecodingPolicy(0.0),
    StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.1, 10, 0.8)),
)


def requests(samples=2):
    """Prompts of one length, a long one and one of a single token, under every policy."""
    random = np.random.default_rng(0)
    prompts = [random.integers(4, 200, length).tolist() for length in (20, 20, 90, 1)]
    return [
        Request((n, policy, i), prompt, policy, (n, i), 10 + 20 * i + 3 * n)
        for n, prompt in enumerate(prompts)
        for policy in POLICIES
        for i in range(samples)
    ]


def twin(name, folder):
    """The tiny model of an architecture, in MLX and in PyTorch."""
    model = tiny(name)
    config = COMMON | MODELS[name][1] | {"tie_word_embeddings": name == "qwen3"}
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    weights = WeightFiles(folder)
    return model, torch_model.build(folder, weights.names, weights.read)


def decoded(model, asked, stops=STOPS, rows=5, **options):
    decoding = torch_engine.Decoding(model, asked, stops, rows, **options)
    found = {}
    for completed in decoding.run():
        assert completed.key not in found
        found[completed.key] = completed
    return found


def differing(model, asked, found, expected):
    """How many completions differ; each of them where the draw stood on a boundary, by the PyTorch model's logits."""
    differ = 0
    assert set(found) == set(expected) == {request.key for request in asked}
    for request in asked:
        a, b = found[request.key].completion_ids, expected[request.key].completion_ids
        if a == b:
            assert found[request.key].finish_reason == expected[request.key].finish_reason
            continue
        differ += 1
        at = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        logits = torch_model.logits(model, request.prompt_ids + a[:at], [0])[0]
        u32 = int(uniform_u32(request.random_key, np.array(at)))
        assert boundary_distance(request.policy, logits, u32) < EXPLAINED, request.key
    return differ


def of_mlx(model, asked, stops=STOPS, **options):
    return {completed.key: completed for completed in generate(model, asked, stops, 5, **options)}


@pytest.mark.parametrize("name", ["qwen3", "llama", "qwen3-moe"])
def test_the_completions_of_tiny_models_are_mlxs(name, tmp_path):
    model, same = twin(name, tmp_path)
    asked = requests()
    expected = of_mlx(model, asked)
    assert differing(same, asked, decoded(same, asked), expected) <= 1
    assert {completed.finish_reason for completed in expected.values()} == {"stop", "length"}
    assert len({tuple(completed.completion_ids) for completed in expected.values()}) > 24, "they do differ"


def test_the_completions_of_the_embedded_model_are_mlxs():
    source = models.locate(Model())
    model, tokenizer = models.load(source, "float32")
    same, own_tokenizer = torch_engine.load(source)
    assert own_tokenizer.eos_token_ids == tokenizer.eos_token_ids
    assert models.context_length(same) == models.context_length(model) == 1024
    asked = [
        Request((p.id, policy), render(own_tokenizer, p.prompt, Prompt()), policy, sample_key(0, "eval", p.id, 0), 128)
        for p in read_problems(ProblemSource(limit=16), "test")
        for policy in (DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.0))
    ]
    expected = of_mlx(model, asked, tokenizer.eos_token_ids)
    assert differing(same, asked, decoded(same, asked, tokenizer.eos_token_ids, rows=16), expected) <= 3
    assert sum(len(completed.completion_ids) for completed in expected.values()) > 1000


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_completion_does_not_depend_on_batch_order_or_interruption(name, tmp_path):
    """gemma3 keeps windows: its batches are prompts of one length."""
    _, model = twin(name, tmp_path)
    asked = requests(samples=1)
    alone = {request.key: completed for request in asked for completed in decoded(model, [request], rows=1).values()}
    for rows in (3, len(asked)):
        assert differing(model, asked, decoded(model, asked, rows=rows), alone) <= 1
    mixed = [asked[i] for i in np.random.default_rng(1).permutation(len(asked))]
    assert differing(model, mixed, decoded(model, mixed, rows=7), alone) <= 1
    found = {}
    for completed in torch_engine.Decoding(model, asked, STOPS, 5).run():
        found[completed.key] = completed
        if len(found) == 5:
            break
    left = [request for request in asked if request.key not in found]
    assert differing(model, asked, found | decoded(model, left), alone) <= 1


def test_prompts_are_run_once_and_rows_that_end_are_replaced(tmp_path):
    _, model = twin("qwen3", tmp_path)
    shapes, drawn = [], []
    model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    asked = requests()
    together = decoded(model, asked, [], rows=len(asked))
    assert sum(rows * tokens for rows, tokens in shapes if tokens > 1) == 20 + 20 + 90
    for request in asked:
        assert len(together[request.key].completion_ids) == request.max_tokens

    few = torch_engine.Decoding(model, asked, [], 8)
    assert len(list(few.run(drawn.append))) == len(asked)
    assert sum(drawn) == sum(request.max_tokens for request in asked)
    in_turn = sum(max(request.max_tokens for request in asked[i : i + 8]) for i in range(0, len(asked), 8))
    assert max(drawn) == 8 and len(drawn) < 0.9 * in_turn


def test_loops_end_where_mlx_ends_them(tmp_path):
    model, same = twin("llama", tmp_path)
    asked = [Request(i, [5 + i, 9], DecodingPolicy(0.0), (i, 0), 120) for i in range(6)]
    loops = LoopStop(16, 4, 24)
    expected = of_mlx(model, asked, [], loops=loops)
    assert "loop" in {completed.finish_reason for completed in expected.values()}
    assert decoded(same, asked, [], loops=loops) == expected


def test_memory_is_kept_to_or_refused(tmp_path):
    _, model = twin("llama", tmp_path)
    asked = requests()
    free = torch_engine.Decoding(model, asked, STOPS, 32)
    tight = torch_engine.Decoding(model, asked, STOPS, 32, memory=int(free.expected_peak / 10))
    drawn = []
    found = {completed.key: completed for completed in tight.run(drawn.append)}
    assert 1 < max(drawn) < 8 and tight.expected_peak <= free.expected_peak / 10
    assert differing(model, asked, found, decoded(model, asked, rows=32)) <= 1
    with pytest.raises(BadInput, match=r"one answer of up to \d+ tokens to a prompt of 90 .* may be used"):
        torch_engine.Decoding(model, asked, STOPS, 32, memory=10_000)


def test_an_output_that_is_not_finite_is_told(tmp_path):
    _, model = twin("qwen3", tmp_path)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(WorkFailed, match="output for .* is not finite"):
        decoded(model, requests())


# -- the stage -------------------------------------------------------------------------------------

FEW = {"problems.train.limit": 12, "sample.samples_per_problem": 2, "sample.max_tokens": 64, "sample.rows": 7}


def keyed(files):
    found = Journal(files.samples, Sample).read()
    assert len({one.key for one in found}) == len(found)
    return {one.key: one for one in found}


def test_a_journal_begun_with_one_engine_goes_on_with_the_other(tmp_path):
    files = pipeline.run(Recipe.load("quickstart", FEW), tmp_path, only=("sample",))
    assert read_json(files.manifest)["stages"]["sample"]["measured"]["engine"] == "mlx"
    expected, lines = keyed(files), files.samples.read_bytes().splitlines(keepends=True)
    files.samples.write_bytes(b"".join(lines[:10]) + lines[10][:50])  # torn
    pipeline.run(Recipe.load("quickstart", FEW | {"sample.engine": "torch"}), tmp_path, only=("sample",))
    manifest, found = read_json(files.manifest), keyed(files)
    measured = manifest["stages"]["sample"]["measured"]
    assert (measured["completions"], measured["engine"]) == (14, f"torch on {torch_engine.device()}")
    assert manifest["versions"]["torch"] == torch.__version__
    assert files.samples.read_bytes().splitlines(keepends=True)[:10] == lines[:10]
    assert set(found) == set(expected) and len(found) == 24
    assert sum(expected[key] != found[key] for key in expected) <= 1, "every field, the tokens too"


def test_without_pytorch_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"sample\.engine torch needs PyTorch: pip install -e '\.\[parity\]'"):
        sample.check(Recipe.load("quickstart", {"sample.engine": "torch"}))
    sample.check(Recipe.load("quickstart"))


def test_the_engine_itself_needs_no_mlx():
    script = "import mlx_ssd.sampling.collect, mlx_ssd.sampling.torch_engine, sys; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in output.split()}
    assert "torch" in loaded and not {"mlx", "mlx_lm"} & loaded
