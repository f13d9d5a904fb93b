"""Schedules of rounds: the recipes are what their words say, known results give known figures and sentences, and the
committed document is what its data say."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from benchmarks.effect.design import FIRST_TEST_PROBLEM
from benchmarks.effect.report import Difference, read
from benchmarks.schedules import collect
from benchmarks.schedules.composed import rule
from benchmarks.schedules.design import SCHEDULES, Design, recipe, t_train
from benchmarks.schedules.report import ROUND_0, Results, as_a_rule, figure, outcome, render, sentence
from mlx_ssd import arms, rounds
from mlx_ssd.controls import test_entries as entries_on_test
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.decoding.policy_mlx import support
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.layout import BASE, MAIN, RunFiles
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Grade
from mlx_ssd.statistics import Interval
from mlx_ssd.storage import Journal, write_atomic, write_json

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MANIFEST = {
    "row": "manifest",
    "v": 1,
    "command": "python -m benchmarks.schedules --work DIR --jobs 2",
    "jobs": 2,
    "design": asdict(Design()),
    "temperatures": [0.6, 0.9],
    "base_top_p": [0.9],
    "base_revisions": ["a", "b", "c"],
    "suite": "embedded-test",
    "first_problem": 200,
    "versions": {"mlx": "1"},
    "machine": {"chip": "a chip", "cores": 2, "system": "Linux"},
    "seconds": {"train": 60.0},
}
DIVERSITY = {"pass_gap": 0.0, "distinct": 0.5, "fork_entropy": 0.3}


def results(passes_of, bases=3, last=3) -> list[dict]:
    """The rows of a whole experiment; passes_of(schedule, round, base): of 2, a validation problem each. The kept
    rounds are the last; on the test problems a schedule passes 4 of 8, its controls 3, 2 and 1."""
    rows = [MANIFEST]
    for base in range(bases):
        for schedule, number in [ROUND_0, *((name, n) for name in SCHEDULES for n in range(1, last + 1))]:
            row = {"row": "round", "base": base, "schedule": schedule, "round": number, "tried": [], "n": 2}
            row |= {"temperature": 0.6, "top_p": 0.8, "passes": list(passes_of(schedule, number, base))}
            before = {} if schedule == BASE else {"fork_entropy": 0.6}
            rows.append(row | {"diversity": DIVERSITY, "diversity_of_base": before})
        two_stage = "two-stage-t1.6-k20-p0.8-then-t0.6-k20-p0.8"
        for schedule, decoding, passed in (
            (BASE, "t0.6-k20-p0.8", 3), ("base-best", f"t1.{base}-k20-p0.9", 2), ("two-stage", two_stage, 1),
            *((name, "t0.6-k20-p0.8", 4) for name in SCHEDULES),
        ):  # fmt: skip
            row = {"row": "test", "base": base, "schedule": schedule, "decoding": decoding, "n": 8}
            kept = {"round": last, "two_stage": two_stage} if schedule in SCHEDULES else {}
            rows.append(row | kept | {"passes": [passed] * 5})
    return rows


def hand_made(schedule, number, base):
    """Four problems. Base: one of two everywhere. The main schedule gains a problem's second pass a round on base 0,
    and one more on each further base; paper loses one a round; falling stands still after its first."""
    gained = {MAIN: number + base, "paper": 1 - number, "falling": min(number, 1)}.get(schedule, 0)
    return [1 + (gained > 0), 1 + (gained > 1), 1 + (gained > 2) - (gained < 0), 1 - (gained < -1)]


def test_figures_worked_out_by_hand():
    found = Results(results(hand_made))
    assert found.schedules == list(SCHEDULES) and found.last == 3
    assert found.of_round((MAIN, 1), 1).shape == (3, 1, 4)
    # Base 0: one problem of four is passed twice, base 1: two, base 2: three. Of two samples one passes at least.
    assert found.of_round((MAIN, 1), 1).mean(axis=2).ravel() == pytest.approx([62.5, 75, 87.5])
    assert found.of_round((MAIN, 1), 2).mean() == pytest.approx(100)
    further = found.between((MAIN, 3), (MAIN, 1))
    assert further.by_base == pytest.approx((25, 12.5, 0))
    assert found.between((MAIN, 1), ROUND_0).whole.mean == pytest.approx(25)
    lost = found.between(("paper", 3), ("paper", 1))
    assert lost.by_base == pytest.approx((-25, -25, -25))
    assert lost.whole.low < -25 < lost.whole.high == 0 and lost.verdict() == "open"  # two of four problems
    values = found.of_test(found.kept(MAIN), 1)
    assert values.mean() == pytest.approx(50)
    gains = {name: (values - found.of_test(rows, 1)).mean() for name, rows in found.controls(MAIN).items()}
    assert list(gains.values()) == pytest.approx([12.5, 25, 37.5]) and "base at its best" in list(gains)[1]


def test_the_document_holds_those_figures():
    text = render(results(hand_made))
    lines = text.splitlines()
    first = next(line for line in lines if line.startswith("| paper | 1 |"))
    assert first.startswith("| paper | 1 | 1.6 | 0.6 / 0.6 / 0.6 | 50.0 [50.0, 50.0] | 100.0 [100.0, 100.0] | +0.0 [")
    third = next(line for line in lines if line.startswith("| paper | 3 |"))
    assert "| 25.0 [" in third and "| -25.0 [" in third and third.endswith("| -50.0 [-100.0, +0.0] |")
    assert [line.split(" | ")[2] for line in lines if line.startswith("| falling | ")][:3] == ["1.6", "1", "1"]
    assert "| falling | 2 | 37.5 [" in text and "| 50 | 0.300 | 0.50 |" in text
    assert "| student | 3 / 3 / 3 | t0.6 / t0.6 / t0.6 | 50.0 [50.0, 50.0] | 100.0 [" in text
    assert "| +12.5 [+12.5, +12.5] | +25.0 [+25.0, +25.0] | +37.5 [+37.5, +37.5] |" in text
    assert "| base at its best | 0 | t1.0-k20-p0.9 / t1.1-k20-p0.9 / t1.2-k20-p0.9 | 25.0" in text
    assert "base round 0, base 0 (T 0.6)" in text and "train 1m00s" in text
    assert "(T 0.6)" not in render([MANIFEST | {"temperatures": [0.45, 0.6, 0.9]}, *results(hand_made)[1:]])


def test_the_figure_shows_every_round():
    drawn = figure(results(hand_made))
    assert drawn.startswith("<svg") and "pass@1 by round" in drawn
    said = re.search(r"<desc[^>]*>(.*?)</desc>", drawn, re.S).group(1)
    assert "paper: round 1 50.0" in said and "round 3 25.0" in said and "base: round 0 50.0" in said


def difference(low, high, by_base):
    return Difference(Interval((low + high) / 2, low, high), Interval(0, 0, 0), by_base)


def test_an_outcome_needs_the_interval_and_every_base():
    assert outcome(difference(0.1, 4, (1, 2, 3))) == "gains further"
    assert outcome(difference(-4, -0.1, (-1, -2, -3))) == "falls below it"
    assert outcome(difference(-0.1, 4, (1, 2, 3))) == "is not told from it"
    assert outcome(difference(0.1, 4, (-0.1, 2, 3))) == "is not told from it"
    assert outcome(difference(-4, -0.1, (0.1, -2, -3))) == "is not told from it"


def drawn(effects):
    """Passes of many problems; effects: what a round adds to a schedule's rate, from the first on."""
    rng = np.random.default_rng(0)
    ability = rng.beta(2, 1.5, 240)

    def passes(schedule, number, base):
        added = effects.get(schedule, [0] * 3)[number - 1] if number else 0
        return [int(count) for count in rng.binomial(2, np.clip(ability + added, 0, 1))]

    return passes


def test_the_sentence_of_a_schedule_is_what_the_intervals_allow():
    found = Results(results(drawn({MAIN: (0.1, 0.15, 0.3), "paper": (0.1, 0.0, -0.2), "falling": (0.1, 0.1, 0.1)})))
    gaining, losing, still = (sentence(found, name) for name in (MAIN, "paper", "falling"))
    assert gaining.startswith(f"- **student** ({SCHEDULES[MAIN].words}): round 1 gains on the base (+")
    assert "; round 3 gains further (+" in gaining
    assert "round 1 gains on the base (+" in losing and "; round 3 falls below it (-" in losing
    assert "; round 2 is not told from it (" in still and "; round 3 is not told from it (" in still
    divided = Results(results(lambda name, number, base: [2 if number == 3 and base else 1] * 40, last=3))
    assert divided.between((MAIN, 3), (MAIN, 1)).by_base == (0, 50, 50)
    assert "round 3 is not told from it" in sentence(divided, MAIN)


def test_the_order_of_rows_means_nothing_and_what_is_missing_or_double_is_refused():
    rows = results(hand_made)
    assert render([rows[0], *reversed(rows[1:])]) == render(rows)
    for number, row in enumerate(rows):
        if row["row"] == "round" and row["round"] == 2:
            with pytest.raises(ValueError, match="missing"):
                Results(rows[:number] + rows[number + 1 :])
    with pytest.raises(ValueError, match="missing"):
        Results([row for row in rows if row.get("round") != 2 or row["schedule"] != "falling" or row["row"] == "test"])
    for row in (rows[1], rows[-1]):
        with pytest.raises(ValueError, match="two rows"):
            Results([*rows, row])


def test_the_recipes_are_what_the_words_say():
    design = Design()
    recipes = [recipe(design, base, "embedded") for base in range(design.bases)]
    assert len({each.seed for each in recipes}) == 3
    of = {name: recipes[0].of_arm(name) for name in SCHEDULES}
    for name, own in of.items():
        for number in range(1, design.rounds + 1):
            of_round = rounds.recipe_of_round(own, number)
            assert of_round.sample.decoding.temperature == t_train(name, number), name
            skip = 480 * (number - 1) if name == "base-fresh" else 0
            assert (of_round.problems.train.skip, of_round.problems.train.limit) == (skip, 480)
        assert own.rounds.count == 3 and own.sample.decoding.top_p == 0.8
        assert own.train.targets == ("tokens" if name == "paper" else "distribution")
        assert rounds.draws_from_base(own, 2) == (own.rounds.adapter == "continue") == (name == "base-fresh")
    assert [t_train("falling", number) for number in (1, 2, 3)] == [1.6, 1.0, 1.0]
    judged, tuned, trained = (
        {problem.prompt for problem in read_problems(source, role)}
        for source, role in (
            (recipes[0].problems.test, "test"),
            (recipes[0].problems.validation, "validation"),
            (recipes[0].problems.train.model_copy(update={"limit": 1440}), "train"),
        )
    )
    assert (len(judged), len(tuned)) == (240, 200) and len(trained) > 1400
    assert recipes[0].problems.test.skip == FIRST_TEST_PROBLEM == 200
    assert not judged & tuned and not judged & trained and not tuned & trained
    with pytest.raises(BadInput, match="5 rounds of 480 fresh prompts: there are 2000"):
        Design(rounds=5)
    with pytest.raises(BadInput, match="give 2 or more"):
        Design(rounds=1)


@pytest.fixture
def finished(tmp_path):
    """A run directory with what `collect` reads: two rounds, the first is kept but by falling."""
    design = Design(rounds=2, problems=3, validation_problems=3, samples=5)
    chosen, files = recipe(design, 1, "embedded"), RunFiles(tmp_path)
    write_atomic(files.recipe, chosen.to_yaml())

    def validated(arm, number, passes):
        interval = {"mean": sum(passes) / 6, "low": 0.0, "high": 1.0}
        write_json(
            RunFiles(tmp_path, arm, number=number).validation,
            {
                "v": 1, "round": number, "arm": arm,
                "decoding": {"temperature": 0.75, "top_k": 20, "top_p": 0.8, "order": "temperature_first"},
                "pass_at": {"1": interval}, "tried": [{"decoding": "t0.75-k20-p0.8", "pass@1": interval["mean"]}],
                "counts": [[2, count] for count in passes], "diversity": {"distinct": 1.0}, "diversity_of_base": {},
                "differences": {str(before): interval for before in range(number)},
            },
        )  # fmt: skip

    validated(BASE, 0, [0, 1, 0])
    for name in SCHEDULES:
        validated(name, 1, [0, 1, 1])
        validated(name, 2, [0, 2, 2] if name == "falling" else [0, 0, 1])
    problems = read_problems(chosen.problems.test, "test")
    best = {"decoding": {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "order": "temperature_first"}, "tried": []}
    write_json(RunFiles(tmp_path, BASE).best_decoding, best)
    for path in {entry.grades for entry in entries_on_test(chosen, tmp_path)}:
        with Journal(path, Grade).appending() as journal:
            for number, problem in reversed(list(enumerate(problems))):
                passed = ["pass"] * number + ["wrong"] * (5 - number)
                journal.append([Grade(problem_id=problem.id, sample_index=i, verdict=v) for i, v in enumerate(passed)])
    return files


def test_rows_of_a_run(finished):
    found = collect.rows(1, finished)
    of_rounds = {(row["schedule"], row["round"]): row for row in found if row["row"] == "round"}
    assert set(of_rounds) == {ROUND_0, *((name, number) for name in SCHEDULES for number in (1, 2))}
    assert len(of_rounds) == len([row for row in found if row["row"] == "round"])
    assert of_rounds["falling", 2] == {
        "row": "round", "base": 1, "schedule": "falling", "round": 2, "temperature": 0.75, "top_p": 0.8,
        "tried": [["t0.75-k20-p0.8", 4 / 6]], "n": 2, "passes": [0, 2, 2], "diversity": {"distinct": 1.0},
        "diversity_of_base": {},
    }  # fmt: skip
    on_test = {row["schedule"]: row for row in found if row["row"] == "test"}
    assert on_test["falling"] == {
        "row": "test", "base": 1, "schedule": "falling", "decoding": "t0.75-k20-p0.8", "round": 2,
        "two_stage": "3-stage-t1.6-k20-p0.8-then-t1-k20-p0.8-then-t0.75-k20-p0.8", "n": 5, "passes": [0, 1, 2],
    }  # fmt: skip
    assert on_test["student"]["round"] == 1 and on_test["base-best"]["decoding"] == "t0.6-k20-p0.9"
    rows = [json.loads(json.dumps(row)) for row in (MANIFEST, *found)]
    assert "| falling | 2 | t0.75 |" in render(rows) and "| paper | 1 | t0.75 |" in render(rows)


def test_what_is_not_finished_is_refused(finished):
    arm = next(arm for arm in arms.students(recipe(Design(rounds=2), 1, "embedded"), finished.directory))
    grades = next(finished.directory.glob("eval/paper/*.grades.jsonl"))
    kept = grades.read_text()
    grades.write_text(kept[: kept.rindex("\n", 0, -1) + 1])
    with pytest.raises(WorkFailed, match="have no verdict"):
        collect.rows(1, finished)
    grades.write_text(kept)
    RunFiles(finished.directory, arm.name, number=2).validation.unlink()
    with pytest.raises(WorkFailed, match="student has 1 rounds; run the same command again"):
        collect.rows(1, finished)


def test_the_committed_document_is_what_its_rows_say():
    rows = read(RESULTS / "schedules.jsonl")
    assert render(rows) == (RESULTS / "schedules.md").read_text(encoding="utf-8")
    found = Results(rows)
    assert len(found.bases) >= 3 and found.last >= 3
    # Not through the report's own code: pass@1 is the share of passes.
    first = ("round", MAIN, 1)
    passes = [row["passes"] for row in rows[1:] if (row["row"], row["schedule"], row.get("round")) == first]
    n = found.rounds[MAIN, 1][0]["n"]
    assert found.of_round((MAIN, 1), 1).mean() == pytest.approx(100 * np.mean(passes) / n)


def test_a_rule_is_the_rounds_policies_one_after_the_other():
    """The sampler's distribution beside the specification, applied to its own outcome."""
    sampling, evaluation = DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.9, 20, 0.8)
    policy = rule("falling", 3, sampling, evaluation)
    assert [stage.temperature for stage in policy.stages] == [1.6, 1.0, 1.0, 0.9]
    for seed in range(20):
        logits = 2 * np.random.default_rng(seed).standard_normal(60).astype(np.float32)
        expected = logits.astype(np.float64)
        for stage in policy.stages[:-1]:
            expected = stage.decoded_logits(expected)
        expected = policy.stages[-1].reference_probabilities(expected)
        ids, weights, _ = support(policy, mx.array(logits)[None])
        found = np.zeros(60)
        found[np.array(ids)[0]] = np.array(weights)[0] / np.array(weights).sum()
        assert np.abs(found - expected).max() < 1e-4
        two = StagedPolicy(sampling, evaluation).reference_probabilities(logits)
        assert seed or np.abs(found - two).max() > 0.01  # more than its first stage


def test_the_rules_rows_stand_beside_their_students():
    rows = results(hand_made)
    for base in range(3):
        row = {"row": "composed", "base": base, "schedule": MAIN, "round": 3, "temperature": 0.9}
        rows.append(row | {"suite": "validation", "n": 2, "passes": [1, 1, 1, 1]})
        rows.append(row | {"suite": "test", "n": 8, "passes": [2] * 5})
    found = as_a_rule(Results(rows))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in found if f"| {MAIN} |" in line]
    beside = ["3 / 3 / 3", "0.9 / 0.9 / 0.9"]
    assert [row[:4] for row in cells] == [[suite, MAIN, *beside] for suite in ("validation", "test")]
    students = Results(rows).of_round((MAIN, 3), 1).mean() - 50
    assert cells[0][4].startswith("50.0") and cells[0][5].startswith(f"{students:+.1f}")
    assert cells[1][4].startswith("25.0") and cells[1][5].startswith("+25.0") and cells[1][6].startswith("+0.0")
    with pytest.raises(ValueError, match="rows are missing: of student as a rule"):
        as_a_rule(Results([row for row in rows if not (row["row"] == "composed" and row["base"] == 1)]))
