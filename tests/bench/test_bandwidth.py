"""What a step reads, and how fast it could be read."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_ssd.bench import bandwidth
from mlx_ssd.bench.configurations import Load
from mlx_ssd.bench.subject import facts_of
from mlx_ssd.budget import ModelSize
from mlx_ssd.storage import write_json
from tests.architectures import tiny


def test_a_known_chip_has_its_bandwidth_from_the_table():
    rate = bandwidth.of_table({"chip": "Apple M4 Pro", "cores": 14})
    assert rate == {"bytes_per_second": 273e9, "source": "chip table"}
    assert bandwidth.of_table({"chip": "Intel(R) Xeon(R) Processor", "cores": 2}) is None


def test_an_unknown_one_is_measured(monkeypatch):
    monkeypatch.setattr(bandwidth, "BYTES", 2**22)
    rate = bandwidth.measured()
    assert rate["source"] == "measured copy" and 1e8 < rate["bytes_per_second"] < 1e13


def test_a_copy_counts_what_it_reads_and_writes(monkeypatch):
    monkeypatch.setattr(bandwidth, "_on_cores", lambda: 0.5)
    assert bandwidth.measured()["bytes_per_second"] == 4 * bandwidth.BYTES


def loaded(**changes):
    return {"weight_bytes": 1000, "looked_up_bytes": 0, "expert_bytes": 0, "expert_share": 1.0} | changes


def test_a_step_reads_weights_and_the_context_at_half_of_the_answer():
    assert bandwidth.step_bytes(loaded(), 300, Load(100, 50)) == 1000 + 300 * 125 / 150
    assert bandwidth.step_bytes(loaded(looked_up_bytes=200), 0, Load(100, 50)) == 800


def test_of_experts_those_that_some_row_goes_through():
    mixture = loaded(expert_bytes=800, expert_share=0.25)
    assert bandwidth.step_bytes(mixture, 0, Load(1, 2, 1)) == 200 + 800 * 0.25
    assert bandwidth.step_bytes(mixture, 0, Load(1, 2, 2)) == pytest.approx(200 + 800 * (1 - 0.75**2))


@pytest.mark.parametrize("name", ["qwen3", "llama", "qwen3-moe"])
def test_the_bytes_are_those_of_the_model_and_near_the_budget_s(name, tmp_path: Path):
    model = tiny(name)
    mx.eval(model.parameters())
    config = {key: value for key, value in vars(model.args).items() if isinstance(value, (int, float, bool, str))}
    write_json(tmp_path / "config.json", config)
    size, facts = ModelSize.of(config | {"dtype": "float32"}), facts_of(model, tmp_path)
    arrays = dict(tree_flatten(model.parameters()))
    assert facts["weight_bytes"] == sum(array.nbytes for array in arrays.values())
    assert facts["weight_bytes"] == pytest.approx(size.weight_bytes, rel=0.05)  # which has no norms and routers
    assert facts["expert_bytes"] == pytest.approx(size.expert_bytes if size.expert_share < 1 else 0, rel=1e-6)
    assert facts["looked_up_bytes"] == (0 if config["tie_word_embeddings"] else 4 * size.vocabulary * size.hidden)
    read = bandwidth.step_bytes(facts | {"expert_share": size.expert_share}, 0, Load(1, 2, 1))
    assert read == pytest.approx(size.read_bytes(1), rel=0.06)
