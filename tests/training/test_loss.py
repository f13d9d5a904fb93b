"""The loss of a step and its gradient: against float64, Transformers, plain autodiff, and themselves cut otherwise."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.training import full, lora, loss
from mlx_ssd.training.batches import pack_rows, pad_rows
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.loss import Soft, cross_entropy, mean_loss, step_gradient
from mlx_ssd.training.targets import Targets, soft_targets, token_targets

from .tiny import CONFIG, Settings, make_rows, randomize_adapter, tiny_model

HEAD_KEYS = ["lm_head", "self_attn.q_proj"]
TIED_KEYS = ["model.embed_tokens", "self_attn.q_proj"]
# (what is trained, how to build it): every way in which a head can be frozen or trained
STUDENTS = {
    "tied head": lambda: student(tied=True),
    "own head": lambda: student(tied=False),
    "4-bit head": lambda: student(bits=4),
    "8-bit head": lambda: student(bits=8, tied=False),
    "adapter on the head": lambda: student(tied=False, keys=HEAD_KEYS),
    "adapter on the 4-bit head": lambda: student(tied=False, bits=4, keys=HEAD_KEYS),
    "adapter on the tied head": lambda: student(keys=TIED_KEYS),
    "full, tied": lambda: student(method=full),
    "full, own head": lambda: student(method=full, tied=False),
}
each_student = pytest.mark.parametrize("build", STUDENTS.values(), ids=STUDENTS.keys())


def student(method=lora, keys="all", **model):
    """A student that has moved from where it began."""
    model = tiny_model(**model)
    method.attach(model, Settings(keys=keys))
    if method is lora:
        randomize_adapter(model, 0.1)
    return model


def cross_entropy_float64(logits, row) -> float:
    """The plainest form there is: softmax in float64, one completion token at a time; logits [T, V]."""
    total = 0.0
    for i, token in enumerate(row.completion_ids):
        z = np.asarray(logits[len(row.prompt_ids) - 1 + i], dtype=np.float64)
        total += np.log(np.exp(z - z.max()).sum()) + z.max() - z[token]
    return total


def loss_row_by_row(model, rows) -> float:
    """In nats a completion token."""
    total = sum(
        cross_entropy_float64(np.array(model(mx.array([[*row.prompt_ids, *row.completion_ids]]))[0]), row)
        for row in rows
    )
    return total / sum(len(row.completion_ids) for row in rows)


def plain_gradient(model, rows):
    """Loss and gradient by autodiff through all logits of a padded batch: what is to be equalled."""
    batch = pad_rows(rows)

    def mean(tokens):
        logits = model(tokens).reshape(-1, CONFIG["vocab_size"])[mx.array(batch.positions)].astype(mx.float32)
        return nn.losses.cross_entropy(logits, mx.array(batch.targets), reduction="mean")

    value, gradient = nn.value_and_grad(model, mean)(mx.array(batch.tokens))
    return value.item(), dict(tree_flatten(gradient))


def assert_same(found, expected, rtol=1e-4, atol=2e-6):
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert mx.allclose(found[name], gradient, rtol=rtol, atol=atol), name


@pytest.fixture
def few_positions(monkeypatch):
    """Chunks of seven positions."""
    monkeypatch.setattr(loss, "CHUNK_BYTES", 7 * 4 * CONFIG["vocab_size"])


@each_student
def test_chunked_equals_full_logits(build, few_positions):
    model, rows = build(), make_rows(8)
    found, gradient = step_gradient(model, output_head(model), [pack_rows(rows)])
    expected, plain = plain_gradient(model, rows)
    assert found.total == pytest.approx(expected, rel=1e-6) and found.kept_mass is None
    assert max(mx.abs(g).max().item() for g in plain.values()) > 1e-2
    assert_same(gradient, plain)


@each_student
@pytest.mark.parametrize("policy", [None, DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.2, top_p=0.9)])
def test_the_size_of_chunks_and_the_cut_into_micro_batches_do_not_matter(build, policy, monkeypatch):
    model, rows = build(), make_rows(7)
    head = output_head(model)
    method = lora if any("lora" in name for name, _ in tree_flatten(model.trainable_parameters())) else full
    soft = Soft(method.base_of(model, head), policy) if policy else None
    whole, expected = step_gradient(model, head, [pack_rows(rows)], soft)
    monkeypatch.setattr(loss, "CHUNK_BYTES", 7 * 4 * CONFIG["vocab_size"])
    parts, gradient = step_gradient(model, head, [pack_rows(rows[:1]), pad_rows(rows[1:3]), pack_rows(rows[3:])], soft)
    assert parts.tokens == whole.tokens == sum(len(row.completion_ids) for row in rows)
    assert parts.total == pytest.approx(whole.total, rel=1e-5)
    assert parts.kept_mass == (pytest.approx(whole.kept_mass, rel=1e-4) if policy else None)
    assert_same(gradient, expected, rtol=1e-3, atol=1e-5)


def test_tokens_weigh_alike_however_uneven_the_micro_batches():
    """mlx-lm averages micro-batches: a token in a small one counts for more (issue 1413)."""
    model = student()
    long, short = make_rows(20, longest=20)[:2]
    head = output_head(model)
    found, _ = step_gradient(model, head, [pack_rows([long]), pack_rows([short])])
    assert len(long.completion_ids) != len(short.completion_ids)
    assert found.total == pytest.approx(loss_row_by_row(model, [long, short]), rel=1e-5)
    means = [loss_row_by_row(model, [row]) for row in (long, short)]
    assert abs(found.total - np.mean(means)) > 1e-3


def test_equals_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, rows = tiny_model(), make_rows(6)
    reference = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**CONFIG)).double().eval()
    weights = {name: torch.tensor(np.array(value)) for name, value in tree_flatten(model.parameters())}
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    assert (set(missing), unexpected) == ({"lm_head.weight"}, [])
    expected, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        labels = torch.tensor([[-100] * len(row.prompt_ids) + row.completion_ids])
        with torch.no_grad():
            logits = reference(ids).logits
        expected += torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum").item()
        tokens += len(row.completion_ids)
    found = mean_loss(model, output_head(model), [pack_rows(rows)])
    assert found.tokens == tokens and found.total == pytest.approx(expected / tokens, rel=1e-5)


def test_a_model_whose_head_is_not_plain_takes_the_whole_forward_pass(few_positions):
    class Capped(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = student()
            self.model = self.whole.model

        @property
        def layers(self):
            return self.whole.layers

        def __call__(self, tokens):
            return 2 * mx.tanh(self.whole(tokens) / 2)

    model, rows = Capped(), make_rows(4)
    assert output_head(model) is None
    found, gradient = step_gradient(model, None, [pack_rows(rows)])
    expected, plain = plain_gradient(model, rows)
    assert found.total == pytest.approx(expected, rel=1e-6)
    assert_same(gradient, plain)


def test_only_positions_that_predict_a_completion_token_carry_gradient():
    """Seen at the embedding: a completion's last token is no input, and what follows the last target has no part."""
    model, rows = tiny_model(tied=False), make_rows(4)
    model.freeze()
    model.model.embed_tokens.unfreeze()
    row = max(rows, key=lambda row: len(row.completion_ids))
    used = [90, 91, 92, 93, 94]
    row = type(row)("p", 0, used[:2], used[2:])
    _, gradient = step_gradient(model, output_head(model), [pack_rows([row, rows[0]])])
    moved = mx.abs(gradient["model.embed_tokens.weight"]).sum(axis=-1) > 0
    assert moved[mx.array(used)].tolist() == [True, True, True, True, False]


def test_loss_terms_add_up_and_the_kept_mass_is_the_students_on_the_support():
    """Appendix B.1: L = -log kept mass + cross-entropy within the support."""
    logits = 2 * mx.random.normal((6, 96), key=mx.random.key(0))
    ids = mx.argpartition(-logits, 4, axis=-1)[:, :5].astype(mx.uint32)
    q = mx.softmax(mx.random.normal((6, 5), key=mx.random.key(1)), axis=-1)
    q = mx.where(mx.arange(5) < 3, q, 0)  # of five candidates three are in the support
    q = q / q.sum(axis=-1, keepdims=True)
    total, gate = cross_entropy(logits, Targets(ids, q, mx.zeros((6, 1), dtype=mx.bool_)))
    p = np.array(mx.softmax(logits, axis=-1), dtype=np.float64)
    inside = np.take_along_axis(p, np.array(ids).astype(int), axis=-1)[:, :3]
    weights = np.array(q)[:, :3]
    assert gate.item() == pytest.approx(-np.log(inside.sum(-1)).sum(), rel=1e-5)
    conditional = -(weights * np.log(inside / inside.sum(-1, keepdims=True))).sum()
    assert total.item() == pytest.approx(gate.item() + conditional, rel=1e-5)


def test_tokens_are_targets_of_one_candidate():
    logits, tokens = mx.random.normal((4, 96), key=mx.random.key(3)), np.array([5, 0, 95, 5])
    targets = token_targets(tokens)(0, 4)
    total, gate = cross_entropy(logits, targets)
    expected = nn.losses.cross_entropy(logits, mx.array(tokens), reduction="sum").item()
    assert total.item() == pytest.approx(expected, rel=1e-6) == pytest.approx(gate.item(), rel=1e-6)
    gradient = mx.grad(lambda z: cross_entropy(z, targets)[0])(logits)
    plain = mx.grad(lambda z: nn.losses.cross_entropy(z, mx.array(tokens), reduction="sum"))(logits)
    assert mx.allclose(gradient, plain, atol=1e-6)


@pytest.mark.parametrize("policy", [None, DecodingPolicy(1.6, 20, 0.8)])
def test_the_loss_alone_is_that_of_the_step(policy, few_positions):
    model, rows = student(), make_rows(7)
    head = output_head(model)
    soft = Soft(lora.base_of(model, head), policy) if policy else None
    batches = [pack_rows(rows[:4]), pad_rows(rows[4:])]
    alone, (step, _) = mean_loss(model, head, batches, soft), step_gradient(model, head, batches, soft)
    assert alone.total == pytest.approx(step.total, rel=1e-6) and alone.tokens == step.tokens
    assert alone.terms == (pytest.approx(step.terms, rel=1e-5) if policy else {})


def test_logits_of_all_positions_never_exist():
    """2,048 positions of a vocabulary of 32,768: 268 MB a float32 copy. Ours holds two chunks of 64 MB at most."""
    positions, vocabulary, hidden = 2048, 32_768, 64
    model = nn.Module()
    model.lm_head = nn.Linear(hidden, vocabulary, bias=False)
    model.freeze()
    states, tokens = mx.random.normal((positions, hidden)), np.arange(positions)
    mx.eval(model.parameters(), states)

    def peak(call):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(call())
        return mx.get_peak_memory() - before

    def full_logits():
        return mx.grad(lambda x: nn.losses.cross_entropy(model.lm_head(x), mx.array(tokens), reduction="sum"))(states)

    def ours():
        return loss.head_gradient(model, loss.Head("lm_head", False), states, token_targets(tokens), 1).of_states

    found = peak(ours)
    assert found < 3.5 * loss.CHUNK_BYTES
    assert peak(full_logits) > 2 * positions * vocabulary * 4


@pytest.mark.parametrize("top_k, top_p", [(20, 0.8), (0, 1.0), (0, 0.95)])
def test_soft_targets_take_no_more_where_they_are_over_the_whole_vocabulary(top_k, top_p):
    """What a plan reckons with, whatever the sampling policy is: 14 bytes a logit of a chunk."""
    positions, vocabulary, hidden = 1024, 32_768, 64
    model = nn.Module()
    model.lm_head = nn.Linear(hidden, vocabulary, bias=False)
    model.freeze()
    states = mx.random.normal((positions, hidden))
    soft = Soft(lambda batch: (states, model.lm_head), DecodingPolicy(1.2, top_k, top_p))
    mx.eval(model.parameters(), states)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    targets = soft_targets(soft.base, None, soft.policy)
    mx.eval(loss.head_gradient(model, loss.Head("lm_head", False), states, targets, positions, soft).of_states)
    assert mx.get_peak_memory() - before < 1.25 * 14 * loss.CHUNK_BYTES / 4


@pytest.mark.parametrize("policy", [None, DecodingPolicy(1.6, 20, 0.8)], ids=["tokens", "distribution"])
def test_there_is_a_sign_of_life_at_every_forward_and_backward_pass_and_chunk(policy, few_positions, monkeypatch):
    """On a GPU the processor does next to nothing meanwhile, and a step may take longer than a hang."""
    model, rows = student(), make_rows(6)
    head, batches = output_head(model), [pack_rows(rows[i : i + 2]) for i in (0, 2, 4)]
    soft = Soft(lora.base_of(model, head), policy) if policy else None
    events = []
    monkeypatch.setattr(loss.heartbeat, "alive", lambda: events.append("alive"))
    for name in ("forward_pass", "completion_states", "cross_entropy"):
        real = getattr(loss, name)
        monkeypatch.setattr(loss, name, lambda *given, n=name, real=real: (events.append(n), real(*given))[1])
    for measure in (step_gradient, mean_loss):
        events.clear()
        measure(model, head, batches, soft)
        work = [i for i, event in enumerate(events) if event != "alive"]
        assert len(work) > 2 * len(batches) and all(events[i + 1] == "alive" for i in work), measure
