"""What a validation costs: as often over the held-out samples as the plan counts."""

import pytest
from mlx_lm.models import qwen3

from mlx_ssd.budget.costs import validation_passes
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.sections import Training
from mlx_ssd.training.loop import train
from mlx_ssd.training.validation import Validation
from tests.training.tiny import Held, Settings, make_rows, tiny_model


@pytest.mark.parametrize("targets", ["tokens", "distribution"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_passes_over_the_held_out_samples(method, targets, monkeypatch, tmp_path):
    passes, layer = [], qwen3.TransformerBlock.__call__
    measure = Validation.measure

    def counted(self, model, head):
        calls.clear()
        found = measure(self, model, head)
        passes.append(len(calls) / len(model.layers) / len(self._batches))
        return found

    calls = []
    monkeypatch.setattr(qwen3.TransformerBlock, "__call__", lambda *a, **b: calls.append(1) or layer(*a, **b))
    monkeypatch.setattr(Validation, "measure", counted)
    settings = Settings(method=method, targets=targets, validation=Held(every_steps=2), steps=3)
    policy = DecodingPolicy(temperature=0.7, top_k=8)
    train(tiny_model(), make_rows(), settings, tmp_path, {}, target_policy=policy)
    of_forward = 2 if targets == "distribution" else 1  # as Speed.forward counts them
    expected = of_forward * validation_passes(Training(method=method, targets=targets))
    assert passes == [expected] * 3  # of the base, after the second step and after the last one
