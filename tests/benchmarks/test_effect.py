"""The effect's report: known results give known figures, chance is not called an effect, and the committed
document is what its data say."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.effect import collect, intervals
from benchmarks.effect.design import (
    FIRST_TEST_PROBLEM,
    TUNING_SEED,
    Design,
    run_recipe,
    students,
    tuning_recipe,
)
from benchmarks.effect.report import Difference, Results, read, render, sentence
from mlx_ssd.arms import students as trained_arms
from mlx_ssd.controls import test_entries as entries_on_test
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Grade
from mlx_ssd.stages import units
from mlx_ssd.statistics import Interval
from mlx_ssd.storage import Journal, write_atomic, write_json

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
BEST = {"temperature": 1.35, "top_k": 20, "top_p": 0.9, "order": "temperature_first"}
FROZEN = {
    "v": 1,
    "design": asdict(Design()),
    "base_best": {str(base): BEST for base in range(3)},
    "temperature": {"soft": 0.9, "hard": 0.9, "t1": 1.2},
    "tried": [
        {"base": 0, "arm": "two-stage", "decoding": "two-stage-t1.6-k20-p0.8-then-t0.9-k20-p0.8", "pass@1": 0.7},
        {"base": 0, "arm": "two-stage", "decoding": "two-stage-t1.6-k20-p0.8-then-t1.05-k20-p0.8", "pass@1": 0.71},
        *({"base": base, "arm": "base", "decoding": "t1.35-k20-p0.9", "pass@1": 0.6} for base in range(3)),
        {"base": 0, "arm": "soft", "decoding": "t0.9-k20-p0.8", "pass@1": 0.7},
        {"base": 0, "arm": "hard", "decoding": "t0.9-k20-p0.8", "pass@1": 0.6},
        {"base": 0, "arm": "t1", "decoding": "t1.2-k20-p0.8", "pass@1": 0.6},
    ],
}
MANIFEST = {
    "row": "manifest",
    "v": 1,
    "command": "python -m benchmarks.effect --work DIR --jobs 2",
    "jobs": 2,
    "noise": {
        "wrong_operator": 0.08,
        "wrong_constant": 0.08,
        "random_variable": 0.025,
        "random_reduction": 0.05,
        "swapped_order": 0.05,
        "missing_guard": 0.86,
    },
    "temperatures": [0.9, 1.2],
    "base_top_p": [0.9],
    "suite": "embedded-test",
    "first_problem": 200,
    "versions": {"mlx": "1"},
    "machine": {"chip": "a chip", "cores": 2, "system": "Linux"},
    "base_revisions": ["a", "b", "c"],
    "frozen": FROZEN,
    "decoding": {"soft": "t0.9-k20-p0.8", "hard": "t0.9-k20-p0.8", "t1": "t1.2-k20-p0.8"},
    "hard_problems": [1, 3],
    "seconds": {"tuning": {"train": 60.0}, "runs": {"train": 120.0, "score": 1.0}},
}
TWO_STAGE = "two-stage-t1.6-k20-p0.8-then-"


def results(passes_of, bases=3, seeds=3) -> list[dict]:
    """The rows of a whole experiment; passes_of(arm, share or decoding, base, seed): of 8, a problem each."""
    rows = [MANIFEST]
    for base in range(bases):
        for seed in range(10 * base, 10 * base + seeds):
            lines = [
                ("base", None, "t0.9-k20-p0.8"),
                ("base", None, "t1.2-k20-p0.8"),
                ("base-best", None, f"t1.{base}-k20-p0.9"),
                ("two-stage", None, f"{TWO_STAGE}t0.9-k20-p0.8"),
                ("two-stage", None, f"{TWO_STAGE}t1.2-k20-p0.8"),
                *((kind, share, MANIFEST["decoding"][kind]) for kind, share in students().values()),
            ]
            for arm, share, decoding in lines:
                row = {"row": "result", "base": base, "seed": seed, "arm": arm}
                if share:
                    row |= {"share": share, "prompts": 1200, "steps": 225}
                passes = [int(count) for count in passes_of(arm, share or decoding, base, seed)]
                rows.append(row | {"decoding": decoding, "suite": "embedded-test", "n": 8, "passes": passes})
    return rows


def hand_made(arm, share, base, seed):
    """Base at its best 3 of 8 everywhere; soft targets 4, 5, 6 by base; hard tokens 3; base at T 1.2 1; the rest 2."""
    if share == "t1.2-k20-p0.8":
        return [1] * 4
    if arm == "soft" and share == "1":
        return [4 + base] * 4
    return [3] * 4 if arm in ("base-best", "hard") else [2, 2, 2, 0]


def test_figures_worked_out_by_hand():
    found = Results(results(hand_made))
    soft, hard = ("soft", "1"), ("hard", "1")
    assert found.score(soft, 1).mean == pytest.approx(100 * 5 / 8)
    assert found.score(found.best, 1).mean == pytest.approx(100 * 3 / 8)
    # 1 - C(8 - c, 5) / 56: with c = 4 or more nothing is left to miss, with 3 it is 1 - 1/56.
    assert found.score(soft, 5).mean == pytest.approx(100)
    assert found.score(hard, 5).mean == pytest.approx(100 * 55 / 56)
    against = found.difference(soft, found.best, 1)
    assert against.by_base == pytest.approx((12.5, 25, 37.5))
    assert against.whole.mean == against.problems.mean == pytest.approx(25)
    # All problems are alike: over them nothing varies, over the bases it does, between all three alike.
    assert (against.problems.low, against.problems.high) == pytest.approx((25, 25))
    assert (against.whole.low, against.whole.high) == pytest.approx((12.5, 37.5))
    assert against.verdict() == "above"
    assert found.difference(soft, hard, 1).whole.mean == pytest.approx(25)
    # Over problems: 3/8 - 2/8 three times, 3/8 once.
    same = found.difference(hard, found.base_like(hard), 1)
    assert same.whole.mean == pytest.approx(100 * (3 / 8 - 6 / 32))
    control = ("t1", "1")
    assert found.difference(control, found.base_like(control), 1).whole.mean == pytest.approx(100 * (6 / 32 - 1 / 8))
    assert found.values(soft, 1).shape == (3, 3, 4)


def test_the_document_holds_those_figures():
    text = render(results(hand_made))
    assert "- soft targets against the base at its best: +25.0 [+12.5, +37.5] points of pass@1; clear of zero" in text
    assert (
        "| soft targets | 1200 | 225 | t0.9-k20-p0.8 | 62.5 [50.0, 75.0] | 62.5 | 62.5 | 50.0 / 62.5 / 75.0 |" in text
    )
    assert "hard tokens against the base at its best: +0.0 [+0.0, +0.0] points of pass@1; not clear of zero" in text
    # Easy problems are the first and the third, 2 of 8; the hard ones 2 and 0 of 8.
    row = next(line for line in text.splitlines() if line.startswith("| two-stage decoding of the base |"))
    assert row.split(" | ")[5:7] == ["25.0", "12.5"]
    assert "train 3m00s" in text
    assert "At the edge of the temperatures that were tried: soft targets (T 0.9), hard tokens (T 0.9)" in text
    assert "the best of its 2 temperatures would have been t1.05-k20-p0.8 with 71.0 %" in text


def test_students_that_were_not_made_are_named():
    gone = (("t1", "1/3"), ("t1", "1/9"))
    text = render([row for row in results(hand_made) if (row.get("arm"), row.get("share")) not in gone])
    assert "Left out for want of time: T = 1 control, 1/3 of the prompts; T = 1 control, 1/9 of the prompts." in text
    assert "Left out" not in render(results(hand_made))


def test_the_order_of_rows_means_nothing():
    rows = results(hand_made)
    assert render([rows[0], *reversed(rows[1:])]) == render(rows)


def test_rows_that_are_missing_or_double_are_refused():
    rows = results(hand_made)
    with pytest.raises(ValueError, match="missing"):
        Results(rows[:-1])
    with pytest.raises(ValueError, match="two rows"):
        Results([*rows, rows[-1]])


def difference(low, high, by_base):
    return Difference(Interval((low + high) / 2, low, high), Interval(0, 0, 0), by_base)


def test_an_effect_needs_the_interval_and_every_base():
    assert difference(0.1, 4, (1, 2, 3)).verdict() == "above"
    assert difference(-0.1, 4, (1, 2, 3)).verdict() == "open"
    assert difference(0.1, 4, (-0.1, 2, 3)).verdict() == "divided"
    assert difference(-4, -0.1, (-1, -2, -3)).verdict() == "below"
    assert difference(-4, -0.1, (0.1, -2, -3)).verdict() == "divided"


def drawn(effect: float, experiment: int, problems: int = 120):
    """Passes of an experiment with a planted effect of soft targets, and seeds that scatter."""
    rng = np.random.default_rng(experiment)
    ability = rng.beta(2, 1.2, problems)
    scatter = {}

    def passes(arm, share, base, seed):
        moved = scatter.setdefault((arm, share, seed), 0.01 * rng.standard_normal())
        gain = effect if arm == "soft" else 0
        return rng.binomial(8, np.clip(ability + moved + gain, 0, 1))

    return passes


def test_a_planted_effect_is_found_and_no_effect_is_not():
    planted = Results(results(drawn(0.05, 0)))
    found = planted.difference(("soft", "1"), planted.best, 1)
    assert found.verdict() == "above" and found.whole.low < 5 < found.whole.high
    called = 0
    for experiment in range(12):
        none = Results(results(drawn(0.0, experiment)))
        called += none.difference(("soft", "1"), none.best, 1).verdict() in ("above", "below")
    assert called <= 2
    assert "no effect is shown" in sentence(none, ("soft", "1"), none.best, "the base at its best")


def test_the_interval_covers_what_it_says_where_bases_scatter_little_and_not_where_much():
    problems = {"seeds": 0.7, "common": 8.0, "of_base": 8.0, "of_run": 18.0}
    little, much = (
        intervals.coverage(intervals.Scatter(bases=scatter, **problems), experiments=150, resamples=400)
        for scatter in (0.7, 6.0)
    )
    assert little[0] > 0.94
    assert much[0] < 0.92  # three bases are few, as the report says
    assert little[0] > little[1] and much[0] > much[1]  # over problems alone it is narrower


def test_what_a_difference_scatters_by_is_found():
    rng = np.random.default_rng(4)
    bases, seeds, problems = 60, 5, 300
    true = intervals.Scatter(bases=2.0, seeds=1.0, common=5.0, of_base=7.0, of_run=12.0)
    values = true.bases * rng.standard_normal((bases, 1, 1)) + true.seeds * rng.standard_normal((bases, seeds, 1))
    values = values + true.common * rng.standard_normal((1, 1, problems))
    values = values + true.of_base * rng.standard_normal((bases, 1, problems))
    values = values + true.of_run * rng.standard_normal((bases, seeds, problems))
    found = intervals.Scatter.of(values)
    for name, value in vars(true).items():
        assert getattr(found, name) == pytest.approx(value, rel=0.15), name
    none = intervals.Scatter.of(np.ones((3, 3, 50)))
    assert set(vars(none).values()) == {0.0}


def test_replicates_weigh_bases_seeds_and_problems():
    replicates = intervals.draw(3, 2, 5, resamples=4000)
    assert replicates.runs.shape == (4000, 6) and replicates.problems.shape == (4000, 5)
    assert replicates.runs.sum(axis=1) == pytest.approx(1) and replicates.problems.sum(axis=1) == pytest.approx(1)
    bases = replicates.runs.reshape(-1, 3, 2).sum(axis=2)
    # A base is left out of three draws with (2/3)^3.
    assert (bases == 0).mean() == pytest.approx(8 / 27, abs=0.02)
    one_base = intervals.draw(1, 1, 5, resamples=10)
    assert (one_base.runs == 1).all()


def test_the_recipes_of_the_design():
    design = Design()
    recipes = [run_recipe(design, base, index, "embedded", FROZEN) for base, index in design.runs()]
    assert len({recipe.seed for recipe in recipes}) == 9
    arms = {arm.name: arm for arm in trained_arms(recipes[0], Path("run"))}
    assert {name: arm.recipe.problems.train.limit for name, arm in arms.items()} == {
        name: {"1": 1200, "1/3": 400, "1/9": 133}[share] for name, (_, share) in students().items()
    }
    assert arms["hard"].files.samples_of == "student" and arms["hard-9"].files.samples_of == "soft-9"
    assert arms["t1"].recipe.sample.decoding.top_p == 1 and arms["t1"].recipe.evaluate.decoding.temperature == 1.2
    # Soft and hard differ in their targets alone.
    soft, hard = (arms[name].recipe.model_dump() for name in ("student", "hard"))
    assert soft["train"].pop("targets") == "distribution" and hard["train"].pop("targets") == "tokens"
    assert soft == hard
    labels = [entry.label for entry in entries_on_test(recipes[0], Path("run"))]
    assert labels.count("base") == 2 and labels.count("base-best") == 1 and len(set(labels)) == 12
    skips = {(recipe.seed % 10, recipe.problems.train.skip) for recipe in recipes}
    assert skips == {(0, 0), (1, 400), (2, 800)}
    fewer = Design(seeds=2)
    assert [run_recipe(fewer, base, index, "embedded", FROZEN) for base, index in fewer.runs()] == recipes[:6]


def test_a_third_seed_takes_the_first_two_over(tmp_path):
    known = results(hand_made, seeds=2)
    known[0] = MANIFEST | {"frozen": FROZEN | {"design": asdict(Design(seeds=2))}, "command": "of two seeds"}
    frozen = collect.take_over(known, Design(), ["a", "b", "c"])
    assert frozen == FROZEN
    with pytest.raises(BadInput, match="of other bases"):
        collect.take_over(known, Design(), ["a", "b", "d"])
    with pytest.raises(BadInput, match="another design"):
        collect.take_over(known, Design(samples=4), ["a", "b", "c"])
    files = RunFiles(tmp_path)
    write_atomic(files.recipe, run_recipe(Design(), 0, 2, "embedded", FROZEN).to_yaml())
    write_json(files.manifest, {"versions": {"mlx": "2"}, "machine": MANIFEST["machine"], "stages": {}})
    more = {key: MANIFEST[key] for key in ("command", "jobs", "noise", "temperatures", "base_top_p", "suite")}
    more["first_problem"] = 200
    manifest = collect.manifest(["a", "b", "c"], frozen, [files], [], more, known)
    whole = [row for row in results(hand_made)[1:] if row["seed"] % 10 == 2]
    text = render([manifest, *known[1:], *whole])
    assert "each with 3 seeds" in text and "The runs of the first 2 seeds were made by `of two seeds`" in text
    assert verdict_lines(text) == verdict_lines(render(results(hand_made)))


def verdict_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("- ")]


def test_tuning_reads_no_test_problem_and_no_seed_of_the_runs():
    design = Design()
    for base in range(design.bases):
        recipe = tuning_recipe(design, base, "embedded")
        assert recipe.seed >= TUNING_SEED > max(design.seed(*run) for run in design.runs())
        tested = {problem.id for problem in read_problems(recipe.problems.test, "test")}
        tuned = {problem.id for problem in read_problems(recipe.problems.validation, "validation")}
        assert tested < tuned and len(tuned) == 240
    judged = read_problems(run_recipe(design, 0, 0, "embedded", FROZEN).problems.test, "test")
    quickstart = read_problems(recipe.problems.test.model_copy(update={"source": "embedded", "path": None}), "test")
    assert len(judged) == 240 and FIRST_TEST_PROBLEM == 200
    assert not {problem.id for problem in judged} & {problem.id for problem in quickstart}
    trained = [unit.name for unit in units(tuning_recipe(design, 0, "embedded"), Path("run")) if unit.stage == "train"]
    assert trained == ["train", "train.hard", "train.t1"]


def test_settings_are_the_best_on_validation(tmp_path):
    def point(arm, temperature, value):
        decoding = DecodingPolicy(temperature, 20, 0.8).name()
        return {"arm": arm, "temperature": temperature, "decoding": decoding, "pass_at": {"1": {"mean": value}}}

    tuned = [RunFiles(tmp_path / str(base)) for base in range(2)]
    for files in tuned:
        best = {"decoding": BEST, "tried": [{"decoding": "t1.35-k20-p0.9", "pass@1": 0.6}]}
        write_json(files.directory / "eval" / "base" / "best.json", best)
    values = {"student": (0.5, 0.7, 0.7), "hard": (0.6, 0.5, 0.4), "t1": (0.1, 0.2, 0.3), "two-stage": (0.9, 0.9, 0.9)}
    curve = [point(arm, t, v) for arm, found in values.items() for t, v in zip((0.6, 0.9, 1.2), found, strict=True)]
    write_json(tuned[0].scores, {"curve": [point("base", 0.6, 0.99), *curve]})
    frozen = collect.freeze(Design(), tuned)
    assert frozen["temperature"] == {"soft": 0.9, "hard": 0.6, "t1": 1.2}
    assert frozen["base_best"] == {"0": BEST, "1": BEST}
    assert {point["arm"] for point in frozen["tried"]} == {"base", "soft", "hard", "t1", "two-stage"}


def test_rows_of_a_run_are_its_latest_grades_in_the_order_of_the_problems(tmp_path):
    design = Design(problems=3, samples=5)
    recipe = run_recipe(design, 1, 2, "embedded", FROZEN)
    files = RunFiles(tmp_path)
    write_atomic(files.recipe, recipe.to_yaml())
    for arm in trained_arms(recipe, tmp_path):
        write_atomic(arm.files.training_log, "{}\n" * 7)
    problems = read_problems(recipe.problems.test, "test")
    entries = entries_on_test(recipe, tmp_path)
    for entry in {entry.grades: entry for entry in entries}.values():
        with Journal(entry.grades, Grade).appending() as journal:
            for number, problem in reversed(list(enumerate(problems))):
                first = Grade(problem_id=problem.id, sample_index=0, verdict="harness_error")
                verdicts = ["pass"] * number + ["wrong"] * (5 - number)
                later = [Grade(problem_id=problem.id, sample_index=i, verdict=v) for i, v in enumerate(verdicts)]
                journal.append([first, *later])
    found = collect.rows(1, 12, files)
    assert [row["passes"] for row in found] == [[0, 1, 2]] * len(entries)
    soft = next(row for row in found if (row["arm"], row.get("share")) == ("soft", "1/9"))
    assert soft | {"passes": None} == {
        "row": "result", "base": 1, "seed": 12, "arm": "soft", "share": "1/9", "prompts": 133, "steps": 7,
        "decoding": "t0.9-k20-p0.8", "suite": "embedded-test", "n": 5, "passes": None,
    }  # fmt: skip


def test_readme_and_method_quote_the_verdict():
    verdict = (RESULTS / "effect.md").read_text(encoding="utf-8").split("## Verdict")[1].split("What this says")[0]
    lines = [line for line in verdict.splitlines() if line.startswith("- ")]
    method, readme = (
        (RESULTS.parents[1] / name).read_text(encoding="utf-8") for name in ("docs/method.md", "README.md")
    )
    assert len(lines) >= 7 and [line for line in lines if line not in method] == []
    assert lines[0] in readme and "soft targets against the base at its best" in lines[0]
    quoted = [line for line in readme.splitlines() if line.startswith("- ") and " points of pass@1; " in line]
    assert len(quoted) > 2 and [line for line in quoted if line not in lines] == []


def test_the_committed_document_is_what_its_rows_say():
    rows = read(RESULTS / "effect.jsonl")
    assert render(rows) == (RESULTS / "effect.md").read_text(encoding="utf-8")
    found = Results(rows)
    assert found.shape[0] >= 3 and found.shape[1] >= 3 and found.shape[2] >= 240 and found.n >= 8
    # Not through the report's own code: pass@1 is the share of passes.
    passes = [row["passes"] for row in rows[1:] if (row["arm"], row.get("share")) == ("soft", "1")]
    assert found.score(("soft", "1"), 1).mean == pytest.approx(100 * np.mean(passes) / found.n)
    assert all(math.isfinite(value) for value in found.difference(("soft", "1"), found.best, 1).by_base)
    assert "/" not in json.dumps(rows[0]["frozen"]["base_best"])
