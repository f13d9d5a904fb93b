"""Loss and LoRA gradients of the embedded model, against Transformers with autograd in float64."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd import models
from mlx_ssd.assets import model_path
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.sections import Model, ProblemSource, Prompt
from mlx_ssd.training import lora
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import Soft, step_gradient

from .tiny import Row, Settings, randomize_adapter

torch = pytest.importorskip("torch")
PAPER = DecodingPolicy(1.6, top_k=20, top_p=0.8)


@pytest.fixture(scope="module")
def student():
    """(model, rows): the embedded model with an adapter that has moved it; prompts with their own reference answers."""
    model, tokenizer = models.load(models.locate(Model()), "float32")
    lora.attach(model, Settings(rank=8))
    mx.random.seed(0)
    randomize_adapter(model, 0.01)
    problems = read_problems(ProblemSource(limit=4), "train")
    prompts = [render(tokenizer, problem.prompt, Prompt()) for problem in problems]
    # Any ids do for a completion: the first tokens of the next prompt, at four lengths.
    rows = [Row(str(i), 0, prompt, prompts[i - 1][: 10 + 9 * i]) for i, prompt in enumerate(prompts)]
    return model, rows


@pytest.fixture(scope="module")
def twin(student):
    """(Transformers' model in float64, the same adapter on it)"""
    from mlx_ssd.torch_ref.adapter import Adapter
    from mlx_ssd.torch_ref.model import build
    from mlx_ssd.torch_ref.weights import TorchWeights

    weights = TorchWeights(model_path())
    reference = build(model_path(), weights.names, weights.read, "float64")
    arrays = {name: torch.tensor(np.array(array)) for name, array in lora.adapter_weights(student[0]).items()}
    return reference, Adapter(reference, arrays, Settings.scale)


@pytest.mark.parametrize("policy", [None, PAPER], ids=["tokens", "distribution"])
def test_loss_and_gradients_agree(student, twin, policy):
    from mlx_ssd.torch_ref import loss as torch_loss

    model, rows = student
    head = output_head(model)
    soft = Soft(lora.base_of(model, head), policy) if policy else None
    found, gradient = step_gradient(model, head, [pack_rows(rows[:3]), pack_rows(rows[3:])], soft)
    expected, of_adapter = torch_loss.step_gradient(*twin, rows, policy)

    assert found.total == pytest.approx(expected.total, rel=1e-4)
    assert found.kept_mass == (pytest.approx(expected.kept_mass, rel=1e-4) if policy else None)
    for name, array in of_adapter.items():
        array = array.numpy()
        assert np.abs(array).max() > 1e-4, name
        assert np.abs(np.array(gradient[name]) - array).max() < 1e-4 * np.abs(array).max() + 1e-7, name
