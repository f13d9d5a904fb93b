"""Several journals filled in one go, and what is missing of them after a kill."""

import pytest

from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Generation
from mlx_ssd.sampling.collect import Target, collect
from mlx_ssd.sections import Model, ProblemSource, Prompt
from mlx_ssd.storage import Journal

POLICIES = (
    DecodingPolicy(0.7),
    StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(1.1, 10, 0.8)),
)
ALL = {(number, sample) for number in range(3) for sample in range(2)}


@pytest.fixture(scope="module")
def embedded():
    return models.load(models.locate(Model()), "float32")


def draw(embedded, targets, **changes):
    options = {
        "prompt": Prompt(),
        "samples_per_problem": 2,
        "max_tokens": 12,
        "rows": 8,
        "memory_gb": None,
        "loops": None,
        "seed": 0,
        "stream": "eval",
        "revision": "r",
        "label": "test",
    }
    problems = read_problems(ProblemSource(limit=3), "test")
    return collect(targets, Generation, problems, *embedded, **options | changes)


def keys(path):
    found = [(g.problem_id, g.sample_index) for g in Journal(path, Generation).read()]
    assert len(found) == len(set(found))
    numbers = {p.id: number for number, p in enumerate(read_problems(ProblemSource(limit=3), "test"))}
    return {(numbers[problem], sample) for problem, sample in found}


def test_every_target_gets_its_own_completions_and_a_killed_run_draws_what_is_missing(embedded, tmp_path):
    targets = [Target(tmp_path / f"{policy.name()}.jsonl", policy) for policy in POLICIES]
    assert draw(embedded, targets)["completions"] == 12
    whole = [target.path.read_bytes() for target in targets]
    for target in targets:
        assert keys(target.path) == ALL
        assert {g.policy for g in Journal(target.path, Generation).read()} == {target.policy.name()}

    lines = whole[0].splitlines(keepends=True)
    targets[0].path.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # torn in the third record
    targets[1].path.write_bytes(b"".join(whole[1].splitlines(keepends=True)[:5]))
    assert draw(embedded, targets)["completions"] == 4 + 1
    for target, before in zip(targets, whole, strict=True):
        assert keys(target.path) == ALL
        kept = 2 if target is targets[0] else 5
        assert target.path.read_bytes().splitlines()[:kept] == before.splitlines()[:kept]
    assert draw(embedded, targets)["completions"] == 0


def test_each_journal_is_checked_for_how_it_was_drawn(embedded, tmp_path):
    targets = [Target(tmp_path / f"{policy.name()}.jsonl", policy) for policy in POLICIES]
    draw(embedded, targets[1:])
    before = targets[1].path.read_bytes()
    with pytest.raises(BadInput, match="two-stage.*another seed .0, now 1"):
        draw(embedded, targets, seed=1)
    with pytest.raises(BadInput, match="another policy .two-stage.*now greedy"):
        draw(embedded, [targets[0], Target(targets[1].path, DecodingPolicy(0))])
    assert targets[1].path.read_bytes() == before and not targets[0].path.exists()
