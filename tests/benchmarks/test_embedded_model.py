"""The generator of the embedded task: right without noise, wrong as often as it says with it, reproducible.

Solutions run in this process: the code comes from our own generator.
"""

import random
from collections import Counter

import pytest

from benchmarks.embedded_model.problems import COUNTS, problems_jsonl
from benchmarks.embedded_model.solutions import (
    CLEAN,
    FILTER_LOOK_ALIKES,
    MAP_LOOK_ALIKES,
    Noise,
    write_solution,
)
from benchmarks.embedded_model.tasks import (
    FILTERS,
    MAPS,
    REDUCTIONS,
    SOURCES,
    Spec,
    all_specs,
    answer,
    make_problem,
    make_split,
    split_of,
)
from mlx_ssd.assets import problems_path

SEED = 0  # of the shipped files


def passes(code: str, problem) -> bool:
    scope: dict = {}
    try:
        exec(code, scope)
        return all(scope["solve"](argument) == expected for argument, expected in problem.tests)
    except Exception:  # whatever a noisy solution raises
        return False


def test_clean_solutions_pass_their_tests():
    rng = random.Random(1)
    problems = [make_problem(spec, rng) for spec in rng.sample(all_specs(), 500)]
    failing = [code for p in problems if not passes(code := write_solution(p, rng, CLEAN), p)]
    assert not failing, failing[0]


def test_reference_answers():
    def spec(source, filter_, map_, reduce, filter_first=True):
        return Spec(source, filter_, map_, reduce, filter_first)

    assert answer(spec("list", "gt", "mul", "sum"), 3, 2, [1, 4, 5]) == 18
    assert answer(spec("list", "gt", "mul", "list", False), 3, 2, [1, 2, 5]) == [4, 10]
    assert answer(spec("digits", "odd", "sq", "sorted"), 2, 2, 5132) == [1, 9, 25]
    assert answer(spec("range", "div", "neg", "min"), 3, 2, 7) == -6
    assert answer(spec("words", "ne", "add", "first"), 2, 5, "aa b ccc") == 6
    assert answer(spec("list", "even", "fdiv", "max"), 2, 4, []) == 0
    assert answer(spec("list", "even", "fdiv", "last"), 2, 4, []) == -1


def test_hard_problems_without_guard_fail_and_only_there():
    rng = random.Random(2)
    unguarded = Noise(**{**vars(CLEAN), "missing_guard": 1.0})
    for problem in make_split("test", 200, 7):
        # Some digit problems have no argument that leaves nothing, hence no test that the guard could fail.
        hard_with_empty_case = problem.spec.hard and len(problem.tests) == 9
        assert passes(write_solution(problem, rng, unguarded), problem) != hard_with_empty_case


@pytest.mark.parametrize(
    "fault", ["wrong_operator", "wrong_constant", "random_variable", "random_reduction", "swapped_order"]
)
def test_each_fault_breaks_most_solutions(fault):
    rng = random.Random(3)
    noise = Noise(**{**vars(CLEAN), fault: 1.0})
    problems = make_split("test", 300, 8)
    assert sum(passes(write_solution(p, rng, noise), p) for p in problems) < 150


def test_default_noise_leaves_about_half_right():
    rng = random.Random(4)
    problems = make_split("test", 924, 9)
    share = sum(passes(write_solution(p, rng), p) for p in problems) / len(problems)
    assert 0.45 < share < 0.6


def test_every_step_has_its_look_alikes():
    assert FILTER_LOOK_ALIKES.keys() == FILTERS.keys() and MAP_LOOK_ALIKES.keys() == MAPS.keys()
    for steps, look_alikes in ((FILTERS, FILTER_LOOK_ALIKES), (MAPS, MAP_LOOK_ALIKES)):
        assert all(steps[name].expression not in wrong for name, wrong in look_alikes.items())
        assert all(len(set(wrong)) == 3 for wrong in look_alikes.values())


def test_splits_are_disjoint_by_composition():
    split_by_composition: dict = {}
    for spec in all_specs():
        assert split_by_composition.setdefault(spec.composition, split_of(spec)) == split_of(spec)
    assert len(split_by_composition) == len(SOURCES) * len(FILTERS) * len(MAPS) * len(REDUCTIONS)
    specs = Counter(map(split_of, all_specs()))
    assert specs == {"pretrain": 3460, "train": 1080, "validation": 296, "test": 924}


@pytest.mark.parametrize("split", COUNTS)
def test_a_split_draws_from_its_own_specs_without_repetition(split):
    problems = make_split(split, COUNTS[split], SEED, with_tests=False)
    assert {split_of(p.spec) for p in problems} == {split}
    available = sum(split_of(spec) == split for spec in all_specs())
    assert len({p.spec for p in problems}) == min(available, COUNTS[split])


@pytest.mark.parametrize("split", COUNTS)
def test_shipped_problems_regenerate_bit_equal(split):
    assert problems_path(split).read_bytes() == problems_jsonl(split, SEED).encode()
    assert problems_jsonl(split, SEED) != problems_jsonl(split, SEED + 1)
