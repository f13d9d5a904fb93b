"""What a supervisor is told, and how often."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_ssd import heartbeat
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.export import verify
from mlx_ssd.export.quantizer import rounding
from mlx_ssd.export.reference import MlxReader
from mlx_ssd.export.texts import Text
from mlx_ssd.parity import decoding as parity_decoding
from mlx_ssd.parity import logits as parity_logits
from mlx_ssd.parity.row import differences
from mlx_ssd.sampling import engine
from mlx_ssd.sampling.requests import Request
from mlx_ssd.sampling.server import checks
from mlx_ssd.training.batches import pack_rows
from mlx_ssd.training.forward import output_head
from tests.training.tiny import make_rows, tiny_model


@pytest.fixture
def said(monkeypatch):
    """Everything on the line so far."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    monkeypatch.setattr(heartbeat, "_pipe", writes)
    monkeypatch.setattr(heartbeat, "_beaten", 0.0)
    monkeypatch.setattr(heartbeat, "_lived", 0.0)
    yield lambda: [json.loads(line) for line in os.read(reads, 1 << 16).splitlines()]
    os.close(reads)
    os.close(writes)


def test_signs_of_life_are_few_and_never_take_a_mark_s_place(said):
    for _ in range(1000):
        heartbeat.alive()
    heartbeat.beat("train", 1, 2)
    heartbeat.alive()
    assert said() == [{"alive": True}, {"at": "train", "done": 1, "total": 2}]


def test_without_a_supervisor_nothing_is_said(monkeypatch):
    monkeypatch.setattr(heartbeat, "_pipe", None)
    monkeypatch.setattr(heartbeat, "_tell", None)
    heartbeat.alive()
    heartbeat.beat("train", 1, 2)


ROWS = make_rows(6)
TEXTS = [Text(tuple(row.prompt_ids), tuple(row.completion_ids), False) for row in ROWS]


def of_moments():
    model, batches = tiny_model(), [pack_rows([row]) for row in ROWS]
    dict(rounding.second_moments(model, output_head(model), {"model.layers.0.mlp.gate_proj": 32}, batches))


def of_prompts():
    """Run before anything is drawn, a chunk at a time."""
    requests = [Request(i, [1 + i] * 6, DecodingPolicy(1.0), (i, 0), 1) for i in range(6)]
    decoding = engine.Decoding(tiny_model(), requests, [0], rows=6)
    decoding._prefill._tokens = 1
    list(decoding.run())


def of_draws():
    pytest.importorskip("torch")
    parity_decoding._differing(DecodingPolicy(1.0), np.zeros((2, 8), np.float32), np.array([1, 2], np.uint32))


def of_own_logits():
    own = checks.Own(tiny_model())
    for row in ROWS:
        own.logits(checks.Drawn(row.prompt_ids, row.completion_ids, None))


def of_texts(each):
    return lambda: [each(text) for text in TEXTS]


def of_parity():
    vocabulary = np.zeros((1, 64, 8), np.float32)
    list(parity_logits._each(SimpleNamespace(texts=TEXTS, by_layer=False), lambda ids: vocabulary))


@pytest.mark.parametrize(
    "work, least",
    {
        "what the quantizer looks at": (of_moments, 6),
        "prompts before decoding": (of_prompts, 6),
        "logits of an export's student": (of_texts(lambda text: MlxReader(tiny_model()).logits(text)), 6),
        "logits of an export": (lambda: list(verify._read(SimpleNamespace(logits=lambda text: 0), TEXTS)), 6),
        "logits beside PyTorch's": (of_parity, 6),
        "weights beside PyTorch's": (lambda: differences([([1.0], [1.0])] * 6), 6),
        "draws beside PyTorch's": (of_draws, 1),
        "a server's tokens": (of_own_logits, 6),
    }.values(),
)
def test_what_computes_for_long_is_alive(work, least, monkeypatch):
    signs = []
    monkeypatch.setattr(heartbeat, "alive", lambda: signs.append(1))
    work()
    assert len(signs) >= least
