"""Loss and LoRA gradients of the embedded model, against Transformers with autograd in float64."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd import models
from mlx_ssd.assets import model_path
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Model, ProblemSource, Prompt
from mlx_ssd.training import lora
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import Soft, step_gradient

from .tiny import Row, Settings, randomize_adapter

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
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


def in_torch(weights):
    """Transformers' model in float64 with the same adapter: (model, adapter tensors by mlx-lm's names)."""
    reference = transformers.AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float64).eval()
    reference.requires_grad_(False)
    adapter = {name: torch.tensor(np.array(w), dtype=torch.float64, requires_grad=True) for name, w in weights.items()}
    for name in {key.rpartition(".")[0] for key in adapter}:
        a, b = adapter[f"{name}.lora_a"], adapter[f"{name}.lora_b"]
        linear = reference.get_submodule(name)
        linear.register_forward_hook(lambda _, inputs, output, a=a, b=b: output + Settings.scale * inputs[0] @ a @ b)
    return reference, adapter


@pytest.mark.parametrize("policy", [None, PAPER], ids=["tokens", "distribution"])
def test_loss_and_gradients_agree(student, policy):
    model, rows = student
    head = output_head(model)
    soft = Soft(lora.base_of(model, head), policy) if policy else None
    found, gradient = step_gradient(model, head, [pack_rows(rows[:3]), pack_rows(rows[3:])], soft)

    reference, adapter = in_torch(lora.adapter_weights(model))
    base = transformers.AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float64).eval()
    losses = []
    for row in rows:
        ids, first = torch.tensor([[*row.prompt_ids, *row.completion_ids]]), len(row.prompt_ids) - 1
        logits = reference(ids).logits[0, first:-1]
        if policy is None:
            targets = torch.tensor(row.completion_ids)
        else:
            with torch.no_grad():
                of_base = base(ids).logits[0, first:-1].float().numpy()
            targets = torch.tensor(np.array([policy.reference_probabilities(z) for z in of_base]))
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    loss = sum(losses) / found.tokens
    loss.backward()

    assert found.total == pytest.approx(loss.item(), rel=1e-4)
    for name, expected in adapter.items():
        expected = expected.grad.numpy()
        assert np.abs(expected).max() > 1e-4, name
        assert np.abs(np.array(gradient[name]) - expected).max() < 1e-4 * np.abs(expected).max() + 1e-7, name
