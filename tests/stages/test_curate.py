"""What becomes of samples that did not come to an end."""

import json

import pytest

from mlx_ssd import models
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Sample, TrainingRow
from mlx_ssd.sections import Model
from mlx_ssd.stages import curate
from mlx_ssd.storage import Journal, write_records

CODE, CYCLE = "def solve(xs):\n    a = 1", "\n    b = 2"


@pytest.fixture
def files(tmp_path):
    """Three samples of the same text, which ends in four copies of a line; one is said to loop."""
    tokenizer = models.load_tokenizer(models.locate(Model()))
    ids = tokenizer.encode(CODE) + tokenizer.encode(CYCLE) * 4
    samples = [
        Sample(
            problem_id=reason, sample_index=0, prompt_ids=[1], completion_ids=ids, finish_reason=reason,
            policy="t1", seed=0, stream="train/round-1", model="m", template="t",
        )
        for reason in ("length", "loop", "stop")
    ]  # fmt: skip
    files = RunFiles(tmp_path)
    files.samples.parent.mkdir(parents=True)
    write_records(files.samples, samples)
    return files, len(ids), tokenizer.encode(CODE) + tokenizer.encode(CYCLE)


def curated(files, unfinished):
    """Kept completions by finish reason, and the account."""
    curate.run(Recipe.parse(f"curate: {{unfinished: {unfinished}}}", "r"), files)
    rows = Journal(files.rows, TrainingRow).read()
    return {row.problem_id: row.completion_ids for row in rows}, json.loads(files.curation.read_text())


def test_of_a_loop_that_is_cut_one_copy_stays_and_nothing_is_put_after_it(files):
    files, whole, first_copy = files
    kept, account = curated(files, "cut")
    assert kept["loop"] == first_copy
    assert len(kept["length"]) == len(kept["stop"]) == whole
    assert account["tokens_cut"] == whole - len(first_copy) > 0
    assert account["completion_tokens"] == 3 * whole - account["tokens_cut"]
    assert account["kept_finish_reasons"] == {"length": 1, "loop": 1, "stop": 1}


def test_kept_and_dropped_loops(files):
    files, whole, _ = files
    kept, account = curated(files, "keep")
    assert {len(ids) for ids in kept.values()} == {whole} and account["tokens_cut"] == 0
    kept, account = curated(files, "drop")
    assert set(kept) == {"stop"} and account["dropped"] == {"unfinished": 2}


def test_a_loop_whose_first_copy_is_a_stub_is_dropped(files):
    files, *_ = files
    length, loop, stop = Journal(files.samples, Sample).read()
    loop = loop.model_copy(update={"completion_ids": loop.completion_ids[-1:] * 400})
    write_records(files.samples, [length, loop, stop])
    kept, account = curated(files, "cut")
    assert set(kept) == {"length", "stop"} and account["dropped"] == {"stub": 1}
