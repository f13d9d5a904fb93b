import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ssd.training.batches import pad_rows
from mlx_ssd.training.forward import completion_logits, output_head
from mlx_ssd.training.lora import attach_lora
from mlx_ssd.training.loss import completion_loss, step_gradient

from .tiny import CONFIG, Settings, make_rows, tiny_model


def cross_entropy_float64(logits, row) -> float:
    """The plainest form there is: softmax in float64, one completion token at a time; logits [T, V]."""
    total = 0.0
    for i, token in enumerate(row.completion_ids):
        z = np.asarray(logits[len(row.prompt_ids) - 1 + i], dtype=np.float64)
        total += np.log(np.exp(z - z.max()).sum()) + z.max() - z[token]
    return total


def loss_row_by_row(model, rows) -> float:
    return sum(
        cross_entropy_float64(np.array(model(mx.array([[*row.prompt_ids, *row.completion_ids]]))[0]), row)
        for row in rows
    )


@pytest.mark.parametrize("tied", [True, False])
def test_padded_batch_equals_rows_alone_in_float64(tied):
    model, rows = tiny_model(tied=tied), make_rows(8)
    head = output_head(model)
    assert head is not None
    loss = completion_loss(model, head, pad_rows(rows)).item()
    assert loss == pytest.approx(loss_row_by_row(model, rows), rel=1e-6)


def test_equals_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, rows = tiny_model(), make_rows(6)
    reference = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**CONFIG)).double().eval()
    weights = {name: torch.tensor(np.array(value)) for name, value in tree_flatten(model.parameters())}
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    assert (set(missing), unexpected) == ({"lm_head.weight"}, [])
    expected = 0.0
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        labels = torch.tensor([[-100] * len(row.prompt_ids) + row.completion_ids])
        with torch.no_grad():
            logits = reference(ids).logits
        expected += torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum").item()
    found = completion_loss(model, output_head(model), pad_rows(rows)).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_model_whose_head_is_not_plain_takes_the_whole_forward_pass():
    class Capped(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = tiny_model()
            self.model = self.whole.model

        def __call__(self, tokens):
            return 2 * mx.tanh(self.whole(tokens) / 2)

    model, rows = Capped(), make_rows(4)
    assert output_head(model) is None
    assert completion_loss(model, None, pad_rows(rows)).item() == pytest.approx(loss_row_by_row(model, rows), rel=1e-6)


def test_gathered_logits_equal_those_of_the_whole_forward_pass():
    model, batch = tiny_model(), pad_rows(make_rows(5))
    gathered = completion_logits(model, output_head(model), batch)
    assert gathered.shape == (len(batch.targets), CONFIG["vocab_size"])
    assert mx.allclose(gathered, completion_logits(model, None, batch), atol=1e-5).item()


def test_only_positions_that_predict_a_completion_token_carry_gradient():
    model, rows = tiny_model(), make_rows(4)
    batch, whole = pad_rows(rows), model.model

    def loss(shift):
        model.model = lambda tokens: whole(tokens) + shift
        return completion_loss(model, whole.embed_tokens.as_linear, batch)

    gradient = mx.grad(loss)(mx.zeros((*batch.tokens.shape, CONFIG["hidden_size"])))
    model.model = whole
    carries = np.abs(np.array(gradient)).sum(-1) > 0
    expected = np.zeros(batch.tokens.shape, dtype=bool)
    for i, row in enumerate(rows):
        first = len(row.prompt_ids) - 1
        expected[i, first : first + len(row.completion_ids)] = True
    assert np.array_equal(carries, expected)


def test_uneven_micro_batches_add_up_to_the_gradient_of_one_batch():
    model, rows = tiny_model(), make_rows(7)
    attach_lora(model, Settings())
    head = output_head(model)
    # B is zero at first and would hide the gradient of A
    weights = tree_flatten(model.trainable_parameters())
    model.load_weights([(name, 0.1 * mx.random.normal(w.shape)) for name, w in weights], strict=False)
    whole = step_gradient(model, head, [pad_rows(rows)])
    parts = step_gradient(model, head, [pad_rows(rows[:1]), pad_rows(rows[1:3]), pad_rows(rows[3:])])
    assert parts[2] == whole[2] == sum(len(row.completion_ids) for row in rows)
    assert whole[0] == pytest.approx(loss_row_by_row(model, rows) / whole[2], rel=1e-6)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    for (name, a), (_, b) in zip(tree_flatten(whole[1]), tree_flatten(parts[1]), strict=True):
        assert mx.abs(a).max() > 1e-4, name
        assert mx.allclose(a, b, rtol=1e-4, atol=1e-6), name
