"""Which texts are analysed: answers to the test problems that a run holds already, or a user's own.

Base and students read the same texts, token for token. By default these are the base's answers, in the decoding that
all are judged in: at what the base itself comes to write, what would the student do? A student's own answers ask the
other question.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_ssd import arms
from mlx_ssd.analysis.store import Text
from mlx_ssd.controls import policy_of, suite_name
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import BASE
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade
from mlx_ssd.sections import Prompt
from mlx_ssd.storage import Journal, hash_json

KEYS = ({"prompt", "completion"}, {"text"})


def journals(recipe: Recipe, directory: Path) -> tuple[Path, Path]:
    """(generations, grades) of the answers that are analysed."""
    chosen = recipe.analyze.texts
    known = {arm.name: arm for arm in (arms.base(recipe, directory), *arms.students(recipe, directory))}
    arm = known[chosen]
    decoding = policy_of(arm.recipe.evaluate.decoding).name()
    suite = suite_name(recipe.problems.test, "test")
    return arm.files.generations(suite, decoding), arm.files.grades(suite, decoding)


def answers(recipe: Recipe, directory: Path) -> tuple[list[Text], str]:
    """The answers in the order of the problems, and in words what they are; whole ones, up to the limit of tokens."""
    wanted, (generations, grades) = recipe.analyze, journals(recipe, directory)
    verdicts = {grade.key: grade.verdict for grade in Journal(grades, Grade).read()}
    drawn = {generation.key: generation for generation in Journal(generations, Generation).read()}
    found, tokens = [], 0
    for problem in read_problems(recipe.problems.test, "test"):
        for index in range(wanted.samples_per_problem):
            answer = drawn.get((problem.id, index))
            if answer is None or not answer.completion_ids:
                continue
            tokens += len(answer.completion_ids)
            if found and tokens > wanted.max_tokens:
                return found, _source(recipe)
            text = answer.model_dump(
                include={"problem_id", "sample_index", "prompt_ids", "completion_ids", "finish_reason"}
            )
            found.append(Text(**text, verdict=verdicts.get(answer.key), difficulty=problem.difficulty))
    if not found:
        raise BadInput(f"{generations} holds no answers to analyse; run evaluate first")
    return found, _source(recipe)


def _source(recipe: Recipe) -> str:
    chosen = recipe.analyze.texts
    decoding = recipe.evaluate.decoding if chosen == BASE else recipe.of_arm(chosen).evaluate.decoding
    whose = "the base's" if chosen == BASE else f"{chosen}'s"
    return f"{whose} answers to the test problems, decoded at {policy_of(decoding).name()}"


def own(file: Path, tokenizer: Any, prompt: Prompt, context: int | None) -> tuple[list[Text], str]:
    """A user's own texts, one JSON object a line: {"prompt": ..., "completion": ...} through the model's chat template,
    or {"text": ...} as it is, of which all but the first token is analysed. Raises BadInput for the first bad line.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise BadInput(f"--texts {file} is not a text file in UTF-8") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        given = _line(line, where)
        if "text" in given:
            first, *rest = render(tokenizer, given["text"], Prompt(format="raw")) or [0]
            ids, completion = [first], rest
        else:
            try:
                ids = render(tokenizer, given["prompt"], prompt)
            except BadInput as error:
                raise BadInput(f"{where}: {error}") from None
            completion = tokenizer.encode(given["completion"], add_special_tokens=False)
        if not completion:
            raise BadInput(f"{where}: there is no token to analyse; give a longer text, or delete the line")
        if context and len(ids) + len(completion) > context:
            raise BadInput(
                f"{where}: the text has {len(ids) + len(completion)} tokens, more than the {context} that the model "
                "was made for; cut it"
            )
        found.append(Text(problem_id=f"line {number}", sample_index=0, prompt_ids=ids, completion_ids=completion))
    if not found:
        raise BadInput(f"--texts {file} holds no texts")
    return found, f"the texts of {file.name}"


def _line(line: str, where: str) -> dict[str, str]:
    try:
        given = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        given = None
    if not isinstance(given, dict) or set(given) not in KEYS or not all(isinstance(v, str) for v in given.values()):
        raise BadInput(f'{where}: write it as {{"prompt": "...", "completion": "..."}} or as {{"text": "..."}}')
    try:
        "".join(given.values()).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: the text holds half of a surrogate pair, which is no character") from None
    return given


def sha(texts: list[Text]) -> str:
    return hash_json([text.model_dump(include={"prompt_ids", "completion_ids"}) for text in texts])
