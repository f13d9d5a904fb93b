"""Report: every fact from the run's files -> report.json, report.md, report.html."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_ssd import arms, rounds
from mlx_ssd.layout import BASE, MAIN, RunFiles, unit_name
from mlx_ssd.problems import read_problems
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import hash_path, read_json, write_atomic, write_json

VERSION = 9


def settings(recipe: Recipe) -> dict:
    return {"name": recipe.name}


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    from mlx_ssd.report.page.material import beside

    found = {"scores": hash_path(files.scores)}
    for arm in (arms.base(recipe, files.directory), *arms.students(recipe, files.directory)):
        found[f"answers of {arm.name}"] = hash_path(arm.files.evaluation)
        if arm.name != BASE:
            found[f"selection of {arm.name}"] = hash_path(arm.files.selection)
            found[f"curation of {arm.name}"] = hash_path(arm.files.curation)
            found[f"training log of {arm.name}"] = hash_path(arm.files.training_log)
    for path in sorted(files.directory.glob("round-*/**/validation.json")):
        found[str(path.relative_to(files.directory))] = hash_path(path)
    if files.plan.exists():
        found["plan"] = hash_path(files.plan)
    # The parts of an analysis may be gigabytes; its summary, written last, changes with them.
    for path in sorted(files.analysis.glob("*/analysis.json")):
        found[f"analysis of {path.parent.name}"] = hash_path(path)
    for path in beside(files):
        found[str(path.relative_to(files.directory))] = hash_path(path)
    return found


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.report_json, files.report_md, files.report_html, files.figures]


def run(recipe: Recipe, files: RunFiles) -> dict:
    from mlx_ssd.report.markdown import render

    write_json(files.report_json, _collected(recipe, files))
    # Read back, so that Markdown is rendered from what the file holds (JSON's string keys included).
    write_atomic(files.report_md, render(read_json(files.report_json)))
    write_atomic(files.report_html, _page(recipe, files))
    return {}


def _collected(recipe: Recipe, files: RunFiles) -> dict[str, Any]:
    from mlx_ssd.analysis import store
    from mlx_ssd.report.facts import arm_facts, facts
    from mlx_ssd.report.rounds import round_facts

    measured = read_json(files.manifest)["stages"]
    trained = [
        arm_facts(
            arm.name,
            arm.recipe,
            read_json(arm.files.selection),
            read_json(arm.files.curation),
            _log(arm.files),
            measured[unit_name("train", arm.files)]["measured"],
        )
        for arm in arms.students(recipe, files.directory)
    ]
    chosen = arms.base(recipe, files.directory).files.best_decoding
    best = read_json(chosen) if recipe.evaluate.curve else None
    if recipe.evaluate.base_best:
        best = {"decoding": recipe.evaluate.base_best.model_dump()}
    return facts(
        recipe,
        str(files.directory),
        read_json(files.manifest),
        read_json(files.scores),
        trained,
        best,
        read_problems(recipe.problems.test, "test")[0].prompt,
        read_json(files.plan) if files.plan.exists() else None,
        {name: store.summary(files.analysis, name) for name in store.arms(files.analysis)},
        round_facts(_ways(recipe, files)),
    )


def _ways(recipe: Recipe, files: RunFiles) -> dict[str, Any]:
    """Of the arms with several rounds: by name, their settings and what validation found."""
    return {
        arm.name: (arm.recipe.rounds, rounds.validations(files.directory, arm.name))
        for arm in arms.students(recipe, files.directory)
        if arm.recipe.rounds.last > 1
    }


def _log(files: RunFiles) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files.training_log.read_text().splitlines()]


def _page(recipe: Recipe, files: RunFiles) -> str:
    from mlx_ssd import models
    from mlx_ssd.analysis import store
    from mlx_ssd.report.figures import figures, write_figures
    from mlx_ssd.report.page import decode, material, page, samples
    from mlx_ssd.report.page.figures import drawings

    found = material.read(files)
    logs = {arm.name: _log(arm.files) for arm in arms.students(recipe, files.directory)}
    drawn = figures(found.report | {"frontier": found.frontier}, logs)
    write_figures(drawn, files.figures)
    found.drawings = drawings(drawn)
    analysed = store.arms(files.analysis)
    answers = _analysed(recipe, files) if analysed else _shown(recipe, files)
    if not answers:
        found.samples_note = "There are no answers to show."
        return page.render(found)
    found.packed = samples.pack(
        answers,
        {problem.id: problem for problem in read_problems(recipe.problems.test, "test")},
        decode.Pieces(models.load_tokenizer(models.locate(recipe.model))),
        {name: lambda name=name: store.parts(files.analysis, name) for name in analysed},
        {name: found.report["analysis"][name]["rule"] for name in analysed},
    )
    return page.render(found)


def _analysed(recipe: Recipe, files: RunFiles) -> list[Any]:
    """The texts of the analysis, with what the grader said of those that are answers of the run."""
    from mlx_ssd.analysis import store
    from mlx_ssd.report.page.samples import Sample

    whose = recipe.analyze.texts if recipe.analyze else BASE
    texts = store.texts(files.analysis)
    ids = {(text.problem_id, text.sample_index): text.completion_ids for text in texts}
    known = {}
    for answer in _answers(recipe, files, (whose,)):
        key = answer.problem_id, answer.sample_index
        if ids.get(key) == answer.completion_ids:
            known[key] = replace(answer, completion_ids=())  # the text has them
    found = []
    for number, text in enumerate(texts):
        answer = known.get((text.problem_id, text.sample_index))
        found.append(
            Sample(
                text.problem_id,
                text.sample_index,
                whose if answer else "the text",
                text.completion_ids,
                text.finish_reason,
                text.verdict or (answer.verdict if answer else None),
                text.difficulty,
                answer.detail if answer else "",
                number,
            )
        )
    return found


def _shown(recipe: Recipe, files: RunFiles) -> list[Any]:
    """The answers of base and student, by problem; of their tokens those that a page can show."""
    from mlx_ssd.report.page.samples import MOST_TOKENS

    found = []
    for answer in _answers(recipe, files, (BASE, MAIN)):
        first = array("I", answer.completion_ids[:MOST_TOKENS])  # 4 bytes each, not 40
        found.append(replace(answer, completion_ids=first, tokens=len(answer.completion_ids)))
    return sorted(found, key=lambda sample: (sample.problem_id, sample.sample_index))


def _answers(recipe: Recipe, files: RunFiles, wanted: tuple[str, ...]) -> Iterator[Any]:
    """What these arms answered to the test problems at their usual decoding, one at a time."""
    from mlx_ssd.comparisons import latest_grades
    from mlx_ssd.controls import policy_of, test_entries
    from mlx_ssd.records import Generation
    from mlx_ssd.report.page.samples import Sample
    from mlx_ssd.storage import Journal

    usual = {
        name: policy_of((recipe if name == BASE else recipe.of_arm(name)).evaluate.decoding).name() for name in wanted
    }
    levels = {problem.id: problem.difficulty for problem in read_problems(recipe.problems.test, "test")}
    for entry in test_entries(recipe, files.directory):
        if entry.policy.name() != usual.get(entry.label):
            continue
        grades = {grade.key: grade for grade in latest_grades(entry)}
        for generation in Journal(entry.generations, Generation).each():
            grade = grades.get(generation.key)
            if generation.problem_id not in levels or not grade:
                continue
            detail = grade.detail
            if grade.failed_test is not None:
                detail = f"test {grade.failed_test + 1} failed" + (f": {detail}" if detail else "")
            yield Sample(
                generation.problem_id,
                generation.sample_index,
                entry.label,
                generation.completion_ids,
                generation.finish_reason,
                grade.verdict,
                levels[generation.problem_id],
                detail,
            )
