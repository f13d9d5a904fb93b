"""How much work a recipe is: tokens of prompts and answers, and how many of them each stage asks for."""

from __future__ import annotations

from pathlib import Path

from mlx_ssd.budget.decoding import Work
from mlx_ssd.recipe import Recipe
from mlx_ssd.rounds import FIRST, draws_from_base, recipe_of_round
from mlx_ssd.sections import ProblemSource

# Mean tokens of a prompt, of an answer, and of an answer with its thinking: guesses. The longest prompt is taken as
# twice the mean one, and no answer is longer than max_tokens.
LENGTHS = {
    "embedded": (100, 400, 3000), "jsonl": (300, 1000, 8000), "rstar_coder": (500, 1500, 12000),
    "livecodebench": (600, 1500, 12000), "humaneval": (200, 300, 3000), "mbpp": (150, 250, 3000),
    "gsm8k": (150, 250, 2500),
}  # fmt: skip
OF_EMBEDDED_MODEL = (62, 48, 48)  # counted: its answers to its own problems, in its own tokens
PROBLEMS = {"humaneval": 164, "gsm8k": 1319, "livecodebench": 131}  # of a whole set, where that is known
UNKNOWN_PROBLEMS = 100  # of a set whose size the recipe does not say


def work_of(recipe: Recipe, source: str, max_tokens: int) -> Work:
    own = recipe.model.path == "embedded" and source == "embedded"
    prompt, answer, thought = OF_EMBEDDED_MODEL if own else LENGTHS[source]
    thinks = recipe.prompt.enable_thinking or recipe.prompt.reasoning_effort
    expected = thought if thinks else answer
    return Work(prompt, min(expected, max_tokens), 2 * prompt, max_tokens)


def problem_count(source: ProblemSource) -> int:
    """Of a set as the recipe takes it, where that can be known without loading it."""
    there = PROBLEMS.get(source.source)
    if source.source == "jsonl" and source.path and Path(source.path).is_file():
        with open(source.path, "rb") as file:
            there = sum(1 for line in file if line.strip())
    if there is None:
        return source.limit or UNKNOWN_PROBLEMS
    there = max(there - source.skip, 1)
    return min(there, source.limit or there)


def student_recipes(recipe: Recipe) -> list[Recipe]:
    return [recipe.of_arm(name) for name in ("student", *(arm.name for arm in recipe.arms))]


def sampled_apart(recipe: Recipe) -> int:
    """How often a set of samples is drawn: in each round by every arm whose are its own."""
    students = student_recipes(recipe)
    drawn = 0
    for number in range(FIRST, max(own.rounds.last for own in students) + 1):
        in_it = [recipe_of_round(own, number) for own in students if own.rounds.last >= number]
        of_base = {repr((own.problems.train, own.sample)) for own in in_it if draws_from_base(own, number)}
        drawn += len(of_base) + sum(not draws_from_base(own, number) for own in in_it)
    return drawn


def decodings_of_test(recipe: Recipe) -> list[int]:
    """How many decodings of the test problems the base answers, and then each student."""
    students = student_recipes(recipe)
    frozen = len({repr(student.evaluate.decoding) for student in students})
    frozen += bool(recipe.evaluate.curve or recipe.evaluate.base_best)
    if recipe.evaluate.two_stage:
        changed = (s for s in students if not s.sample.decoding.plain)
        frozen += len({repr((s.sample.decoding, s.evaluate.decoding)) for s in changed})
    return [frozen, *(1 for _ in students)]


def analyzed_texts(recipe: Recipe) -> float:
    """How many answers are analysed, with each student; 0 where that is left out."""
    if not recipe.analyze:
        return 0.0
    answer = work_of(recipe, recipe.problems.test.source, recipe.evaluate.max_tokens).answer
    answers = problem_count(recipe.problems.test) * recipe.analyze.samples_per_problem
    return min(answers, max(recipe.analyze.max_tokens / answer, 1))


def decodings_of_curve(recipe: Recipe) -> list[int]:
    """The same of the validation problems; nothing without a curve."""
    curve, students = recipe.evaluate.curve, len(recipe.arms) + 1
    if not curve or not recipe.problems.validation:
        return [0] * (1 + students)
    points = len(curve.temperatures)
    of_students = [points * own.rounds.last for own in student_recipes(recipe)]  # each round anew
    return [points * (1 + len(curve.base_top_p) + recipe.evaluate.two_stage), *of_students]
