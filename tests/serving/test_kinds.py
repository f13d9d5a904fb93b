"""Kinds: what is sent, what is read, who is who, and when an order matters."""

import itertools
import json

import numpy as np
import pytest

from benchmarks.faulty_server import FaultyServer
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.server.asking import Asking
from mlx_ssd.sampling.server.client import Client, Fault
from mlx_ssd.sampling.server.kinds import (
    KINDS,
    ORDERS,
    Asked,
    Peer,
    Question,
    check_order,
    detect,
    order_of,
    same_distribution,
)
from mlx_ssd.sections import Server

ASKED = Asked((5, 6, 7))
QUESTION = Question(ASKED, DecodingPolicy(1.6, 20, 0.8), 64, 9, logprobs=True)


def support(policy, order, logits):
    """By the plain words of an order, joint included."""
    if order != "joint":
        return set(DecodingPolicy(policy.temperature, policy.top_k, policy.top_p, order).support(logits).tolist())
    ranked = np.argsort(-logits, kind="stable")
    mass = np.exp(logits[ranked] / policy.temperature)
    before = np.cumsum(mass / mass.sum()) - mass / mass.sum()
    return set(ranked[before < policy.top_p - 1e-9][: policy.top_k or None].tolist())


@pytest.mark.parametrize("own, its", list(itertools.product(("temperature_first", "mlx_lm", "llama_cpp"), ORDERS)))
@pytest.mark.parametrize("temperature, top_k, top_p", list(itertools.product((0.6, 1.0, 1.6), (0, 5), (0.7, 1.0))))
def test_an_order_matters_exactly_where_the_supports_differ(own, its, temperature, top_k, top_p):
    policy = DecodingPolicy(temperature, top_k, top_p, own)
    random = np.random.default_rng(0)
    rows = random.normal(0, 2, (200, 30))
    differ = any(support(policy, own, row) != support(policy, its, row) for row in rows)
    assert same_distribution(policy, its) == (not differ)


def test_greedy_is_the_same_in_every_order():
    assert all(same_distribution(DecodingPolicy(0.0, 20, 0.8), order) for order in ORDERS)


def test_servers_of_another_order_are_refused_with_the_mend():
    paper = DecodingPolicy(1.6, 20, 0.8)
    with pytest.raises(BadInput, match="truncates before it tempers.*sample.decoding.order to mlx_lm, set top_p to 1"):
        check_order(paper, "mlx_lm 0.32.2", "mlx_lm")
    with pytest.raises(BadInput, match="of the whole tempered distribution, not of the top k.*set top_k to 0"):
        check_order(paper, "sglang 0.5", "joint")
    with pytest.raises(BadInput, match="is not known, and for t1.6-k20-p0.8 it matters; say it in sample.server.order"):
        check_order(paper, "other", None)
    check_order(paper, "vllm 0.11.0", "temperature_first")
    check_order(DecodingPolicy(1.6, 20, 0.8, "mlx_lm"), "mlx_lm 0.32.2", "mlx_lm")
    check_order(DecodingPolicy(1.6, 20), "other", None)


@pytest.mark.parametrize("version, order", [("0.32.2", "mlx_lm"), ("0.20.1", None), ("0.40.0", None), (None, None)])
def test_the_order_of_mlx_lm_is_known_of_the_version_that_was_read(version, order):
    peer = Peer(KINDS["mlx_lm"], version, "m")
    assert order_of(peer, Server(url="http://x")) == order
    assert order_of(peer, Server(url="http://x", order="temperature_first")) == (order or "temperature_first")


def test_what_is_sent_shapes_the_distribution_completely():
    off = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    vllm = KINDS["vllm"].body("m", QUESTION)
    shape = {"temperature": 1.6, "top_p": 0.8, "top_k": 20}
    assert vllm == {
        **off, **shape, "model": "m", "prompt": [5, 6, 7], "max_tokens": 64, "stream": False, "seed": 9, "logprobs": 0,
        "return_token_ids": True,
    }  # fmt: skip
    sglang = KINDS["sglang"].body("", QUESTION)
    assert sglang["sampling_params"] == {**off, **shape, "max_new_tokens": 64, "sampling_seed": 9}
    assert sglang["input_ids"] == [5, 6, 7] and sglang["return_logprob"] is True
    text = Question(Asked((5, 6, 7), "abc"), DecodingPolicy(1.6), 64)
    assert KINDS["mlx_lm"].body("m", text) == {
        "model": "m", "prompt": "abc", "max_tokens": 64, "temperature": 1.6, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "logprobs": True, "stream": False,
    }  # fmt: skip
    assert KINDS["lm_studio"].body("m", text)["repeat_penalty"] == 1.0
    assert "top_k" not in KINDS["other"].body("m", text)  # which a strict one would refuse
    # 0 would be a limit of none in one server and of nothing in another.
    assert [KINDS[name].body("m", text).get("top_k") for name in ("vllm", "mlx_lm", "lm_studio")] == [-1, 0, 0]
    assert KINDS["sglang"].body("m", text)["sampling_params"]["top_k"] == -1


def test_sglangs_own_answer_is_read():
    drawn = [[-0.5, 11, None], [-1.5, 12, None]]
    meta = {"finish_reason": {"type": "stop", "matched": 12}, "prompt_tokens": 3, "completion_tokens": 2}
    answer = KINDS["sglang"].read({"text": "ab", "meta_info": meta | {"output_token_logprobs": drawn}})
    assert (answer.ids, answer.logprobs, answer.finish, answer.prompt_tokens) == ([11, 12], [-0.5, -1.5], "stop", 3)


def test_ids_are_read_where_a_server_has_them():
    def read(**choice):
        return KINDS["other"].read({"choices": [{"text": "ab", "finish_reason": "length"} | choice]})

    assert read().ids is None and read().logprobs is None
    assert read(token_ids=[1, 2]).ids == [1, 2]
    content = [{"id": 3, "logprob": -0.1}, {"id": 4, "logprob": -0.2}]
    assert read(logprobs={"content": content}).ids == [3, 4]
    assert read(logprobs={"content": content}).logprobs == [-0.1, -0.2]
    assert read(logprobs={"tokens": ["a"], "token_logprobs": [-0.3]}).logprobs == [-0.3]
    assert read(finish_reason="tool_calls").finish == "stop"


GOOD = {"text": "a", "finish_reason": "stop", "token_ids": [1]}


@pytest.mark.parametrize(
    "found, said",
    [
        ([], "no an object"),
        ({}, "no choices of one element"),
        ({"choices": [GOOD, GOOD]}, "no choices of one element"),
        ({"choices": ["a"]}, "no choices of one element"),
        ({"choices": [GOOD | {"text": None}]}, "no a text"),
        ({"choices": [GOOD | {"token_ids": [1, "2"]}]}, "no whole numbers as token ids"),
        ({"choices": [GOOD | {"token_ids": [True]}]}, "no whole numbers as token ids"),
        ({"choices": [GOOD | {"token_ids": [-1]}]}, "no whole numbers as token ids"),
        ({"choices": [GOOD | {"finish_reason": "abort"}]}, "ended an answer by 'abort', neither stop nor length"),
        ({"choices": [GOOD | {"logprobs": {"content": [1]}}]}, "objects in logprobs.content"),
    ],
)
def test_json_of_the_wrong_shape_is_a_fault_in_one_sentence(found, said):
    with pytest.raises(Fault, match=said) as fault:
        KINDS["vllm"].read(found)
    assert fault.value.name == "malformed" and "\n" not in str(fault.value)


def test_a_log_probability_that_is_none_is_not_believed():
    for value in (0.5, float("nan"), float("-inf"), None, "x"):
        given = {"logprobs": {"tokens": ["a"], "token_logprobs": [value]}}
        assert KINDS["other"].read({"choices": [GOOD | given]}).logprobs is None


FINGERPRINT = "0.32.2-0.32.4-macOS-26.0-arm64-arm-64bit-applegpu_g16s"
SERVERS = {
    "vllm": {"/v1/models": {"data": [{"id": "q", "owned_by": "vllm"}]}, "/version": {"version": "0.11.0"}},
    "sglang": {
        "/v1/models": {"data": [{"id": "q", "owned_by": "sglang"}]},
        "/get_server_info": {"version": "0.5.3"},
    },
    "mlx_lm": {"/v1/completions": {"system_fingerprint": FINGERPRINT}},
    "lm_studio": {"/v1/models": {"data": [{"id": "q", "owned_by": "organization_owner"}]}},
    "other": {"/v1/models": {"data": [{"id": "q", "owned_by": "me"}]}, "/v1/completions": {"system_fingerprint": "b1"}},
}


@pytest.mark.parametrize("kind", SERVERS)
def test_each_kind_is_told_by_what_it_says_of_itself(kind):
    said = SERVERS[kind]

    def backend(path, body):
        return (200, json.dumps(said[path]).encode()) if path in said else (404, b"Not Found")

    with FaultyServer(backend) as server:
        for asked in ("auto", kind):
            client = Client(server.url, 5)
            peer = detect(client, Server(url=server.url, kind=asked), Asking(client, 1, 2).until_answered)
            version = {"vllm": "0.11.0", "sglang": "0.5.3", "mlx_lm": "0.32.2"}.get(kind)
            model = {"mlx_lm": "default_model", "sglang": ""}.get(kind, "q")
            assert (peer.kind.name, peer.version, peer.model) == (kind, version, model)
            named = detect(client, Server(url=server.url, kind=asked, model="mine"), lambda call: call())
            assert named.model == "mine" and named.kind.name == kind


def test_a_server_without_models_must_be_told_which():
    with FaultyServer(lambda path, body: (404, b"")) as server:
        client = Client(server.url, 5)
        with pytest.raises(BadInput, match="name one in sample.server.model"):
            detect(client, Server(url=server.url, kind="vllm"), Asking(client, 1, 2).until_answered)
