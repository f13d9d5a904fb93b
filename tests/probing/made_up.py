"""A probe's question without a model, and grades made up for it."""

import numpy as np

from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.probing.question import Question, ask, recipe_of
from mlx_ssd.records import Generation, Grade
from mlx_ssd.storage import write_records

PAPER = DecodingPolicy(1.6, 20, 0.8)
MILD = DecodingPolicy(1.3, 20, 0.8)


def question(directory, problems=40, samples=5, policies=(PAPER, MILD), overrides=None) -> Question:
    return ask(recipe_of("quickstart", overrides), directory, problems, samples, policies)


def fill(asked: Question, pass_rate, seed=0) -> None:
    """The journals as if the model passed `pass_rate(policy)` of the problems' programs."""
    rng = np.random.default_rng(seed)
    for entry in asked.entries():
        keys = [(problem.id, index) for problem in asked.problems() for index in range(asked.samples)]
        drawn = {"policy": entry.policy.name(), "seed": 0, "stream": "eval", "model": "m", "template": "t"}
        tokens = {"prompt_ids": [1], "completion_ids": [2], "finish_reason": "stop"}
        generations = [Generation(problem_id=p, sample_index=i, **tokens, **drawn) for p, i in keys]
        verdicts = np.where(rng.random(len(keys)) < pass_rate(entry.policy), "pass", "wrong")
        grades = [Grade(problem_id=p, sample_index=i, verdict=v) for (p, i), v in zip(keys, verdicts, strict=True)]
        write_records(entry.generations, generations)
        write_records(entry.grades, grades)


def like(temperature, top_p, two_stage=None, second_round=(0.9, 0.3)):
    """Pass rates by how near a decoding is to the base's optimum, to the two-stage optimum of a policy, and to that of
    two rounds."""

    def rate(policy):
        if isinstance(policy, StagedPolicy) and len(policy.stages) == 3:
            return second_round[1] - abs(policy.stages[-1].temperature - second_round[0])
        if isinstance(policy, StagedPolicy):
            best, height = two_stage[policy.stages[0]]
            return height - abs(policy.stages[-1].temperature - best)
        return 0.6 - abs(policy.temperature - temperature) - abs(policy.top_p - top_p)

    return rate
