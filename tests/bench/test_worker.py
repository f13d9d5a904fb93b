"""The process that measures: one answer a request, and a sentence when it cannot or does not live to."""

import os
import shutil
import signal
from contextlib import nullcontext

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step

from mlx_ssd.bench import measuring
from mlx_ssd.bench.__main__ import answers
from mlx_ssd.bench.configurations import Configuration, Load, Subject, subjects_of
from mlx_ssd.bench.generating import prompts_of
from mlx_ssd.bench.measuring import Measured, in_sweeps, interleaved, measure
from mlx_ssd.bench.subject import load
from mlx_ssd.bench.worker import working
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.storage import read_json, write_json

RATE = {"bytes_per_second": 1e9, "source": "chip table"}
LOAD = Load(8, 16)


def test_end_of_turn_tokens_do_not_cut_an_answer_short(tmp_path):
    """On a copy of the model whose end of turn is the second token that it will write."""
    (embedded,) = subjects_of("embedded")
    model, _ = load(embedded)
    written = [token for token, _ in generate_step(mx.array(prompts_of(LOAD, 704)[0]), model, max_tokens=2)]
    folder = shutil.copytree(embedded.folder, tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        write_json(folder / name, read_json(folder / name) | {"eos_token_id": [int(written[1])]})
    subject = Subject("ends", str(folder), "r")
    assert int(written[1]) in load(subject)[1].eos_token_ids
    _, repetition = answers(subject, LOAD, iter(["load 1", "repeat"]))
    assert len(repetition["steps"]) == LOAD.generated - 1


def test_a_row_holds_what_was_asked_for():
    (row,) = measure([Configuration(subjects_of("embedded")[0], Load(16, 8))], repetitions=2, rate=RATE)
    assert (row["model"], row["adapter"], row["bits"], row["quantized"]) == ("embedded", "off", 32, False)
    assert row["parameters"] == 877_952 and row["weight_bytes"] == 4 * 877_952
    for name in ("ttft_s", "prompt_tps", "decode_tps"):
        values = row["series"][name]
        assert len(values) == 2 and row[name]["mean"] == pytest.approx(sum(values) / 2)
        assert row[name]["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert row["prompt_tps"]["mean"] > 0 and row["series"]["prompt_tps"][0] == 16 / row["series"]["ttft_s"][0]
    assert row["latency_ms"]["p50"] <= row["latency_ms"]["p95"] <= row["latency_ms"]["p99"]
    assert row["mlx_peak_bytes"] >= row["mlx_steady_bytes"] > row["weight_bytes"]
    assert row["footprint_peak_bytes"] >= row["footprint_bytes"] > 50e6
    assert "mlx-lm" in row["versions"] and row["machine"]["chip"] and row["time"]
    assert "energy" not in row  # there is no battery to ask here
    share = row["step_bytes"] / 1e9 * row["decode_tps"]["mean"]  # of one sequence a step is a token
    assert row["roofline_share"] == pytest.approx(share, rel=0.5)


def test_what_is_made_in_memory_has_no_load_time(run):
    fused = subjects_of(str(run), ("fused",))[0]
    (row,) = measure([Configuration(fused, Load(8, 2, 2))], repetitions=1, rate=RATE)
    assert "load_s" not in row and row["batch"] == 2
    assert "std" not in row["decode_tps"]


@pytest.fixture
def asked(monkeypatch):
    """What fake workers were asked, by name; each counts as loaded in as many seconds as there were before it."""
    found, begun = [], []

    class Fake:
        def __init__(self, configuration):
            self.configuration = configuration

        def ask(self, request):
            name = self.configuration.subject.name
            if request == "repeat":
                found.append(name)
            begun.extend([name] if request.startswith("load") else [])
            answer = {"ttft": 1.0, "steps": [0.5], "kv_bytes": 0, "steady_bytes": 0}
            return answer | {"seconds": [begun.count(name)]}

    monkeypatch.setattr(measuring, "working", lambda configuration: nullcontext(Fake(configuration)))
    monkeypatch.setattr(measuring, "rate_of", lambda configuration: RATE)
    monkeypatch.setattr(Measured, "row", lambda self, rate: self.series() | {"load_s": self.loaded["seconds"]})
    return found


WANTED = [Configuration(Subject(name, "", ""), Load(8 * n, 2)) for n, name in ((1, "one"), (2, "two"))]


def test_rounds_take_turns_and_every_second_one_in_opposite_order(asked):
    rows = interleaved(WANTED, rounds=3, warmup=1)
    assert asked == ["one", "two", *("one", "two"), *("two", "one"), *("one", "two")]  # the first two are warm-ups
    assert [row["prompt_tps"] for row in rows] == [[8, 8, 8], [16, 16, 16]]
    assert rows[0]["decode_tps"] == [2, 2, 2]


def test_sweeps_load_each_model_anew_and_keep_all_repetitions(asked):
    *pauses, one, two = in_sweeps(WANTED, repetitions=4, sweeps=2, warmup=0)
    assert pauses == [None] * 4
    assert asked == [*("one", "one"), *("two", "two"), *("two", "two"), *("one", "one")]
    assert one["prompt_tps"] == [8] * 4 and two["prompt_tps"] == [16] * 4
    assert one["load_s"] == two["load_s"] == [1, 2]


def test_a_model_that_cannot_be_loaded_is_bad_input(tmp_path):
    subject = Subject("gone", str(tmp_path), "none")
    with working(Configuration(subject, Load(8, 2))) as worker, pytest.raises(BadInput, match="cannot load"):
        worker.ask("load 1")


def test_a_process_that_is_killed_is_named():
    with working(Configuration(subjects_of("embedded")[0], Load(8, 2))) as worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(WorkFailed, match="measured embedded was ended by SIGKILL"):
            worker.ask("load 1")


def test_no_process_is_left_behind():
    with pytest.raises(KeyboardInterrupt):
        with working(Configuration(subjects_of("embedded")[0], Load(8, 2))) as worker:
            raise KeyboardInterrupt
    assert worker._process.returncode is not None
