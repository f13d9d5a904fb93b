"""Soft targets: q_s is the sampler's own distribution, and the loss is the cross-entropy to it."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.recipe import Recipe
from mlx_ssd.stages import train as stage
from mlx_ssd.training import full, targets
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import completion_states, output_head
from mlx_ssd.training.loop import train
from mlx_ssd.training.lora import attach, base_of
from mlx_ssd.training.loss import Soft, cross_entropy, mean_loss, step_gradient
from mlx_ssd.training.targets import Targets, soft_targets

from .tiny import CONFIG, Row, Settings, make_rows, randomize_adapter, tiny_model

PAPER = DecodingPolicy(1.6, top_k=20, top_p=0.8)
POLICIES = {
    "the paper's": PAPER,
    "sharpened": DecodingPolicy(0.7, top_k=5),
    "no top-k": DecodingPolicy(1.2, top_p=0.9),
    "mlx-lm's order": DecodingPolicy(1.3, top_k=10, top_p=0.7, order="mlx_lm"),
    "everything": DecodingPolicy(2.0),
    "greedy": DecodingPolicy(0),
}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())


def student(*, size=0.1, **model):
    """(model, head, base): a base with an adapter that has moved it, by `size`, from where it began."""
    model = tiny_model(**model)
    attach(model, Settings())
    head = output_head(model)
    if size:
        randomize_adapter(model, size)
    return model, head, base_of(model, head)


def dense(soft):
    """q_s over the whole vocabulary, float64 [N, V]."""
    q = np.zeros((soft.ids.shape[0], CONFIG["vocab_size"]))
    np.put_along_axis(q, np.array(soft.ids).astype(int), np.array(soft.probabilities, dtype=np.float64), axis=-1)
    return q


def base_distribution(rows, policy):
    """The specification of the policy on the bare model, one row and position at a time: float64 [N, V]."""
    base = tiny_model()
    found = []
    for row in rows:
        logits = np.array(base(mx.array([[*row.prompt_ids, *row.completion_ids]]))[0])
        first = len(row.prompt_ids) - 1
        found += [policy.reference_probabilities(z) for z in logits[first : first + len(row.completion_ids)]]
    return np.array(found)


@each_policy
def test_targets_are_the_policy_on_the_base_however_far_the_student_has_moved(policy):
    _, _, base = student(size=0.5)
    rows = make_rows(6)
    batch = pack_rows(rows)
    soft = soft_targets(base, batch, policy)(0, len(batch.targets))
    assert soft.ids.shape[1] == (1 if policy.greedy else policy.top_k or CONFIG["vocab_size"])
    part = soft_targets(base, batch, policy)(3, 10)
    assert mx.array_equal(part.ids, soft.ids[3:10]) and not part.broken.any()
    found, expected = dense(soft), base_distribution(rows, policy)
    assert np.allclose(found.sum(-1), 1, atol=1e-6)
    same = ((found > 0) == (expected > 0)).all(-1)
    assert same.mean() > 0.95  # a rank within rounding of top-p may fall on either side
    assert np.allclose(found[same], expected[same], atol=3e-5)


@each_policy
def test_loss_and_gradient_equal_pytorchs(policy):
    torch = pytest.importorskip("torch")
    base, moved = 2 * mx.random.normal((5, 96), key=mx.random.key(1)), mx.random.normal((5, 96), key=mx.random.key(2))
    q = torch.tensor(np.array([policy.reference_probabilities(z) for z in np.array(base)]))
    student = torch.tensor(np.array(moved), dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(student, q, reduction="sum")
    expected.backward()

    ids, weights, broken = targets.support(policy, base)
    soft = Targets(ids, weights.astype(mx.float32) / weights.sum(-1, keepdims=True).astype(mx.float32), broken)
    loss, gradient = mx.value_and_grad(lambda logits: cross_entropy(logits, soft)[0])(moved)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert np.allclose(np.array(gradient), student.grad.numpy(), atol=1e-5)
    outside = q.numpy() == 0
    assert outside.any() or policy == POLICIES["everything"]
    p = torch.softmax(student, -1).detach().numpy()
    assert np.allclose(np.array(gradient)[outside], p[outside], rtol=1e-4), "always pushed down, by +p"


def test_adapter_gradient_equals_finite_differences():
    model, head, base = student()
    batch, soft = pack_rows(make_rows(3)), Soft(base, PAPER)
    _, gradient = step_gradient(model, head, [batch], soft)
    for name in ["model.layers.0.self_attn.q_proj.lora_a", "model.layers.1.mlp.down_proj.lora_b"]:
        start = dict(tree_flatten(model.trainable_parameters()))[name]
        direction = mx.sign(gradient[name])
        losses = []
        for step in (1e-3, -1e-3):
            model.load_weights([(name, start + step * direction)], strict=False)
            losses.append(mean_loss(model, head, [batch], soft).total)
        model.load_weights([(name, start)], strict=False)
        slope = (gradient[name] * direction).sum().item()
        assert slope > 1e-3
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(slope, rel=0.02)


def test_one_hot_targets_are_the_tokens_loss():
    """Under the greedy policy q_s is 1 on the argmax; the rows here are the base's own greedy completions."""
    base, rows = tiny_model(), []
    for prompt in ([3, 1, 4], [15, 9], [2, 6, 5, 3]):
        ids = list(prompt)
        for _ in range(8):
            ids.append(base(mx.array([ids]))[0, -1].argmax().item())
        rows.append(Row("p", len(rows), prompt, ids[len(prompt) :]))
    model, head, base = student()
    batches = [pack_rows(rows)]
    soft, soft_gradient = step_gradient(model, head, batches, Soft(base, DecodingPolicy(0)))
    hard, gradient = step_gradient(model, head, batches)
    assert soft.total == pytest.approx(hard.total, rel=1e-6) and soft.tokens == hard.tokens == 24
    for name, expected in gradient.items():
        assert mx.abs(expected).max() > 1e-4 and mx.allclose(soft_gradient[name], expected, rtol=1e-4, atol=1e-6), name


def test_at_the_start_only_temperature_and_truncation_give_a_gradient():
    """Eq. 9 of the paper: at T 1 without truncation the student starts at the optimum, its loss the entropy."""
    model, head, base = student(size=0)
    rows = make_rows(6)
    batch = pack_rows(rows)

    def largest(policy):
        _, gradient = step_gradient(model, head, [batch], Soft(base, policy))
        return max(mx.abs(g).max().item() for g in gradient.values())

    plain = DecodingPolicy(1.0)
    p = base_distribution(rows, plain)
    loss, _ = step_gradient(model, head, [batch], Soft(base, plain))
    assert loss.total == pytest.approx(-(p * np.log(p)).sum() / loss.tokens, rel=1e-5)
    assert loss.kept_mass == pytest.approx(0, abs=1e-6), "nothing is cut off"
    assert largest(plain) < 1e-4
    for policy in (DecodingPolicy(1.6), DecodingPolicy(1.0, top_k=20), DecodingPolicy(1.0, top_p=0.8)):
        assert largest(policy) > 1e-2


def test_a_token_ruled_out_by_minus_infinity_costs_nothing():
    """Among the k best stands one of probability 0, where the student's logit is -inf too."""
    logits = mx.array([[1.0, 0.5, -mx.inf, -mx.inf]])
    ids, weights, broken = targets.support(DecodingPolicy(1.0, top_k=3), logits)
    soft = Targets(ids, weights / weights.sum(), broken)
    loss, gradient = mx.value_and_grad(lambda logits: cross_entropy(logits, soft)[0])(logits)
    assert loss.item() == pytest.approx(0.6628, abs=1e-3)  # the entropy of softmax(1, 0.5)
    assert mx.abs(gradient).max() < 1e-5


def test_a_base_without_a_distribution_stops_the_training(tmp_path):
    model = tiny_model(tied=False)
    model.lm_head.weight[5] = mx.nan
    with pytest.raises(WorkFailed, match=r"no distribution at \d+ of \d+ completion positions.*float32"):
        train(model, make_rows(4), Settings(targets="distribution"), tmp_path, {}, target_policy=PAPER)
    assert "lora_a" in model.layers[0].mlp.up_proj


@pytest.mark.parametrize(
    "name, policy, word", [("distribution", None, "target_policy"), ("logits", PAPER, "tokens or distribution")]
)
def test_targets_that_cannot_be_made_are_refused_before_anything_is_written(tmp_path, name, policy, word):
    with pytest.raises(BadInput, match=word):
        train(tiny_model(), make_rows(4), Settings(targets=name), tmp_path, {}, target_policy=policy)
    assert list(tmp_path.iterdir()) == []


def test_the_stage_depends_on_the_sampling_policy_with_soft_targets_alone():
    recipe = Recipe.load("quickstart")
    hotter = recipe.sample.model_copy(update={"decoding": recipe.sample.decoding.model_copy(update={"temperature": 2})})
    for name, depends in [("tokens", False), ("distribution", True)]:
        one = recipe.model_copy(update={"train": recipe.train.model_copy(update={"targets": name})})
        other = one.model_copy(update={"sample": hotter})
        assert (stage.settings(one) != stage.settings(other)) == depends


def test_the_student_is_untouched_by_the_targets():
    model, head, base = student(size=0.5)
    batch = pack_rows(make_rows(4))
    before = completion_states(model, head, batch)
    soft_targets(base, batch, PAPER)(0, 5)
    assert mx.array_equal(completion_states(model, head, batch), before)


def test_full_fine_tuning_takes_its_targets_from_the_weights_it_began_with():
    model = tiny_model()
    full.attach(model, Settings(method="full"))
    head = output_head(model)
    base = full.base_of(model, head)
    rows = make_rows(6)
    batch = pack_rows(rows)
    before = soft_targets(base, batch, PAPER)(0, len(batch.targets))
    model.update(tree_map(lambda weight: weight + 0.1 * mx.random.normal(weight.shape), model.parameters()))
    moved = completion_states(model, head, batch)
    after = soft_targets(base, batch, PAPER)(0, len(batch.targets))
    assert mx.array_equal(after.ids, before.ids) and mx.array_equal(after.probabilities, before.probabilities)
    assert mx.array_equal(completion_states(model, head, batch), moved), "the student is where it was"
    assert np.allclose(dense(before).sum(-1), 1, atol=1e-6)
