"""What a noise leaves to self-distillation, predicted from its probabilities: no model, no training, seconds.

    python -m benchmarks.embedded_model.room

A calibrated model of the corpus has at each lock and each fork the very distribution that the noise defines
there. Decoding acts on each of them alone, so the chance of a right solution is a product of a few terms, for
the base and for two-stage decoding at every temperature. `measure` shows what the trained model makes of it.

The prediction is an upper bound: a model without misunderstandings of its own, one average problem instead of
many. `--scatter` stands for imperfect calibration: a normal deviation, in nats, on every log-probability.
"""

import argparse

import torch

from benchmarks.embedded_model.measure import BASE_TEMPERATURES, TOP_K, TWO_STAGE_TEMPERATURES, Policy
from benchmarks.embedded_model.solutions import ELEMENT_NAMES, FILTER_LOOK_ALIKES, MAP_LOOK_ALIKES, Noise
from benchmarks.embedded_model.solutions import WRONG_CONSTANT_OFFSETS as OFFSETS
from benchmarks.embedded_model.tasks import FILTERS, HARD_REDUCTIONS, MAPS, REDUCTIONS

DRAWS = 400  # of the scatter
UNNAMED_SHARE = 0.1  # of the hard solutions: a single place for the guard


def head_probability(probabilities: list[float], policy: Policy, scatter: float) -> float:
    """The chance of the first of the continuations under a policy, averaged over the scatter."""
    logits = torch.full((DRAWS, max(TOP_K, len(probabilities))), -torch.inf)
    logits[:, : len(probabilities)] = torch.tensor(probabilities).log()
    logits += scatter * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    return policy(None, logits).softmax(-1)[:, 0].mean().item()


def lock(wrong: float, distractors: int) -> list[float]:
    return [1 - wrong, *[wrong / distractors] * distractors]


def locks(noise: Noise) -> list[tuple[list[float], float]]:
    """(distribution, how many of them an average solution has), the right token first."""
    look_alikes = len(next(iter((FILTER_LOOK_ALIKES | MAP_LOOK_ALIKES).values())))
    constants = sum(
        sum("{k}" in step.expression for step in steps.values()) / len(steps) for steps in (FILTERS, MAPS)
    )
    names, reductions = len(ELEMENT_NAMES), len(REDUCTIONS)
    return [
        (lock(noise.wrong_operator, look_alikes), 2),
        (lock(noise.wrong_constant, len(OFFSETS)), constants),
        (lock(noise.random_variable * (names - 1) / names, names - 1), 2),
        (lock(noise.random_reduction * (reductions - 1) / reductions, reductions - 1), 1),
        (lock(noise.swapped_order, 1), 1),
    ]


def guard_forks(noise: Noise, forms: int) -> list[list[float]]:
    """The two places of a named result, the wrong continuation first: `return` against `if not`, then the
    end of the line against the other forms."""
    unguarded = noise.missing_guard**forms
    form = (1 - unguarded) / forms
    return [[1 - form, form], [unguarded / (1 - form), *[form / (1 - form)] * (forms - 1)]]


def pass_rates(noise: Noise, policy: Policy, scatter: float) -> tuple[float, float]:
    """Predicted pass@1 of easy and of hard problems."""
    easy = 1.0
    for distribution, count in locks(noise):
        easy *= head_probability(distribution, policy, scatter) ** count
    missing = 0.0
    for forms in (3, 2):  # max and min; first and last
        first, second = (head_probability(f, policy, scatter) for f in guard_forks(noise, forms))
        single = head_probability([noise.missing_guard, 1 - noise.missing_guard], policy, scatter)
        missing += ((1 - UNNAMED_SHARE) * first * second + UNNAMED_SHARE * single) / 2
    return easy, easy * (1 - missing)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scatter", type=float, default=0.2, help="nats")
    args = parser.parse_args()

    hard_share = len(HARD_REDUCTIONS) / len(REDUCTIONS)
    print(f"predicted pass@1 in %, scatter {args.scatter}")
    for name, temperatures in (("base", BASE_TEMPERATURES), ("two-stage", TWO_STAGE_TEMPERATURES)):
        for temperature in temperatures:
            policy = Policy(temperature, two_stage=name == "two-stage")
            easy, hard = (100 * rate for rate in pass_rates(Noise(), policy, args.scatter))
            both = (1 - hard_share) * easy + hard_share * hard
            print(f"{name:9s} T {temperature:<4}  {both:5.1f}  (easy {easy:5.1f}, hard {hard:5.1f})")


if __name__ == "__main__":
    main()
