"""The benchmark of a decoding step still runs on the engine it measures."""

from benchmarks import decoding_step
from mlx_ssd import models
from mlx_ssd.recipe import Model


def test_it_measures_parts_and_whole_generations():
    model, tokenizer = models.load(models.locate(Model()), "float32")
    parts = decoding_step.parts(model, rows=len(decoding_step.TEN))
    assert all(milliseconds > 0 for milliseconds in parts.values())
    found = decoding_step.throughput(model, tokenizer, rows=2, problems=1, samples=2)
    assert found["tokens"] > 0 and found["tokens_per_second"] > 0
