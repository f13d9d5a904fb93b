"""The plan: as a function of the machine, its sum by parts, what it refuses and how it mends."""

import json
import re

import pytest
from click.testing import CliRunner

from mlx_ssd import models, planning
from mlx_ssd.budget import KNOWN_CONFIGS, ChipSpeed, ModelSize, chip_of
from mlx_ssd.cli import main
from mlx_ssd.errors import BadInput
from mlx_ssd.planning import mends
from mlx_ssd.planning.plan import STAGES, injected
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Model

GIB = 2**30
QWEN = KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
MIXTURE = "mlx-community/Qwen3-30B-A3B-4bit"


def mac(gigabytes, chip="Apple M4 Pro"):
    return {"system": "macOS", "chip": chip, "memory_bytes": gigabytes * GIB}


def plan(gigabytes, name="mac-4b-instruct", config=QWEN, chip="Apple M4 Pro", **overrides):
    recipe = Recipe.load(name, {key.replace("__", "."): value for key, value in overrides.items()})
    machine = mac(gigabytes, chip)
    return planning.plan_for(recipe, config, machine, ChipSpeed(chip_of(machine)))


def invoke(*arguments):
    return CliRunner().invoke(main, ["plan", *arguments])


class TestMachines:
    def test_8_gb_is_refused_with_a_mend_that_works(self):
        with pytest.raises(BadInput, match=r"5\.15 GB may be used.* it fits with --set sample\.max_tokens=") as error:
            plan(8)
        settings = dict(re.findall(r"--set (\S+)=(\d+)", str(error.value)))
        assert settings
        shorter = {key.replace(".", "__"): int(value) for key, value in settings.items()}
        assert plan(8, **shorter).costs.peak_bytes["train"] < 5.2e9

    def test_more_memory_takes_more_rows_longer_answers_and_recomputes_less(self):
        plans = [plan(size) for size in (16, 32, 64)]
        for stage in STAGES:
            assert all(p.costs.peak_bytes[stage] <= p.costs.memory for p in plans)
        for figures in (
            [p.most_rows["sample"] for p in plans],
            [p.longest["sample"] for p in plans],
            [p.longest["train"] for p in plans],
            [p.costs.peak_bytes["train"] for p in plans],
        ):
            assert figures == sorted(figures) and len(set(figures)) == 3
        assert [p.costs.largest.plan.gradient_checkpointing for p in plans] == [True, True, False]
        assert all(p.costs.sample_rows == min(32, p.most_rows["sample"]) for p in plans)  # the recipe's 32

    def test_a_faster_chip_takes_less_time(self):
        slow, fast = (plan(64, chip=chip) for chip in ("Apple M1 Max", "Apple M4 Max"))
        assert all(fast.seconds[stage] < slow.seconds[stage] for stage in STAGES)
        assert fast.costs.parts == slow.costs.parts

    def test_mixture_of_experts(self):
        """Qwen3-30B-A3B in 4 bits: 17.2 GB of weights, which 24 GB have no room for."""
        asked = {"model__path": MIXTURE, "model__revision": None}
        with pytest.raises(BadInput, match=r"no shorter answers help \(17\.2 GB are weights\): a Mac with 32 GB"):
            plan(24, config=KNOWN_CONFIGS[MIXTURE], **asked)
        smaller, larger = (plan(size, config=KNOWN_CONFIGS[MIXTURE], **asked) for size in (36, 64))
        assert smaller.costs.peak_bytes["sample"] < larger.costs.memory
        assert smaller.most_rows["sample"] < larger.most_rows["sample"]
        assert smaller.smaller[24] is None and smaller.smaller[32] == {}

    def test_what_to_change_for_a_smaller_mac_fits_there(self):
        for size, settings in plan(64, sample__max_tokens=30_000, train__max_length=40_000).smaller.items():
            recipe = Recipe.load("mac-4b-instruct", {"sample.max_tokens": 30_000, "train.max_length": 40_000})
            assert settings is not None and bool(settings) == (not mends.fits(recipe, QWEN, mac(size)))
            assert mends.fits(mends.changed(recipe, settings), QWEN, mac(size))


class TestRecord:
    def test_parts_sum_to_the_peak_and_seconds_are_those_of_the_costs(self):
        made = plan(24)
        record = made.record()
        for stage in STAGES:
            assert record["stages"][stage]["peak_bytes"] == sum(record["stages"][stage]["bytes"].values())
            assert record["stages"][stage]["peak_bytes"] == pytest.approx(made.costs.peak_bytes[stage], abs=10)
            assert record["stages"][stage]["seconds"] == pytest.approx(made.seconds[stage], abs=0.1)
        assert record["stages"]["sample"]["bytes"]["weights"] == round(ModelSize.of(QWEN).weight_bytes)
        assert json.loads(json.dumps(record)) == record

    def test_what_is_not_known_is_absent(self):
        made = planning.plan_for(Recipe.load("mac-4b-instruct"), QWEN, mac(24) | {"chip": "Apple M99"}, None)
        assert made.seconds is None
        assert all("seconds" not in stage for stage in made.record()["stages"].values())
        assert "speed" not in made.record()
        assert "the time is not known" in planning.in_short(made)[1] and "`mlx-ssd plan" in planning.in_short(made)[1]

    def test_disk_by_hand(self):
        made = plan(64, name="mac-4b-check", train__rank=8)
        recipe = made.recipe
        adapter = 4 * 8 * 36 * (2 * (2560 + 4096) + 2 * (2560 + 1024) + 3 * (2560 + 9728))
        assert made.disk["adapters"] == adapter and made.disk["checkpoints"] == 3 * 3 * adapter
        assert made.disk["samples"] == 2 * 200 * (100 + 400) * 6
        assert made.disk["answers"] == 60 * recipe.evaluate.samples_per_problem * 3 * (100 + 400) * 6
        assert made.disk["download"] == made.costs.size.weight_bytes

    def test_short_lines_name_peak_and_what_decides(self):
        made = plan(24)
        first, second = planning.in_short(made)
        assert "15.1 GB at the highest, of 15.5" in first and "KV caches, in sampling" in first
        assert "most of it training" in second and "not yet measured on a Mac" in second


class TestCommand:
    def test_json(self):
        result = invoke("mac-4b-instruct", "--memory-gb", "24", "--chip", "M4 Pro", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == plan(24).record()

    def test_text_shows_every_part_and_stage(self):
        said = invoke("mac-4b-instruct", "--memory-gb", "24", "--chip", "Apple M4 Pro").stdout
        assert re.search(r"^weights +2\.26 +2\.26 +2\.26$", said, re.M)
        assert re.search(r"^peak +15\.1 +", said, re.M) and re.search(r"^time +1h\d\dm", said, re.M)
        assert "on a Mac with 8 GB: --set sample.max_tokens=2048" in said

    def test_unknown_chip(self):
        result = invoke("--chip", "Apple M77")
        assert result.exit_code == 2 and 'write it as "Apple M4 Pro"' in result.stderr

    def test_a_model_that_is_not_here_is_not_fetched_unasked(self, monkeypatch):
        monkeypatch.setattr(models, "read_config", None)
        monkeypatch.setattr(models, "cached_config", lambda model: None)
        result = invoke("quickstart", "--model", "some/model", "--chip", "Apple M4")
        assert result.exit_code == 2 and "--yes fetches it" in result.stderr
        monkeypatch.setattr(models, "read_config", lambda model: QWEN)
        assert invoke("quickstart", "--model", "some/model", "--chip", "Apple M4", "--yes").exit_code == 0

    @pytest.mark.parametrize("gigabytes, chip", [(16, "M4"), (24, "M4 Pro"), (36, "M4 Max"), (64, "M4 Max")])
    def test_a_written_recipe_is_the_plan(self, gigabytes, chip, tmp_path):
        file, machine = tmp_path / "sized.yaml", ("--memory-gb", str(gigabytes), "--chip", chip)
        result = invoke("mac-4b-instruct", *machine, "--hours", "8", "--write", str(file))
        assert result.exit_code == 0, result.output
        written, original = Recipe.load(file), Recipe.load("mac-4b-instruct")
        assert written.name == f"mac-4b-instruct-{gigabytes}gb"
        changes = {key: getattr(written, key) for key in ("model", "prompt", "curate", "train", "arms")}
        assert changes == {key: getattr(original, key) for key in changes}
        assert written.problems.train.limit != 1000
        head = file.read_text().partition("\nname:")[0]
        assert "--hours 8 --write sized.yaml" in head and re.search(r"# Peak GB +sample \d", head)
        assert planning.plan_for(written, QWEN, injected(gigabytes, chip), None).costs.memory
        dry = CliRunner().invoke(main, ["run", str(file), "--dry-run", "--out", str(tmp_path / "run")])
        assert dry.exit_code == 0 and "# sample: start" in dry.stdout

    def test_a_written_recipe_is_shortened_where_it_would_not_fit(self, tmp_path):
        file = tmp_path / "sized.yaml"
        assert invoke("mac-4b-instruct", "--memory-gb", "8", "--chip", "M2", "--write", str(file)).exit_code == 0
        assert Recipe.load(file).sample.max_tokens == 2048
        assert mends.fits(Recipe.load(file), QWEN, mac(8, "Apple M2"))


class TestConfigs:
    # Parameters as the cards have them, embeddings included; bytes of 4 bits as published.
    @pytest.mark.parametrize(
        "name, billions, gigabytes",
        [
            ("mlx-community/Qwen3-0.6B-4bit", 0.60, 0.34),
            ("mlx-community/Qwen3-8B-4bit", 8.19, 4.6),
            ("mlx-community/Qwen3-30B-A3B-4bit", 30.5, 17.2),
            ("mlx-community/Meta-Llama-3.1-8B-Instruct-4bit", 8.03, 4.5),
        ],
    )
    def test_known_models_have_their_published_size(self, name, billions, gigabytes):
        size = ModelSize.of(KNOWN_CONFIGS[name])
        assert size.parameters / 1e9 == pytest.approx(billions, rel=0.01)
        assert size.weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.02)

    def test_embedded_and_folders_are_read_where_they_are(self, tmp_path):
        assert planning.known_config(Model())["hidden_size"] == 128
        (tmp_path / "config.json").write_text(json.dumps(QWEN))
        assert planning.known_config(Model(path=str(tmp_path))) == QWEN
        (tmp_path / "config.json").unlink()
        with pytest.raises(BadInput, match="has no config.json"):
            planning.known_config(Model(path=str(tmp_path)))
