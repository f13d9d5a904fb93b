"""The embedded task: source x filter x map x reduce x order, a statement in English, and executable tests.

    Given a list of integers xs. Keep those that are even, then square each, and return the sum.

    def solve(xs):

A *composition* is (source, filter, map, reduce); either order of filter and map makes a *spec* of it: 2,880
compositions, 5,760 specs. A hash of the composition alone assigns it to one split, so no composition that is
evaluated or self-distilled on occurs in pre-training, in whichever order, with whatever constants or wording.

Problems that reduce to one element (max, min, first, last) are "hard": the statement says what to return when
no value survives the filter, and a test asks for it.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Split = Literal["pretrain", "train", "validation", "test"]
Value = int | list[int]
Argument = int | str | list[int]

CONSTANTS = range(2, 10)
RANDOM_TESTS = 8


@dataclass(frozen=True)
class Source:
    """Where the integers come from: parameter name, wordings, equivalent iterables, and what they denote."""

    parameter: str
    phrases: tuple[str, ...]
    iterables: tuple[str, ...]
    integers: Callable[[Argument], list[int]]
    draw: Callable[[random.Random], Argument]
    empty: tuple[Argument, ...]  # arguments that may leave no survivors, tried in this order


@dataclass(frozen=True)
class Step:
    """A filter or a map: wordings, the Python expression over {v} and {k}, and the function it denotes."""

    phrases: tuple[str, ...]
    expression: str
    function: Callable[[int, int], int]


@dataclass(frozen=True)
class Reduction:
    """The last step: wordings and the function from the surviving values to the answer."""

    phrases: tuple[str, ...]
    function: Callable[[list[int]], Value]


def _draw_list(rng: random.Random) -> list[int]:
    return [rng.randint(-12, 30) for _ in range(rng.randint(3, 9))]


def _draw_words(rng: random.Random) -> str:
    return " ".join("a" * rng.randint(1, 12) for _ in range(rng.randint(3, 8)))


def _product(values: list[int]) -> int:
    result = 1
    for value in values:
        result *= value
    return result


SOURCES = {
    "list": Source(
        "xs",
        ("Given a list of integers xs", "You get a list xs of integers"),
        ("xs",),
        lambda xs: list(xs),
        _draw_list,
        ([],),
    ),
    "digits": Source(
        "n",
        ("Given a non-negative integer n, look at its digits", "Take the digits of a non-negative integer n"),
        ("map(int, str(n))", "[int(c) for c in str(n)]"),
        lambda n: [int(c) for c in str(n)],
        lambda rng: rng.randint(100, 99_999_999),
        (0, 1, 2, 3, 5, 7, 8, 9, 22, 33),
    ),
    "range": Source(
        "n",
        ("Consider the integers from 1 to n", "Take all integers from 1 up to n"),
        ("range(1, n + 1)",),
        lambda n: list(range(1, n + 1)),
        lambda rng: rng.randint(4, 25),
        (0,),
    ),
    "words": Source(
        "s",
        ("Given a string s, look at the lengths of its words", "Take the word lengths of a string s"),
        ("[len(w) for w in s.split()]", "map(len, s.split())"),
        lambda s: [len(w) for w in s.split()],
        _draw_words,
        ("",),
    ),
}

FILTERS = {
    "even": Step(("that are even", "divisible by two"), "{v} % 2 == 0", lambda v, k: v % 2 == 0),
    "odd": Step(("that are odd", "not divisible by two"), "{v} % 2 == 1", lambda v, k: v % 2 == 1),
    "gt": Step(("greater than {k}", "above {k}"), "{v} > {k}", lambda v, k: v > k),
    "lt": Step(("less than {k}", "below {k}"), "{v} < {k}", lambda v, k: v < k),
    "ge": Step(("at least {k}", "not below {k}"), "{v} >= {k}", lambda v, k: v >= k),
    "le": Step(("at most {k}", "not above {k}"), "{v} <= {k}", lambda v, k: v <= k),
    "div": Step(("divisible by {k}", "that are multiples of {k}"), "{v} % {k} == 0", lambda v, k: v % k == 0),
    "ndiv": Step(
        ("not divisible by {k}", "that are no multiples of {k}"), "{v} % {k} != 0", lambda v, k: v % k != 0
    ),
    "ne": Step(("different from {k}", "not equal to {k}"), "{v} != {k}", lambda v, k: v != k),
}

MAPS = {
    "mul": Step(("multiply each by {k}", "scale each by {k}"), "{v} * {k}", lambda v, k: v * k),
    "add": Step(("add {k} to each", "increase each by {k}"), "{v} + {k}", lambda v, k: v + k),
    "sub": Step(("subtract {k} from each", "decrease each by {k}"), "{v} - {k}", lambda v, k: v - k),
    "sq": Step(("square each", "replace each by its square"), "{v} * {v}", lambda v, k: v * v),
    "cube": Step(("cube each", "replace each by its cube"), "{v} ** 3", lambda v, k: v**3),
    "neg": Step(("negate each", "flip the sign of each"), "-{v}", lambda v, k: -v),
    "mod": Step(
        ("reduce each modulo {k}", "replace each by its remainder modulo {k}"),
        "{v} % {k}",
        lambda v, k: v % k,
    ),
    "fdiv": Step(
        ("floor-divide each by {k}", "divide each by {k} rounding down"), "{v} // {k}", lambda v, k: v // k
    ),
}

REDUCTIONS = {
    "sum": Reduction(("return the sum", "give their total"), sum),
    "count": Reduction(
        ("return how many distinct values there are", "count the distinct values"), lambda ys: len(set(ys))
    ),
    "prod": Reduction(("return the product", "multiply them all together"), _product),
    "sorted": Reduction(("return them sorted", "give the values in ascending order"), sorted),
    "rev": Reduction(("return them in reverse order", "give the values reversed"), lambda ys: ys[::-1]),
    "list": Reduction(("return them as a list", "give the list of values"), lambda ys: ys),
    "max": Reduction(
        ("return the largest, or 0 if there is none", "give the maximum (0 if nothing is left)"),
        lambda ys: max(ys, default=0),
    ),
    "min": Reduction(
        ("return the smallest, or 0 if there is none", "give the minimum (0 if nothing is left)"),
        lambda ys: min(ys, default=0),
    ),
    "first": Reduction(
        ("return the first one, or -1 if there is none", "give the first (-1 if nothing is left)"),
        lambda ys: ys[0] if ys else -1,
    ),
    "last": Reduction(
        ("return the last one, or -1 if there is none", "give the last (-1 if nothing is left)"),
        lambda ys: ys[-1] if ys else -1,
    ),
}
HARD_REDUCTIONS = frozenset({"max", "min", "first", "last"})

FILTER_FIRST_FRAMES = (
    "{source}. Keep those {filter}, then {map}, and {reduce}.",
    "{source}. Select the ones {filter}; {map}; {reduce}.",
)
MAP_FIRST_FRAMES = (
    "{source}. First {map}, then keep the results {filter}, and {reduce}.",
    "{source}. {Map}, select the results {filter}; {reduce}.",
)


@dataclass(frozen=True)
class Spec:
    """What a problem asks for, without its constants and its wording."""

    source: str
    filter: str
    map: str
    reduce: str
    filter_first: bool

    @property
    def composition(self) -> tuple[str, str, str, str]:
        return self.source, self.filter, self.map, self.reduce

    @property
    def hard(self) -> bool:
        return self.reduce in HARD_REDUCTIONS


@dataclass(frozen=True)
class Problem:
    """A spec with its constants, its statement, and the tests: (argument, expected answer)."""

    spec: Spec
    filter_constant: int
    map_constant: int
    prompt: str
    tests: tuple[tuple[Argument, Value], ...]


def all_specs() -> list[Spec]:
    return [
        Spec(source, filter_, map_, reduce, filter_first)
        for source in SOURCES
        for filter_ in FILTERS
        for map_ in MAPS
        for reduce in REDUCTIONS
        for filter_first in (True, False)
    ]


def split_of(spec: Spec) -> Split:
    """60 % of the compositions are for pre-training, 18 % train, 6 % validation, 16 % test."""
    bucket = int(hashlib.md5("|".join(spec.composition).encode()).hexdigest(), 16) % 100
    if bucket < 60:
        return "pretrain"
    if bucket < 78:
        return "train"
    return "validation" if bucket < 84 else "test"


def survivors(spec: Spec, filter_constant: int, map_constant: int, argument: Argument) -> list[int]:
    """The values that reach the reduction."""
    keep, change = FILTERS[spec.filter].function, MAPS[spec.map].function
    values = SOURCES[spec.source].integers(argument)
    if spec.filter_first:
        return [change(v, map_constant) for v in values if keep(v, filter_constant)]
    changed = (change(v, map_constant) for v in values)
    return [v for v in changed if keep(v, filter_constant)]


def answer(spec: Spec, filter_constant: int, map_constant: int, argument: Argument) -> Value:
    """The reference answer: an int or a list of ints."""
    return REDUCTIONS[spec.reduce].function(survivors(spec, filter_constant, map_constant, argument))


def _statement(spec: Spec, filter_constant: int, map_constant: int, rng: random.Random) -> str:
    source = SOURCES[spec.source]
    map_phrase = rng.choice(MAPS[spec.map].phrases).format(k=map_constant)
    sentence = rng.choice(FILTER_FIRST_FRAMES if spec.filter_first else MAP_FIRST_FRAMES).format(
        source=rng.choice(source.phrases),
        filter=rng.choice(FILTERS[spec.filter].phrases).format(k=filter_constant),
        map=map_phrase,
        Map=map_phrase[0].upper() + map_phrase[1:],
        reduce=rng.choice(REDUCTIONS[spec.reduce].phrases),
    )
    return f"{sentence}\n\ndef solve({source.parameter}):"


def make_problem(spec: Spec, rng: random.Random, *, with_tests: bool = True) -> Problem:
    """Draws the constants (2..9), the wording and, if asked for, eight random tests and an empty case.

    The ninth test is missing only where no argument we know of leaves nothing (some digit problems).
    """
    filter_constant, map_constant = rng.choice(CONSTANTS), rng.choice(CONSTANTS)
    prompt = _statement(spec, filter_constant, map_constant, rng)
    arguments: list[Argument] = []
    if with_tests:
        source = SOURCES[spec.source]
        arguments = [source.draw(rng) for _ in range(RANDOM_TESTS)]
        nothing_left = (a for a in source.empty if not survivors(spec, filter_constant, map_constant, a))
        arguments += [a for a in [next(nothing_left, None)] if a is not None]
    tests = tuple((a, answer(spec, filter_constant, map_constant, a)) for a in arguments)
    return Problem(spec, filter_constant, map_constant, prompt, tests)


def make_split(split: Split, count: int, seed: int, *, with_tests: bool = True) -> list[Problem]:
    """`count` problems of one split; no spec comes twice before every spec of the split has come once."""
    rng = random.Random(f"{seed}/{split}")
    pool = [spec for spec in all_specs() if split_of(spec) == split]
    problems: list[Problem] = []
    while len(problems) < count:
        for spec in rng.sample(pool, min(len(pool), count - len(problems))):
            problems.append(make_problem(spec, rng, with_tests=with_tests))
    return problems
