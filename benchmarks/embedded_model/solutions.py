"""The noisy solution writer: what the embedded model is pre-trained on.

A solution makes two kinds of choice. *Forks* have several right continuations: loop (40 %), comprehension
(25 %), two steps (20 %) or lambdas (15 %); variable names; equivalent iterables; how an empty case is
guarded. *Locks* have one: the operator, the constant, the variable in scope.

**Noise is injected, by design.** Without it a model of this size solves nearly everything and there is no
tension between precision and exploration to study. Independently, in each solution,

- each of the filter and the map expression has a look-alike operator with 8 % and a constant near the right
  one with 8 %, one of three each;
- each of the two names its variable at random with 2.5 %, which breaks the code unless it hits the right one;
- the reduction is drawn anew with 5 %, and filter and map are swapped with 5 %;
- a solution of a hard problem (max, min, first, last) lacks the guard for the empty case, and fails the test
  without survivors, with 0.86 to the number of forms that the guard could take: 64 % with three forms, 74 %
  with two, 86 % with one. That fork's popular branch is wrong, the right one is spread over several.

The numbers serve the conflict between precision and exploration. A lock with three wrong tokens of 2.7 % each
keeps its right one alone under top-p 0.8 up to T 1.35 or so; one token beside it enters the support at the
training policy's T 1.6, and two-stage decoding drops it again. Each form of the guard, decided at two places,
needs T above about 1.3 to be tried at all, and more to be tried often. `room` computes what that leaves.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.embedded_model.tasks import FILTERS, HARD_REDUCTIONS, MAPS, REDUCTIONS, SOURCES, Problem

# Wrong expressions over {v} and the constant {k}: they part from the right one at its first operator.
FILTER_LOOK_ALIKES = {
    "even": ("{v} // 2 == 0", "{v} - 2 == 0", "{v} * 2 == 0"),
    "odd": ("{v} // 2 == 1", "{v} - 2 == 1", "{v} * 2 == 1"),
    "gt": ("{v} >= {k}", "{v} < {k}", "{v} != {k}"),
    "lt": ("{v} <= {k}", "{v} > {k}", "{v} != {k}"),
    "ge": ("{v} > {k}", "{v} <= {k}", "{v} != {k}"),
    "le": ("{v} < {k}", "{v} >= {k}", "{v} != {k}"),
    "div": ("{v} // {k} == 0", "{v} - {k} == 0", "{v} * {k} == 0"),
    "ndiv": ("{v} // {k} != 0", "{v} - {k} != 0", "{v} * {k} != 0"),
    "ne": ("{v} == {k}", "{v} > {k}", "{v} < {k}"),
}
MAP_LOOK_ALIKES = {
    "mul": ("{v} + {k}", "{v} - {k}", "{v} ** {k}"),
    "add": ("{v} - {k}", "{v} * {k}", "{v} // {k}"),
    "sub": ("{v} + {k}", "{v} * {k}", "{v} // {k}"),
    "sq": ("{v} + {v}", "{v} - {v}", "{v} ** {v}"),
    "cube": ("{v} * 3", "{v} + 3", "{v} // 3"),
    "neg": ("{v}", "abs({v})", "1 - {v}"),
    "mod": ("{v} // {k}", "{v} * {k}", "{v} - {k}"),
    "fdiv": ("{v} / {k}", "{v} % {k}", "{v} * {k}"),
}
WRONG_CONSTANT_OFFSETS = (-1, 1, 2)  # around the circle of the constants 2..9

ELEMENT_NAMES = ("x", "v", "a", "i", "e", "t")
CHANGED_NAMES = ("y", "z", "b")
LIST_NAMES = ("res", "out", "vals", "ys", "kept")
ACCUMULATOR_NAMES = ("total", "acc", "ans")


@dataclass(frozen=True)
class Noise:
    """Probabilities of the injected faults; see the module's docstring."""

    wrong_operator: float = 0.08
    wrong_constant: float = 0.08
    random_variable: float = 0.025
    random_reduction: float = 0.05
    swapped_order: float = 0.05
    missing_guard: float = 0.86  # for each form that the guard could take


CLEAN = Noise(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Plan:
    """One solution's decisions, faults included, before they are laid out in a style."""

    iterable: str
    keep: Callable[[str], str]  # variable name -> filter expression
    change: Callable[[str], str]  # variable name -> map expression
    filter_first: bool
    reduce: str
    missing_guard: float
    element: str
    changed: str
    name: str


def write_solution(problem: Problem, rng: random.Random, noise: Noise = Noise()) -> str:
    """The source text of `solve` for a problem: right except for the noise."""
    plan = _plan(problem, rng, noise)
    (style,) = rng.choices((_loop, _comprehension, _two_steps, _lambdas), (0.40, 0.25, 0.20, 0.15))
    if plan.reduce == "prod":  # no built-in multiplies a list
        style = _loop
    lines = style(plan, rng)
    return f"def solve({SOURCES[problem.spec.source].parameter}):\n" + "\n".join(f"    {x}" for x in lines)


def _plan(problem: Problem, rng: random.Random, noise: Noise) -> _Plan:
    spec = problem.spec
    reduce = spec.reduce
    if rng.random() < noise.random_reduction:
        reduce = rng.choice(list(REDUCTIONS))
    return _Plan(
        iterable=rng.choice(SOURCES[spec.source].iterables),
        keep=_expression(
            FILTERS[spec.filter].expression,
            FILTER_LOOK_ALIKES[spec.filter],
            problem.filter_constant,
            rng,
            noise,
        ),
        change=_expression(
            MAPS[spec.map].expression, MAP_LOOK_ALIKES[spec.map], problem.map_constant, rng, noise
        ),
        filter_first=spec.filter_first != (rng.random() < noise.swapped_order),
        reduce=reduce,
        missing_guard=noise.missing_guard,
        element=rng.choice(ELEMENT_NAMES),
        changed=rng.choice(CHANGED_NAMES),
        name=rng.choice(LIST_NAMES),
    )


def _expression(
    right: str, look_alikes: tuple[str, ...], constant: int, rng: random.Random, noise: Noise
) -> Callable[[str], str]:
    """A filter or map expression as a function of the variable it is to be written over."""
    template = rng.choice(look_alikes) if rng.random() < noise.wrong_operator else right
    if rng.random() < noise.wrong_constant:
        constant = 2 + (constant - 2 + rng.choice(WRONG_CONSTANT_OFFSETS)) % 8
    stray = rng.choice(ELEMENT_NAMES) if rng.random() < noise.random_variable else None
    return lambda variable: template.format(v=stray or variable, k=constant)


def _loop(plan: _Plan, rng: random.Random) -> list[str]:
    operator, start = {"sum": ("+=", 0), "prod": ("*=", 1)}.get(plan.reduce, (None, None))
    accumulate = plan.reduce == "prod" or (plan.reduce == "sum" and rng.random() < 0.7)
    name = rng.choice(ACCUMULATOR_NAMES) if accumulate else plan.name
    lines = [f"{name} = {start if accumulate else '[]'}", f"for {plan.element} in {plan.iterable}:"]

    def take(value: str) -> str:
        return f"        {name} {operator} {value}" if accumulate else f"        {name}.append({value})"

    if plan.filter_first:
        lines += [f"    if {plan.keep(plan.element)}:", take(plan.change(plan.element))]
    else:
        lines.append(f"    {plan.changed} = {plan.change(plan.element)}")
        lines += [f"    if {plan.keep(plan.changed)}:", take(plan.changed)]
    return lines + ([f"return {name}"] if accumulate else _return_named(plan, name, rng))


def _two_steps(plan: _Plan, rng: random.Random) -> list[str]:
    element, name, iterable = plan.element, plan.name, plan.iterable
    if plan.filter_first:
        lines = [
            f"{name} = [{element} for {element} in {iterable} if {plan.keep(element)}]",
            f"{name} = [{plan.change(element)} for {element} in {name}]",
        ]
    else:
        lines = [
            f"{name} = [{plan.change(element)} for {element} in {iterable}]",
            f"{name} = [{element} for {element} in {name} if {plan.keep(element)}]",
        ]
    return lines + _return_named(plan, name, rng)


def _comprehension(plan: _Plan, rng: random.Random) -> list[str]:
    element, changed = plan.element, plan.changed
    if plan.filter_first:
        values = f"[{plan.change(element)} for {element} in {plan.iterable} if {plan.keep(element)}]"
    else:
        inner = f"[{plan.change(element)} for {element} in {plan.iterable}]"
        values = f"[{changed} for {changed} in {inner} if {plan.keep(changed)}]"
    return _named_or_direct(plan, values, values, rng)


def _lambdas(plan: _Plan, rng: random.Random) -> list[str]:
    element = plan.element
    keep, change = f"lambda {element}: {plan.keep(element)}", f"lambda {element}: {plan.change(element)}"
    if plan.filter_first:
        values = f"map({change}, filter({keep}, {plan.iterable}))"
    else:
        values = f"filter({keep}, map({change}, {plan.iterable}))"
    return _named_or_direct(plan, values, f"list({values})", rng)


def _named_or_direct(plan: _Plan, values: str, as_list: str, rng: random.Random) -> list[str]:
    """Assigns the list a name first (half the time; three quarters where the problem is hard) or not."""
    if rng.random() < (0.75 if plan.reduce in HARD_REDUCTIONS else 0.5):
        return [f"{plan.name} = {as_list}", *_return_named(plan, plan.name, rng)]
    return [f"return {_reduce_direct(plan, values, as_list, rng)}"]


def _return_named(plan: _Plan, name: str, rng: random.Random) -> list[str]:
    """The closing lines for values that already have a name."""
    if plan.reduce not in HARD_REDUCTIONS:
        return [f"return {_reduce_plain(plan.reduce, name, name)}"]
    bare = _pick(plan.reduce, name)
    default = _default(plan.reduce)
    guards = [
        [f"return {bare} if {name} else {default}"],
        [f"if not {name}:", f"    return {default}", f"return {bare}"],
    ]
    if plan.reduce in ("max", "min"):
        guards.append([f"return {plan.reduce}({name}, default={default})"])
    if rng.random() < plan.missing_guard ** len(guards):
        return [f"return {bare}"]
    return rng.choice(guards)


def _reduce_direct(plan: _Plan, values: str, as_list: str, rng: random.Random) -> str:
    """The closing expression for values that have no name; `values` is any iterable, `as_list` a list."""
    if plan.reduce not in HARD_REDUCTIONS:
        return _reduce_plain(plan.reduce, values, as_list)
    guarded = rng.random() >= plan.missing_guard
    if plan.reduce in ("max", "min"):
        return f"{plan.reduce}({values}, default=0)" if guarded else _pick(plan.reduce, values)
    if not guarded:
        return _pick(plan.reduce, as_list)
    return f"next(iter({as_list}), -1)" if plan.reduce == "first" else f"([-1] + {as_list})[-1]"


def _reduce_plain(reduce: str, values: str, as_list: str) -> str:
    return {
        "sum": f"sum({values})",
        "count": f"len(set({values}))",
        "sorted": f"sorted({values})",
        "rev": f"{as_list}[::-1]",
        "list": as_list,
    }[reduce]


def _pick(reduce: str, values: str) -> str:
    """Without a guard: fails where nothing is left."""
    if reduce in ("max", "min"):
        return f"{reduce}({values})"
    return f"{values}[0]" if reduce == "first" else f"{values}[-1]"


def _default(reduce: str) -> int:
    return 0 if reduce in ("max", "min") else -1
