"""The loop stop: exact against its definition, the same after a restart, no dearer in a long completion."""

import random
import time

import pytest

from mlx_ssd import sections
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.loops import LoopDetector, LoopStop, end_of_first_copy, loop_stop_of

DEFAULT = loop_stop_of(sections.LoopStop())


def loops(tokens, stop):
    """The definition: for some p the last tokens, as long as is needed, equal those p before them."""
    for period in range(1, stop.period + 1):
        needed = max(period * stop.repeats, stop.min_tokens)
        tail = tokens[-needed:]
        if len(tail) == needed and tail[period:] == tail[:-period]:
            return True
    return False


def answers(tokens, stop):
    detector = LoopDetector(stop)
    return [detector.add(token) for token in tokens]


def first(tokens, stop=DEFAULT):
    """How many tokens it takes until the completion loops, or None."""
    said = answers(tokens, stop)
    return said.index(True) + 1 if True in said else None


def sequences(seed, many):
    """Of a small alphabet: noise, and cycles with noise before, between and after them."""
    r = random.Random(seed)
    for _ in range(many):
        alphabet = r.randint(1, 4)
        tokens = []
        while len(tokens) < 80:
            cycle = [r.randrange(alphabet) for _ in range(r.randint(1, 9))]
            tokens += cycle * r.choice((1, 1, 2, 3, 5)) + cycle[: r.randrange(len(cycle))]
        yield r, tokens


def test_says_what_the_definition_says_after_every_token():
    said = []
    for r, tokens in sequences(0, 400):
        stop = LoopStop(r.randint(1, 9), r.randint(2, 5), r.randint(1, 30))
        expected = [loops(tokens[: i + 1], stop) for i in range(len(tokens))]
        assert answers(tokens, stop) == expected, (tokens, stop)
        said += expected
    assert 0.1 < sum(said) / len(said) < 0.9  # both were tried


def test_fed_anew_it_goes_on_as_if_nothing_had_been():
    for r, tokens in sequences(1, 50):
        stop = LoopStop(6, 3, 12)
        whole, cut = answers(tokens, stop), r.randrange(len(tokens))
        again = LoopDetector(stop)
        assert [again.add(token) for token in tokens[:cut]] == whole[:cut]
        assert [again.add(token) for token in tokens[cut:]] == whole[cut:]


def test_begins_with_the_last_token_of_the_last_copy_that_is_needed():
    cycle = list(range(100, 110))
    before = list(range(50))
    assert first(before + cycle * 9, LoopStop(10, 8, 1)) == 50 + 80
    assert first(before + cycle * 9, LoopStop(9, 8, 1)) is None
    assert first(before + cycle * 9, LoopStop(10, 2, 85)) == 50 + 85
    assert first([7] * 600) == 512
    assert first([0, 1] * 300) == 512
    assert first(list(range(256)) * 8) == 256 * 8
    assert first(list(range(257)) * 9) is None


def test_a_break_begins_it_anew():
    assert first([7] * 511 + [8] + [7] * 511) is None
    detector = LoopDetector(DEFAULT)
    assert [detector.add(token) for token in [7] * 513 + [8]][-3:] == [True, True, False]


def test_no_token_is_taken_for_one_before_the_first():
    stop = LoopStop(4, 2, 1)
    assert answers([0, 0], stop) == [False, True]
    assert answers([5], stop) == [False]
    assert answers([2**31, 2**31], stop) == [False, True]


@pytest.mark.parametrize(
    "code",
    [
        [1, 2] * 250,  # a list of 250 zeros
        ([3] + [1, 2] * 10 + [4]) * 7,  # seven rows of ten
        [token for number in range(200) for token in (5, 6, number + 10, 7)],  # a table that counts up
    ],
)
def test_the_defaults_leave_regular_code_alone(code):
    assert first(list(range(1000, 6000)) + code) is None


def test_a_token_costs_the_same_however_long_the_completion():
    detector, seconds = LoopDetector(DEFAULT), []
    r = random.Random(0)
    for _ in range(20):
        tokens = [r.randrange(50) for _ in range(1000)]
        start = time.perf_counter()
        for token in tokens:
            detector.add(token)
        seconds.append((time.perf_counter() - start) / len(tokens))
    assert min(seconds[-5:]) < 100e-6  # far above what it takes; a scan of all the text takes longer
    sizes = [getattr(value, "nbytes", 0) for value in vars(detector).values()]
    assert sum(sizes) < 20_000


@pytest.mark.parametrize("bad", [{"period": 0}, {"repeats": 1}, {"min_tokens": 0}, {"period": 2.5}, {"repeats": True}])
def test_settings_that_mean_nothing_are_refused(bad):
    with pytest.raises(BadInput, match=f"{next(iter(bad))} of a loop stop is"):
        LoopStop(**{"period": 256, "repeats": 8, "min_tokens": 512} | bad)


def test_settings_are_the_recipes():
    assert LoopStop(256, 8, 512) == DEFAULT
    assert loop_stop_of(sections.LoopStop(period=3, repeats=4, min_tokens=5)) == LoopStop(3, 4, 5)
    assert loop_stop_of(None) is None


# The first copy


@pytest.mark.parametrize(
    "tokens, left",
    [
        ([], 0),
        ([1], 1),
        ([1, 2, 3], 3),
        ([9, 1, 2, 1, 2, 1], 3),  # the last copy need not be whole
        ([9, 7, 7, 7], 2),
        ([1, 2, 1, 2, 1, 2, 1, 2], 2),  # not 4, though 1 2 1 2 is a cycle too
        ([5, 1, 1, 2, 1, 1, 2, 1, 1], 4),  # not the two 1 at the end
        ([1, 2, 3, 1, 2], 5),  # not even twice
    ],
)
def test_first_copy(tokens, left):
    assert end_of_first_copy(tokens) == left


def test_what_the_detector_stopped_is_cut_to_its_first_copy():
    """What was before the cycle stays whole, one copy stays, and copies of it make the completion again."""
    stopped = 0
    for r, tokens in sequences(2, 300):
        stop = LoopStop(9, 3, r.randint(1, 30))
        length = first(tokens, stop)
        if length is None:
            continue
        tokens, left = tokens[:length], end_of_first_copy(tokens[:length])
        stopped += 1
        assert any(
            all(tokens[i] == tokens[i - period] for i in range(left, length))
            and length - (left - period) >= max(period * stop.repeats, stop.min_tokens)
            for period in range(1, min(left, 9) + 1)
        )
    assert stopped > 100
