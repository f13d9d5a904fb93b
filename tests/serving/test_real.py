"""A real mlx_lm.server on the embedded model, alone and behind a server that fails."""

import dataclasses
import json
import shutil

import mlx.core as mx
import pytest

from benchmarks.faulty_server import FaultyServer, Upstream
from mlx_ssd import assets, models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.server import asking, kinds
from mlx_ssd.sections import Model
from tests.serving.conftest import PAPER, draw, mlx_lm_server, samples, settings

OWN = DecodingPolicy(1.6, 20, 0.8, "mlx_lm")  # the paper's numbers in that server's order


def ids(path):
    return {sample.key: sample.completion_ids for sample in samples(path)}


def test_it_draws_what_it_is_asked_for_and_says_so(real, tmp_path):
    path = tmp_path / "samples.jsonl"
    facts = draw(settings(real), path, OWN)["server"]
    assert (facts["kind"], facts["order"], facts["seeded"], facts["token_ids"]) == ("mlx_lm", "mlx_lm", True, "given")
    assert facts["checked"]["mean_difference"] < 1e-4 and facts["checked"]["tokens"] > 60
    assert abs(facts["checked"]["decoding_z"]) < 4 and facts["checked"]["rival_log10_e"] < 3
    tokenizer = models.load_generating_tokenizer(models.locate(Model()))
    assert len(samples(path)) == 8
    for sample in samples(path):
        assert sample.drawn_by.startswith("mlx_lm 0.32.") and sample.retokenized is False
        ended = [token in tokenizer.eos_token_ids for token in sample.completion_ids]
        assert not any(ended[:-1]) and ended[-1] == (sample.finish_reason == "stop")
        assert ended[-1] or len(sample.completion_ids) == 64


def test_behind_a_server_that_fails_the_samples_are_the_same(real, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)
    draw(settings(real, tolerance=None), tmp_path / "a.jsonl", OWN)
    kinds_of_fault = ("500", "closed", "truncated", "malformed", "garbage")  # stalls: test_faults, with quicker answers
    with FaultyServer(Upstream(real), 0.3, kinds_of_fault, seed=3) as server:
        draw(settings(server.url, tolerance=None), tmp_path / "b.jsonl", OWN)
    assert len(server.faults) >= 4
    assert ids(tmp_path / "a.jsonl") == ids(tmp_path / "b.jsonl") and len(ids(tmp_path / "a.jsonl")) == 8


def test_its_order_is_refused_where_it_matters(real, tmp_path):
    with pytest.raises(BadInput, match="mlx_lm 0.32.* truncates before it tempers"):
        draw(settings(real), tmp_path / "samples.jsonl", PAPER)
    assert not (tmp_path / "samples.jsonl").exists()


def test_its_draws_alone_give_its_order_away(real, tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "mlx_lm", dataclasses.replace(kinds.KINDS["mlx_lm"], order="temperature_first"))
    with pytest.raises(BadInput, match="does not draw by t1.6-k20-p0.8 in order temperature_first: .* likelier"):
        # more prompts, so that no chance of a batch decides the test
        draw(settings(real, concurrency=32, seeds=False), tmp_path / "samples.jsonl", PAPER, problems=24)


def test_another_model_is_refused_with_the_largest_difference(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(assets.model_path(), folder)
    (weights,) = folder.glob("*.safetensors")
    found = mx.load(str(weights))
    name = next(name for name in found if "down_proj" in name and name.endswith("weight"))
    found[name] = found[name] * 1.5  # one matrix of them all: 0.005 nats
    mx.eval(found)
    mx.save_safetensors(str(weights), found, {"format": "mlx"})
    with mlx_lm_server(folder) as url, pytest.raises(BadInput) as error:
        draw(settings(url, seeds=False, tolerance=1e-3), tmp_path / "samples.jsonl", OWN)
    said = str(error.value)
    assert said.startswith("the server's model is not the recipe's: its log-probabilities differ by 0.0")
    assert ", at most by " in said and "\n" not in said


def test_its_own_settings_are_overridden(real, tmp_path):
    """What a question leaves out the server takes from its command line, temperature 0 for one."""
    seen = []

    def backend(path, body):
        seen.append(json.loads(body) if body else {})
        return Upstream(real)(path, body)

    with FaultyServer(backend) as server:
        draw(settings(server.url, tolerance=None), tmp_path / "samples.jsonl", OWN, problems=2)
    asked = [body for body in seen if body.get("max_tokens") == 64]
    assert asked and all({"temperature", "top_p", "top_k", "min_p", "seed"} <= set(body) for body in asked)
    assert all(isinstance(body["prompt"], str) for body in asked)
