"""What the train stage leaves behind is what mlx-lm loads, on full-precision and quantized bases."""

import json

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten

from mlx_ssd import assets
from mlx_ssd.layout import RunFiles
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Prompt
from tests import faults
from tests.conftest import SMALL

PROMPT = (
    "Given a list of integers xs. Keep those that are even, then square each, and return the sum.\n\ndef solve(xs):"
)


def test_mlx_lm_loads_the_runs_adapter_and_generates(finished_run):
    adapter = RunFiles(finished_run).adapter
    model, tokenizer = mlx_lm.load(str(assets.model_path()), adapter_path=str(adapter))
    prompt = render(tokenizer, PROMPT, Prompt())
    text = mlx_lm.generate(model, tokenizer, prompt, max_tokens=96)
    assert text.startswith("```python\ndef solve(xs):\n    ") and text.rstrip().endswith("```")
    base, _ = mlx_lm.load(str(assets.model_path()))
    changed = mx.abs(model(mx.array([prompt])) - base(mx.array([prompt]))).max().item()
    assert changed > 1e-2, "the adapter does something"
    trained = [name for name, _ in tree_flatten(model.parameters()) if name.endswith("lora_b")]
    assert len(trained) == 4 * 7, "seven linear layers in each of four blocks"


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_base_goes_from_samples_to_adapter(bits, tmp_path):
    model = tmp_path / "quantized"
    mlx_lm.convert(str(assets.model_path()), str(model), quantize=True, q_bits=bits, q_group_size=32)
    out = tmp_path / "run"
    few = ("--model", str(model), "--set", "problems.train.limit=8", "--set", "train.epochs=1")
    for stage in ("sample", "curate", "train"):
        process = faults.run(stage, str(out), *SMALL, *few)
        assert process.returncode == 0, process.stderr
    files = RunFiles(out)
    losses = [json.loads(line)["loss"] for line in files.training_log.read_text().splitlines()]
    assert losses and all(0 < loss < 5 for loss in losses)
    loaded, tokenizer = mlx_lm.load(str(model), adapter_path=str(files.adapter))
    assert mx.isfinite(loaded(mx.array([render(tokenizer, PROMPT, Prompt())]))).all().item()
