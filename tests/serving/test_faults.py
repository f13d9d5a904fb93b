"""A server that fails and misbehaves: every sample is there once, or one sentence says what is wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from benchmarks.faulty_server import FAULTS, Canned, FaultyServer
from mlx_ssd import heartbeat, models
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.server import asking
from mlx_ssd.sections import Model
from tests.serving.conftest import PAPER, draw, samples, settings

END = 2  # the embedded model's end of turn


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)


def unlooked(url, **changes):
    return settings(url, **{"tolerance": None, "timeout_seconds": 2.0, **changes})


def ids(path):
    return {sample.key: (sample.completion_ids, sample.finish_reason) for sample in samples(path)}


def test_the_end_of_turn_is_the_embedded_models():
    assert END in models.load_generating_tokenizer(models.locate(Model())).eos_token_ids


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "samples.jsonl"
    with FaultyServer(Canned(END)) as server:
        draw(unlooked(server.url), path, problems=20, samples=3)
    return ids(path)


def test_of_a_server_that_fails_all_samples_are_there_once_and_the_same(undisturbed, tmp_path):
    path = tmp_path / "samples.jsonl"
    with FaultyServer(Canned(END), 0.3, seed=4, stall=3.0) as server:
        facts = draw(unlooked(server.url), path, problems=20, samples=3)
    assert set(server.faults) == set(FAULTS)  # or the test is empty
    assert ids(path) == undisturbed and len(undisturbed) == 60
    # late and stall are both time-outs; what cannot be told from one another here is counted under one name.
    names = {
        "500": "status 500", "503": "status 503", "stall": "time-out", "late": "time-out", "truncated": "truncated",
        "closed": "connection", "malformed": "malformed", "garbage": "malformed",
    }  # fmt: skip
    counted = dict.fromkeys(names.values(), 0)
    for fault, count in server.faults.items():
        counted[names[fault]] += count
    assert facts["server"]["faults"] == counted


def test_what_comes_late_is_not_read(tmp_path):
    """Every answer is late at its first try, and is another one at its second."""
    tries = {}

    def backend(path, body):
        status, data = Canned(END)(path, body)
        if body is None:
            return status, data
        number = tries[body] = tries.get(body, 0) + 1
        found = json.loads(data)
        if json.loads(body)["max_tokens"] == 63:
            found["choices"][0]["token_ids"][0] = 10 + number
            if number == 1:
                time.sleep(1.0)
        return status, json.dumps(found).encode()

    path = tmp_path / "samples.jsonl"
    with FaultyServer(backend) as server:
        draw(unlooked(server.url, timeout_seconds=0.5), path, problems=4, max_tokens=63)
        time.sleep(0.7)  # the late ones have come by now
    assert [sample.completion_ids[0] for sample in samples(path)] == [12] * 4


def test_a_server_that_never_recovers_ends_the_work_and_all_is_kept(undisturbed, tmp_path):
    path = tmp_path / "samples.jsonl"
    answered = 0

    def backend(path, body):
        nonlocal answered
        answered += body is not None
        return Canned(END)(path, body) if answered < 60 else (500, b'{"error": "gone"}')

    with FaultyServer(backend) as server, pytest.raises(WorkFailed) as error:
        draw(unlooked(server.url, concurrency=2, retries=2), path, problems=20, samples=3)
    assert "answers 500: gone; 3 tries, then given up" in str(error.value)
    kept = ids(path)
    assert 0 < len(kept) < 60 and kept.items() <= undisturbed.items()
    with FaultyServer(Canned(END)) as server:
        facts = draw(unlooked(server.url), path, problems=20, samples=3)
    assert facts["completions"] == 60 - len(kept)
    assert ids(path) == undisturbed


CHILD = """
from mlx_ssd import models
models.without_pytorch()
import sys
from pathlib import Path
from tests.serving.conftest import draw, settings
draw(settings(sys.argv[1], tolerance=None), Path(sys.argv[2]), problems=20, samples=3)
"""


def test_after_a_kill_nothing_is_lost_but_what_was_on_its_way_and_nothing_doubled(undisturbed, tmp_path):
    path = tmp_path / "samples.jsonl"
    with FaultyServer(Canned(END, seconds_a_token=0.01)) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, server.url, str(path)], stderr=subprocess.DEVNULL)
        while not path.exists() or b"\n" not in path.read_bytes():
            assert child.poll() is None
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert 0 < len(samples(path)) < 60
        draw(unlooked(server.url), path, problems=20, samples=3)
    assert ids(path) == undisturbed


def test_no_more_questions_than_allowed_are_asked_at_a_time(tmp_path):
    at_once, most = 0, 0

    def backend(path, body):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.005)
        at_once -= 1
        return Canned(END)(path, body)

    with FaultyServer(backend) as server:
        draw(unlooked(server.url, concurrency=3), tmp_path / "samples.jsonl", problems=20)
    assert most == 3


@pytest.mark.parametrize(
    "ignored, said",
    [
        ("temperature", "ignores temperature"),
        ("top_k", "ignores top_k .with top_k 1 at temperature 2"),
        ("top_p", "ignores top_p .with top_p 0.001 at temperature 2"),
        ("max_tokens", r"ignores max_tokens .asked for 3, it gave \d\d"),
        ("seed", "ignores seed .twice the same gives two answers; set sample.server.seeds to false"),
    ],
)
def test_a_setting_that_is_ignored_is_named(ignored, said, tmp_path):
    path = tmp_path / "samples.jsonl"
    with FaultyServer(Canned(END, ignore=(ignored,))) as server, pytest.raises(BadInput, match=said) as error:
        draw(unlooked(server.url), path)
    assert str(error.value).count("(") == 1  # and no other
    assert not path.exists()


def test_one_seed_for_all_and_no_draw_at_all_are_found(tmp_path):
    def always_the_same(path, body):
        return Canned(END)(path, body and json.dumps(json.loads(body) | {"seed": 1}).encode())

    for seeds in (True, False):
        with FaultyServer(always_the_same) as server, pytest.raises(BadInput, match="ignores .*temperature"):
            draw(unlooked(server.url, seeds=seeds), tmp_path / "samples.jsonl")


def test_seeds_are_left_out_where_they_are_not_wanted(tmp_path):
    with FaultyServer(Canned(END, ignore=("seed",))) as server:
        draw(unlooked(server.url, seeds=False), tmp_path / "samples.jsonl")
    assert all("seed" not in body for _, _, body in server.seen)
    assert {sample.seeded for sample in samples(tmp_path / "samples.jsonl")} == {False}


def changed(change):
    """The canned server, but what it answers to questions of 63 tokens is changed."""

    def backend(path, body):
        status, data = Canned(END)(path, body)
        if body and json.loads(body).get("max_tokens") == 63:
            found = json.loads(data)
            change(found, found["choices"][0])
            data = json.dumps(found).encode()
        return status, data

    return backend


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda a, c: a["usage"].update(prompt_tokens=9), "made 9 tokens of a prompt of .*adds a template of its own"),
        (lambda a, c: a.update(model="another"), "now answers as 'another', before as 'canned'"),
        (lambda a, c: c.update(token_ids=[30] * 64, finish_reason="length"), "max_tokens: asked for 63, it gave 64"),
        (lambda a, c: c.update(token_ids=[30] * 40, finish_reason="length"), "cuts answers at 40 tokens"),
        (lambda a, c: c.update(token_ids=[10**6, END]), "drew token 1000000, which the model does not have"),
        (lambda a, c: c.update(token_ids=[30, 31], finish_reason="stop"), "at token 31, which ends no turn"),
        (lambda a, c: c.update(token_ids=[], finish_reason="stop"), "at token None, which ends no turn"),
        (lambda a, c: c.pop("token_ids"), "gives text without token ids.*retokenize to allow"),
    ],
)
def test_an_answer_that_does_not_fit_the_question_ends_the_work(change, said, tmp_path):
    path = tmp_path / "samples.jsonl"
    with FaultyServer(changed(change)) as server, pytest.raises(BadInput, match=said) as error:
        draw(unlooked(server.url), path, max_tokens=63)
    assert "\n" not in str(error.value)
    assert samples(path) == []


def test_what_comes_after_an_end_of_turn_is_cut_off(tmp_path):
    def change(answer, choice):
        choice.update(token_ids=[30, 31, END, 32] + [33] * 59, finish_reason="length")

    with FaultyServer(changed(change)) as server:
        draw(unlooked(server.url), tmp_path / "samples.jsonl", problems=1, max_tokens=63)
    assert ids(tmp_path / "samples.jsonl").popitem()[1] == ([30, 31, END], "stop")


def test_a_loop_is_ended_where_our_own_engine_ends_it(tmp_path):
    def change(answer, choice):
        choice.update(token_ids=[30, 31] + [40, 41] * 30 + [35], finish_reason="length")

    with FaultyServer(changed(change)) as server:
        path = tmp_path / "samples.jsonl"
        draw(unlooked(server.url), path, problems=1, max_tokens=63, loops=LoopStop(4, 3, 6))
    assert ids(path).popitem()[1] == ([30, 31] + [40, 41] * 3, "loop")


def test_text_alone_is_tokenized_again_where_that_is_allowed_and_says_so(tmp_path):
    def texts(path, body):
        """Answers its tokens' text: one that can be read back."""
        status, data = Canned(END)(path, body)
        if body is None:
            return status, data
        found = json.loads(data)
        found["choices"][0]["text"] = " ".join("abcdefghij"[i % 10] for i in found["choices"][0].pop("token_ids")[:-1])
        return status, json.dumps(found).encode()

    path = tmp_path / "samples.jsonl"
    with FaultyServer(texts) as server:
        with pytest.raises(BadInput, match="vllm 0.11.0 gives text without token ids"):
            draw(unlooked(server.url), path)
        facts = draw(unlooked(server.url, retokenize="allow"), path)
    assert facts["server"]["token_ids"].startswith("RE-TOKENIZED")
    tokenizer = models.load_generating_tokenizer(models.locate(Model()))
    for sample in samples(path):
        assert sample.retokenized is True
        ends = sample.finish_reason == "stop"
        assert (sample.completion_ids[-1] == END) == ends
        text = tokenizer.decode(sample.completion_ids[:-1] if ends else sample.completion_ids)
        assert set(text) <= set("abcdefghij ") and text


def test_ids_that_were_given_say_so_too(undisturbed, tmp_path):
    path = tmp_path / "samples.jsonl"
    with FaultyServer(Canned(END)) as server:
        facts = draw(unlooked(server.url), path)
    assert facts["server"] == {
        "kind": "vllm", "version": "0.11.0", "model": "canned", "order": "temperature_first", "seeded": True,
        "token_ids": "given", "checked": {"model": "not looked at"}, "faults": {},
    }  # fmt: skip
    for sample in samples(path):
        assert (sample.drawn_by, sample.seeded, sample.retokenized) == ("vllm 0.11.0", True, False)
    prompts = {tuple(body["prompt"]) for _, _, body in server.seen}
    assert prompts == {tuple(sample.prompt_ids) for sample in samples(path)}  # as ids: no template is applied again


def test_two_stage_decoding_cannot_be_asked_of_a_server(tmp_path):
    with FaultyServer(Canned(END)) as server, pytest.raises(BadInput, match="one temperature, top-k and top-p"):
        draw(unlooked(server.url), tmp_path / "samples.jsonl", StagedPolicy(PAPER, DecodingPolicy(0.9)))


def test_while_a_server_is_silent_from_its_first_question_on_there_are_signs_of_life(tmp_path, monkeypatch):
    """Or the supervisor ends the wait, with its own time-out of as many seconds, and says that it hangs."""
    signs = []
    monkeypatch.setattr(asking, "LOOK_UP", 0.05)
    monkeypatch.setattr(heartbeat, "beat", lambda *mark: signs.append(mark))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are made, and nobody answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WorkFailed, match="gave no whole answer in 1 seconds; 2 tries"):
            draw(unlooked(url, timeout_seconds=1.0, retries=1), tmp_path / "samples.jsonl")
    assert len(signs) > 20 and set(signs) == {("check the server", 0, 1)}
