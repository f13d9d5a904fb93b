"""The calibration: what it asks of the child, what is kept, and one that really measures."""

import json

import pytest

from mlx_ssd import machine, planning
from mlx_ssd.budget import CalibratedSpeed, ChipSpeed
from mlx_ssd.errors import WorkFailed
from mlx_ssd.planning import calibration
from mlx_ssd.planning.plan import known_config
from mlx_ssd.recipe import Recipe

RECIPE = Recipe.load("quickstart", {"sample.rows": 4, "evaluate.rows": 2})
CONFIG = known_config(RECIPE.model)
MEASURED = {"start_seconds": 1.0}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A cache folder of its own, and a child that only counts."""
    calls = []
    monkeypatch.setenv("MLX_SSD_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure", lambda work: calls.append(work) or MEASURED)
    return tmp_path / "calibrations", calls


class TestKept:
    def test_measured_once_for_the_same_work_on_the_same_machine(self, kept):
        folder, calls = kept
        described = machine.describe()
        assert planning.speed_of(RECIPE, CONFIG, described) is None and calls == []
        for _ in range(2):
            speed = planning.calibrate(RECIPE, CONFIG, described)
            assert isinstance(speed, CalibratedSpeed) and speed.measured == MEASURED
        assert len(calls) == 1 and planning.speed_of(RECIPE, CONFIG, described) == speed
        (file,) = folder.iterdir()
        found = json.loads(file.read_text())
        assert found["machine"] == described and found["versions"] == machine.versions() and "load" in found
        # Other rows are other work, and another chip another machine.
        assert planning.speed_of(Recipe.load("quickstart"), CONFIG, described) is None
        assert planning.speed_of(RECIPE, CONFIG, described | {"chip": "Another"}) is None
        assert isinstance(planning.speed_of(RECIPE, CONFIG, described | {"chip": "Apple M4"}), ChipSpeed)

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"v": 0, "measured": {}, "load": 0}'])
    def test_a_damaged_file_is_measured_anew(self, kept, damage):
        folder, calls = kept
        planning.calibrate(RECIPE, CONFIG, machine.describe())
        (file,) = folder.iterdir()
        file.write_text(damage)
        assert planning.speed_of(RECIPE, CONFIG, machine.describe()) is None
        planning.calibrate(RECIPE, CONFIG, machine.describe())
        assert len(calls) == 2 and json.loads(file.read_text())["measured"] == MEASURED

    def test_nothing_is_kept_where_nothing_shall_be(self, kept, monkeypatch):
        monkeypatch.setenv("MLX_SSD_CACHE", "")
        planning.calibrate(RECIPE, CONFIG, machine.describe())
        assert not kept[0].exists()

    def test_the_work_is_the_recipes(self, kept):
        planning.calibrate(RECIPE, CONFIG, machine.describe())
        (work,) = kept[1]
        assert work["rows"] == [1, 2, 4] and work["layers"] == [1, 4] and work["dtype"] == "float32"
        assert work["targets"] == ["distribution", "tokens"] and work["config"]["hidden_size"] == 128
        assert "num_hidden_layers" not in work["config"]


def test_a_child_that_fails_is_a_sentence():
    with pytest.raises(WorkFailed, match="the calibration failed: .*nonsense"):
        calibration.measure({"config": {"model_type": "nonsense"}, "layers": [1, 2], "dtype": "float32", "rows": [1]})


@pytest.mark.parametrize("bits", [None, 4])
def test_the_child_measures_times_that_grow_with_the_work(bits, tmp_path):
    config = CONFIG | ({"quantization": {"bits": 4, "group_size": 32}} if bits else {})
    described = machine.describe()
    work = calibration._work(RECIPE, config, described) | {"row_tokens": 128, "targets": ["distribution", "tokens"]}
    found = calibration.measure(work)
    speed = CalibratedSpeed(found, 0.0)
    costs = planning.plan_for(RECIPE, config, described, speed).costs
    size = costs.size
    assert 0 < speed.start_seconds < 120
    few, many = (speed.decoding_step(size, rows, 80) for rows in (1, 64))
    assert 0 < few < many < 10
    assert 0 < speed.prefill(size, 60) < 10
    for arm in costs.students:
        train = arm.recipe.train
        forward, whole = speed.forward(size, train, 110), speed.training(size, train, 110, False)
        assert 0 < forward < whole < 10
    assert all(seconds > 0 for seconds in costs.seconds(100).values())
