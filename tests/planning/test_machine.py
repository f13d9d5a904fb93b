"""The machine that is planned for: this one as Metal has it, or another."""

import json
import os
import subprocess

import pytest
from click.testing import CliRunner

from mlx_ssd import machine, planning
from mlx_ssd.budget import KNOWN_CONFIGS, usable_bytes
from mlx_ssd.cli import main
from mlx_ssd.errors import BadInput
from mlx_ssd.machine import metal
from mlx_ssd.machine.metal import recommended_bytes
from mlx_ssd.planning import mends
from mlx_ssd.planning.plan import injected, of_this_machine
from mlx_ssd.recipe import Recipe

GIB = 2**30
QWEN = KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
MAC = {"system": "macOS", "chip": "Apple M2", "cores": 8, "memory_bytes": 16 * GIB}


@pytest.fixture
def recommends(monkeypatch):
    """A Mac whose Metal recommends so many bytes."""
    monkeypatch.setattr(machine, "describe", lambda: dict(MAC))
    monkeypatch.setattr(machine.memory, "limit_bytes", lambda: 16 * GIB)
    monkeypatch.setattr(machine.memory, "physical_bytes", lambda: 16 * GIB)
    return lambda size: monkeypatch.setattr(metal, "recommended_bytes", lambda: size)


class TestRecommended:
    @pytest.mark.parametrize("size, counted_on", [(14 * GIB, 14 * GIB), (6 * GIB, 6 * GIB), (20 * GIB, 16 * GIB)])
    def test_what_metal_recommends_is_counted_on(self, recommends, size, counted_on):
        """Raised by iogpu.wired_limit_mb, less in a virtual machine, and never more than there is."""
        recommends(size)
        assert usable_bytes(of_this_machine()) == int(0.9 * counted_on)
        made = planning.plan_for(Recipe.load("mac-4b-instruct", SHORT), QWEN, injected(None, None), None)
        assert made.costs.memory == int(0.9 * counted_on) and made.record()["machine"]["memory_bytes"] == 16 * GIB

    def test_of_another_machine_it_says_nothing(self, recommends):
        recommends(6 * GIB)
        for memory, chip in ((16, None), (None, "M2"), (16, "M2")):
            assert usable_bytes(injected(memory, chip)) == int(0.9 * 2 / 3 * 16 * GIB)
        assert mends.mac_with(32, of_this_machine()) == MAC | {"chip": "Apple", "memory_bytes": 32 * GIB}

    def test_where_metal_says_nothing_it_is_a_share(self, recommends):
        recommends(None)
        assert of_this_machine() == MAC and usable_bytes(of_this_machine()) == int(0.9 * 2 / 3 * 16 * GIB)

    def test_a_raised_limit_has_room_for_more(self, recommends):
        recommends(14 * GIB)
        assert plan_here(sample__max_tokens=48_000).costs.peak_bytes["sample"] > 0.9 * 2 / 3 * 16 * GIB

    @pytest.mark.parametrize("stage", ["sample", "evaluate"])
    def test_a_refusal_names_the_setting_that_goes_before_it(self, recommends, stage):
        recommends(9 * GIB)
        with pytest.raises(BadInput, match=f"raise {stage}.memory_gb if there is more, or take a smaller model"):
            plan_here(**{f"{stage}__max_tokens": 60_000})
        assert plan_here(**{f"{stage}__max_tokens": 60_000, f"{stage}__memory_gb": 13})

    def test_a_recipe_sized_here_says_so(self, recommends, tmp_path):
        recommends(14 * GIB)
        file = tmp_path / "sized.yaml"
        result = CliRunner().invoke(main, ["plan", "mac-4b-instruct", "--write", str(file)])
        assert result.exit_code == 0, result.output
        assert "mlx-ssd plan mac-4b-instruct --write sized.yaml" in file.read_text()


SHORT = {"sample.max_tokens": 512, "evaluate.max_tokens": 512, "train.max_length": 1024}


def plan_here(**settings):
    """With training that fits, whatever is sampled."""
    settings = {key.replace("__", "."): value for key, value in settings.items()}
    recipe = Recipe.load("mac-4b-instruct", SHORT | {"train.too_long": "cut"} | settings)
    return planning.plan_for(recipe, QWEN, of_this_machine(), None, hurried=True)


class TestAsked:
    @pytest.fixture(autouse=True)
    def on_a_mac(self, monkeypatch):
        recommended_bytes.cache_clear()
        monkeypatch.setattr(metal.sys, "platform", "darwin")
        yield
        recommended_bytes.cache_clear()

    def answer(self, monkeypatch, out="", code=0, raises=None):
        def run(command, **options):
            if raises:
                raise raises
            return subprocess.CompletedProcess(command, code, out, "")

        monkeypatch.setattr(metal.subprocess, "run", run)
        return recommended_bytes()

    def test_in_a_process_of_its_own_and_once(self, monkeypatch):
        assert self.answer(monkeypatch, json.dumps({"gpu": True, "bytes": 12_713_115_648})) == 12_713_115_648
        assert self.answer(monkeypatch, raises=OSError("no Python")) == 12_713_115_648

    @pytest.mark.parametrize(
        "outcome",
        [
            {"out": json.dumps({"gpu": False, "bytes": None})},
            {"out": "", "code": -6},
            {"out": "[]"},
            {"raises": subprocess.TimeoutExpired("python", 10)},
            {"raises": OSError("no more processes")},
        ],
    )
    def test_no_answer_is_none(self, monkeypatch, outcome):
        assert self.answer(monkeypatch, **outcome) is None

    def test_elsewhere_nothing_is_asked(self, monkeypatch):
        monkeypatch.setattr(metal.sys, "platform", "linux")
        monkeypatch.setattr(metal, "probe", None)
        assert recommended_bytes() is None


def test_the_probe_runs_here():
    done = metal.probe(60)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"gpu", "bytes"}


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", "1e300", "0", "-5", "0.01"])
def test_a_memory_that_no_machine_has_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plan", "quickstart", "--memory-gb", given, "--chip", "M2"])
    (said,) = result.stderr.strip().splitlines()
    assert result.exit_code == 2 and said.endswith(": give a machine's memory, 0.1 to 65,536 GB")
    assert f"--memory-gb {float(given):g}" in said and os.listdir() == []
