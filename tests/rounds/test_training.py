"""Training in a later round: from whose distribution the targets come, and from which weights it goes on."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tuner.utils import load_adapters

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.training import full
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import completion_states, output_head
from mlx_ssd.training.loop import train
from mlx_ssd.training.lora import adapter_weights, attach
from mlx_ssd.training.teacher import read_weights, wearing
from tests.training.tiny import Settings, make_rows, tiny_model

ROWS = make_rows(6)
POLICY = DecodingPolicy(1.6, top_k=20, top_p=0.8)
ONE_STEP = Settings(epochs=1, rows_per_step=len(ROWS), warmup_fraction=0)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The adapter of an earlier round, that has learnt some."""
    return train(tiny_model(), ROWS, Settings(epochs=6), tmp_path_factory.mktemp("before"), {}).adapter


def logits(model):
    """float64 [completion positions, V], one row of the data at a time."""
    found = []
    for row in ROWS:
        z = np.array(model(mx.array([[*row.prompt_ids, *row.completion_ids]]))[0], dtype=np.float64)
        first = len(row.prompt_ids) - 1
        found.append(z[first : first + len(row.completion_ids)])
    return np.concatenate(found)


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def first_loss(folder):
    return json.loads((folder / "train_log.jsonl").read_text().splitlines()[0])["loss"]


def cross_entropy(teacher, student):
    q = np.array([POLICY.reference_probabilities(z.astype(np.float32)) for z in logits(teacher)])
    return -(q * log_softmax(logits(student))).sum(axis=-1).mean()


@pytest.mark.parametrize("taught_by_the_student", [False, True])
@pytest.mark.parametrize("goes_on", [False, True])
def test_first_loss_is_the_cross_entropy_between_teacher_and_beginning(
    before, tmp_path, taught_by_the_student, goes_on
):
    """A fresh adapter is the base itself, so the first step's loss is known without any training code."""
    base, student = tiny_model(), load_adapters(tiny_model(), str(before))
    train(
        tiny_model(), ROWS, ONE_STEP.but(targets="distribution"), tmp_path, {}, target_policy=POLICY,
        teacher=before if taught_by_the_student else None, beginning=before if goes_on else None,
    )  # fmt: skip
    expected = cross_entropy(student if taught_by_the_student else base, student if goes_on else base)
    assert first_loss(tmp_path) == pytest.approx(expected, rel=1e-4)
    others = {cross_entropy(t, s) for t in (base, student) for s in (base, student)} - {expected}
    assert all(abs(other - expected) > 0.01 for other in others)  # else the line above would not tell


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_goes_on_from_the_weights_before(tmp_path, method):
    settings = Settings(method=method, epochs=6, learning_rate=1e-2 if method == "lora" else 1e-3)
    before = train(tiny_model(), ROWS, settings, tmp_path / "before", {}).adapter
    one = ONE_STEP.but(method=method)
    train(tiny_model(), ROWS, one, tmp_path / "on", {}, beginning=before)
    student = load_adapters(tiny_model(), str(before))
    tokens = np.concatenate([row.completion_ids for row in ROWS])
    expected = -log_softmax(logits(student))[np.arange(len(tokens)), tokens].mean()
    assert first_loss(tmp_path / "on") == pytest.approx(expected, rel=1e-4)
    train(tiny_model(), ROWS, one, tmp_path / "fresh", {})
    assert first_loss(tmp_path / "fresh") > expected + 0.1


def test_the_base_of_a_full_fine_tuning_is_the_base_wherever_it_begins(tmp_path):
    settings = Settings(method="full", epochs=4, learning_rate=1e-3)
    before = train(tiny_model(), ROWS, settings, tmp_path / "before", {}).adapter
    once = ONE_STEP.but(method="full", targets="distribution")
    train(tiny_model(), ROWS, once, tmp_path / "on", {}, target_policy=POLICY, beginning=before)
    student = load_adapters(tiny_model(), str(before))
    assert first_loss(tmp_path / "on") == pytest.approx(cross_entropy(tiny_model(), student), rel=1e-4)


def test_interrupted_and_resumed_with_a_teacher_is_as_uninterrupted(before, tmp_path):
    class Stop(Exception):
        pass

    def stop(**progress):
        if progress["step"] == 3:
            raise Stop

    settings = Settings(epochs=3, targets="distribution", dropout=0.1)
    of_before = {"target_policy": POLICY, "teacher": before, "beginning": before}
    train(tiny_model(), ROWS, settings, tmp_path / "whole", {}, **of_before)
    with pytest.raises(Stop):
        train(tiny_model(), ROWS, settings, tmp_path / "cut", {}, stop, **of_before)
    assert train(tiny_model(), ROWS, settings, tmp_path / "cut", {}, **of_before).resumed_from == 2
    for name in ("train_log.jsonl", "adapter/adapters.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_trained_is_the_teachers_too(tied):
    model = tiny_model(tied=tied)
    full.attach(model, Settings(method="full"))
    head, batch = output_head(model), pack_rows(ROWS)
    weights = {name: array * 1.1 for name, array in adapter_weights(model).items()}
    teacher = wearing(model, head, weights)
    states, of_head = teacher(batch)
    found = np.array(of_head(states))
    before = np.array(head.of(model)(completion_states(model, head, batch)))
    model.load_weights(list(weights.items()), strict=False)
    assert np.allclose(found, np.array(head.of(model)(completion_states(model, head, batch))), atol=1e-4)
    assert not np.allclose(found, before, atol=1e-2)


def test_an_adapter_of_other_settings_is_refused(before):
    model = tiny_model()
    attach(model, Settings(rank=8))
    with pytest.raises(BadInput, match="no adapter of these train settings: rank, keys or layers are others"):
        read_weights(model, before)
