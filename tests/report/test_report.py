"""Every figure of the report, computed again from the run's files, the plain way."""

import itertools
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from mlx_ssd import assets, statistics
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Comparison, Interval, LengthControlled, McNemar
from mlx_ssd.report.facts import arm_facts, not_measured, sentence, training_facts, verdict
from mlx_ssd.report.markdown import details, difference_table, render, score_table

SUITE, OWN = "embedded-test", "t0.9-k20-p0.8"
TWO_STAGE = "two-stage-t1.6-k20-p0.8-then-t0.9-k20-p0.8"


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def files(finished_run):
    return RunFiles(finished_run)


@pytest.fixture(scope="module")
def report(files):
    return json.loads(files.report_json.read_text())


@pytest.fixture(scope="module")
def recipe(files):
    return Recipe.load(files.recipe)


@pytest.fixture(scope="module")
def problems(recipe):
    return lines(assets.problems_path("test"))[: recipe.problems.test.limit]


def journal(files, label, decoding, kind):
    """The journal behind a line of the table, by its documented name."""
    model = "base" if label in ("base", "base-best", "two-stage") else label
    return lines(files.directory / "eval" / model / f"{SUITE}-{decoding}.{kind}.jsonl")


def outcomes(files, label, decoding, problems):
    """Per problem, the list of passed (True) or not, in the problems' order."""
    of = defaultdict(list)
    for grade in journal(files, label, decoding, "grades"):
        assert grade["verdict"] != "harness_error"
        of[grade["problem_id"]].append(grade["verdict"] == "pass")
    return [of[p["id"]] for p in problems]


def tokens_of(files, label, decoding, problems):
    """Mean completion tokens [problems]."""
    of = defaultdict(list)
    for generation in journal(files, label, decoding, "generations"):
        of[generation["problem_id"]].append(len(generation["completion_ids"]))
    return np.array([sum(of[p["id"]]) / len(of[p["id"]]) for p in problems])


def pass_at(results, k):
    """pass@k by its definition: the share of all k-subsets of the samples that hold a passing one."""
    subsets = list(itertools.combinations(results, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


@pytest.mark.parametrize("arm", ["base", "base-best", "two-stage", "student", "tokens"])
def test_scores(arm, files, report, recipe, problems):
    (score,) = [s for s in report["scores"] if s["arm"] == arm]
    decoding = score["decoding"]
    assert decoding == {"two-stage": TWO_STAGE, "base-best": decoding}.get(arm, OWN)
    results = outcomes(files, arm, decoding, problems)
    assert {len(r) for r in results} == {recipe.evaluate.samples_per_problem} == {score["samples_per_problem"]}
    assert score["problems"] == score["graded_problems"] == len(problems) == recipe.problems.test.limit
    assert score["suite"] == SUITE
    assert set(score["pass_at"]) == {str(k) for k in recipe.evaluate.pass_at}
    for k in recipe.evaluate.pass_at:
        values = [pass_at(r, k) for r in results]
        interval = statistics.bootstrap_mean(values, recipe.evaluate.bootstrap_resamples, 0)
        assert score["pass_at"][str(k)]["mean"] == pytest.approx(sum(values) / len(values), abs=1e-12)
        assert score["pass_at"][str(k)]["low"] == pytest.approx(interval.low, abs=1e-9)
        assert score["pass_at"][str(k)]["high"] == pytest.approx(interval.high, abs=1e-9)
        for level in ("easy", "hard"):
            of_level = [v for v, p in zip(values, problems, strict=True) if p["difficulty"] == level]
            expected = sum(of_level) / len(of_level)
            assert score["pass_at_by_difficulty"][level][str(k)] == pytest.approx(expected, abs=1e-12)
    generations, grades = (journal(files, arm, decoding, kind) for kind in ("generations", "grades"))
    assert score["verdicts"] == Counter(g["verdict"] for g in grades)
    assert score["finish_reasons"] == Counter(g["finish_reason"] for g in generations)
    mean = sum(len(g["completion_ids"]) for g in generations) / len(generations)
    assert score["completion_tokens"] == pytest.approx(mean)
    with_code = sum(g["verdict"] != "no_code" for g in grades) / len(grades)
    assert score["extractable_code"] == pytest.approx(with_code)


def test_every_student_is_compared_with_every_control(report):
    pairs = [(c["arm"], c["baseline"]) for c in report["comparisons"]]
    controls = ("base", "base-best", "two-stage")
    expected = [(arm, control) for arm in ("student", "tokens") for control in controls]
    assert sorted(pairs) == sorted([*expected, ("two-stage", "base-best"), ("student", "tokens")])


def test_best_decoding_of_the_base_is_the_first_best_on_validation(files, report, recipe):
    rates = []
    for top_p in (0.8, 0.9):
        for temperature in recipe.evaluate.curve.temperatures:
            name = f"t{temperature}-k20-p{top_p}"
            grades = lines(files.directory / f"eval/base/embedded-validation-{name}.grades.jsonl")
            rates.append((name, sum(grade["verdict"] == "pass" for grade in grades) / len(grades)))
    assert [(tried["decoding"], tried["pass@1"]) for tried in report["base_best"]["tried"]] == rates
    (score,) = [s for s in report["scores"] if s["arm"] == "base-best"]
    assert score["decoding"] == max(rates, key=lambda rate: rate[1])[0]


def test_curve(files, report, recipe):
    of_base = {(p["temperature"], p["top_p"]) for p in report["curve"] if p["arm"] == "base"}
    assert of_base == {(t, p) for t in recipe.evaluate.curve.temperatures for p in (0.8, 0.9)}
    for point in report["curve"]:
        model = "base" if point["arm"] in ("base", "two-stage") else point["arm"]
        grades = lines(files.directory / f"eval/{model}/embedded-validation-{point['decoding']}.grades.jsonl")
        assert len(grades) == recipe.problems.validation.limit * recipe.evaluate.curve.samples_per_problem
        rate = sum(grade["verdict"] == "pass" for grade in grades) / len(grades)
        assert point["pass_at"]["1"]["mean"] == pytest.approx(rate)


@pytest.mark.parametrize("number", range(8))
def test_difference(number, files, report, recipe, problems):
    comparison = report["comparisons"][number]
    assert set(comparison["difference"]) == {str(k) for k in recipe.evaluate.pass_at}
    sides = (("baseline", "baseline_decoding"), ("arm", "decoding"))
    for k in recipe.evaluate.pass_at:
        base, student = (
            [pass_at(r, k) for r in outcomes(files, comparison[arm], comparison[decoding], problems)]
            for arm, decoding in sides
        )
        difference = comparison["difference"][str(k)]
        expected = sum(b - a for a, b in zip(base, student, strict=True)) / len(base)
        assert difference["mean"] == pytest.approx(expected, abs=1e-12)
        interval = statistics.paired_bootstrap(base, student, recipe.evaluate.bootstrap_resamples, 0)
        assert difference["low"] == pytest.approx(interval.low, abs=1e-9)
        assert difference["high"] == pytest.approx(interval.high, abs=1e-9)
        differences = np.array(student) - base
        if np.ptp(differences):
            error = np.sqrt(((differences - differences.mean()) ** 2).sum() / (len(base) - 1) / len(base))
            assert comparison["minimum_detectable_effect"][str(k)] == pytest.approx(2.8015852 * error)
    assert "mcnemar" not in comparison  # two samples each
    before, after = (tokens_of(files, comparison[arm], comparison[decoding], problems) for arm, decoding in sides)
    controlled = comparison["length_controlled"]
    assert controlled["baseline_tokens"] == pytest.approx(before.mean())
    assert controlled["arm_tokens"] == pytest.approx(after.mean())
    base, student = (
        np.array([pass_at(r, 1) for r in outcomes(files, comparison[arm], comparison[decoding], problems)])
        for arm, decoding in sides
    )
    line = np.polynomial.Polynomial.fit(after - before, student - base, 1)
    assert controlled["difference"]["mean"] == pytest.approx(line(0.0), abs=1e-9)


def test_curation_and_training(files, report, recipe):
    samples, rows, log = lines(files.samples), lines(files.rows), lines(files.training_log)
    student, tokens = report["arms"]
    assert (student["training"]["targets"], tokens["training"]["targets"]) == ("distribution", "tokens")
    account = student["curation"]
    assert tokens["curation"] == account
    assert student["selection"]["kept"] == len(samples)
    assert account["samples"] == len(samples) == recipe.problems.train.limit
    assert account["kept"] == len(rows) == len(samples) - sum(account["dropped"].values())
    assert account["completion_tokens"] == sum(len(r["completion_ids"]) for r in rows)
    assert account["tokens_cut"] == 0
    assert account["finish_reasons"] == Counter(s["finish_reason"] for s in samples)
    training = student["training"]
    assert training["steps"] == len(log) == recipe.train.epochs * -(-len(rows) // recipe.train.rows_per_step)
    tenth = max(1, len(log) // 10)
    losses = [entry["loss"] for entry in log]
    assert training["loss_first_tenth"] == pytest.approx(sum(losses[:tenth]) / tenth)
    assert training["loss_last_tenth"] == pytest.approx(sum(losses[-tenth:]) / tenth)


def test_times_memory_and_model_are_the_manifests(files, report):
    stages = json.loads(files.manifest.read_text())["stages"]
    of_arms = {
        "sample": ["sample"],
        "curate": ["curate"],
        "train": ["train", "train.tokens"],
        "evaluate": ["evaluate.base", "evaluate", "evaluate.tokens"],
        "score": ["score"],
        "analyze": ["analyze"],
    }
    assert report["seconds"] == {
        stage: pytest.approx(sum(stages[unit]["measured"]["seconds"] for unit in units), abs=0.01)
        for stage, units in of_arms.items()
    }
    peaks = [stages[unit]["measured"]["peak_rss_bytes"] for units in of_arms.values() for unit in units]
    assert report["peak_rss_bytes"] == max(peaks)
    assert {sample["model"] for sample in lines(files.samples)} == {report["model"]["revision"]}


def test_training_rows_are_the_very_tokens_that_were_sampled(files):
    sampled = {(s["problem_id"], s["sample_index"]): s for s in lines(files.samples)}
    for row in lines(files.rows):
        sample = sampled[row["problem_id"], row["sample_index"]]
        assert (row["prompt_ids"], row["completion_ids"]) == (sample["prompt_ids"], sample["completion_ids"])


def test_every_number_of_the_markdown_is_in_the_report(files, report):
    """The text says nothing that the facts do not hold: it is their rendering, and each table cell a fact."""
    text = files.report_md.read_text()
    assert text == render(report)
    arms = r"\| (base|base-best|two-stage|student|tokens) \|"
    table = [line.split("|")[1:-1] for line in text.splitlines() if re.match(arms, line)]
    assert len(table) == len(report["scores"])
    for cells, score in zip(table, report["scores"], strict=True):
        for cell, k in zip(cells[1:], sorted(score["pass_at"], key=int), strict=False):
            value = score["pass_at"][k]
            numbers = [float(n) for n in re.findall(r"-?\d+\.\d", cell)]
            assert numbers == [round(100 * value[part], 1) for part in ("mean", "low", "high")]


def comparison(low, mean, high, baseline="base", decoding="d", baseline_decoding="d", **beside):
    interval = Interval(mean=mean, low=low, high=high)
    return Comparison(
        baseline=baseline,
        baseline_decoding=baseline_decoding,
        arm="student",
        decoding=decoding,
        suite="s",
        difference={1: interval},
        **beside,
    )


def words(low, mean, high, problems=100, **beside):
    return sentence("student", 1, [comparison(low, mean, high, **beside)], problems)


def test_words_are_what_the_interval_allows():
    assert words(0.01, 0.05, 0.09) == "pass@1: student beats base at the same decoding (+5.0 [+1.0, +9.0])."
    assert "loses to base" in words(-0.09, -0.05, -0.01)
    for low, high in ((-0.01, 0.09), (0.0, 0.09), (-0.09, 0.0)):
        assert "cannot be told from" in words(low, (low + high) / 2, high)
        assert "beats" not in words(low, (low + high) / 2, high)


def test_verdict_names_what_was_beaten():
    controls = [
        comparison(0.01, 0.05, 0.09),
        comparison(-0.01, 0.02, 0.05, "base-best", baseline_decoding="other"),
        comparison(-0.06, -0.03, -0.01, "two-stage", baseline_decoding="third"),
    ]
    assert verdict(controls, 100) == [
        "pass@1: student beats base at the same decoding (+5.0 [+1.0, +9.0]); "
        "cannot be told from base-best (+2.0 [-1.0, +5.0]); loses to two-stage (-3.0 [-6.0, -1.0])."
    ]


def controlled(low, mean, high, tokens):
    """At equal length; the baseline's answers have 100 tokens."""
    interval = Interval(mean=mean, low=low, high=high)
    return {"length_controlled": LengthControlled(difference=interval, baseline_tokens=100.0, arm_tokens=tokens)}


def test_length_is_spoken_of_where_it_changes_the_verdict():
    gone = comparison(0.01, 0.05, 0.09, **controlled(-0.03, 0.01, 0.05, 65.0))
    assert verdict([gone], 100) == [
        "pass@1: student beats base at the same decoding (+5.0 [+1.0, +9.0]).",
        "pass@1: the answers of student are 35 % shorter than those of base at the same decoding. At equal length, by "
        "linear regression, student cannot be told from it (+1.0 [-3.0, +5.0]): a reason for doubt, for an answer may "
        "also be long or short because it is wrong.",
    ]
    covered = comparison(-0.01, 0.03, 0.07, **controlled(0.01, 0.05, 0.09, 120.0))
    assert "are 20 % longer than" in verdict([covered], 100)[1]
    assert "student beats it (+5.0 [+1.0, +9.0])" in verdict([covered], 100)[1]


def test_length_is_not_spoken_of_otherwise():
    same = comparison(0.01, 0.05, 0.09, **controlled(0.001, 0.02, 0.05, 65.0))
    about_equal = comparison(0.01, 0.05, 0.09, **controlled(-0.03, 0.01, 0.05, 109.0))
    gone = comparison(0.01, 0.05, 0.09, **controlled(-0.03, 0.01, 0.05, 65.0))
    assert len(verdict([same], 100)) == len(verdict([about_equal], 100)) == len(verdict([gone], 19)) == 1


def test_no_verdict_from_a_handful_of_problems():
    assert words(0.5, 0.75, 1.0, problems=2) == (
        "pass@1: student against base at the same decoding (+75.0 [+50.0, +100.0]); "
        "2 problems are too few for a verdict."
    )


def test_what_would_have_been_needed_stands_where_a_difference_cannot_be_told():
    beside = {"minimum_detectable_effect": {1: 0.0713, 2: 0.5}}
    assert words(-0.01, 0.04, 0.09, **beside) == (
        "pass@1: student cannot be told from base at the same decoding "
        "(+4.0 [-1.0, +9.0]; 80 % power would have needed about ±7.1 points)."
    )
    assert "power" not in words(0.01, 0.05, 0.09, **beside) + words(-0.09, -0.05, -0.01, **beside)
    assert "power" not in words(-0.01, 0.04, 0.09, problems=19, **beside)
    assert "power" not in words(-0.01, 0.04, 0.09, minimum_detectable_effect={2: 0.5})


def test_mcnemar_stands_beside_pass_at_1_where_there_is_one():
    test = McNemar(only_baseline=2, only_arm=12, p=212 / 2**14)
    said = words(0.01, 0.05, 0.09, mcnemar=test)
    assert said == "pass@1: student beats base at the same decoding (+5.0 [+1.0, +9.0]; McNemar p = 0.013)."
    assert "; McNemar p < 0.001)" in words(0.01, 0.05, 0.09, mcnemar=test.model_copy(update={"p": 0.0009}))
    both = comparison(0.01, 0.05, 0.09, mcnemar=test)
    both = both.model_copy(update={"difference": {1: both.difference[1], 2: both.difference[1]}})
    of_1, of_2 = verdict([both], 100)
    assert "McNemar" in of_1 and "McNemar" not in of_2


def test_lines_are_named_by_temperature_where_students_have_their_own(report):
    several = json.loads(json.dumps(report))
    base, rule = several["scores"][0], next(s for s in several["scores"] if s["arm"] == "two-stage")
    several["scores"] += [base | {"decoding": "t1.2-k20-p0.8"}, rule | {"decoding": TWO_STAGE.replace("t0.9", "t1.2")}]
    names = [row[0] for row in score_table(several)[1]]
    assert names[0] == "base t0.9" and names[-2:] == ["base t1.2", "two-stage t1.2"] and "student t0.9" in names
    assert "where no other temperature is named" in render(several)
    assert "where no other temperature is named" not in render(report)
    rule = "the base decoded as an ideally fitted student would be"
    assert render(report).count(f"two-stage: {rule}; no training.") == 1
    several["scores"].append(several["scores"][-1] | {"arm": "3-stage"})
    assert f"3-stage: {rule}, with a stage for each of its rounds; no training." in render(several)


def test_without_tests_the_report_says_what_cannot_be_measured(report):
    untested = json.loads(json.dumps(report))
    untested["comparisons"] = [c | {"difference": {}} for c in untested["comparisons"]]
    for score in untested["scores"]:
        score |= {"pass_at": {}, "pass_at_by_difficulty": {}, "graded_problems": 0}
    header, rows = score_table(untested)
    assert header == ["arm", "with code %", "tokens", "ended by itself %"]
    assert [row[0] for row in rows] == ["base", "base-best", "two-stage", "student", "tokens"]
    assert difference_table(untested)[1] == []
    scores = {"scores": untested["scores"], "trained_on": {}}
    assert "Whether answers are right: the test problems have no tests." in not_measured(Recipe(), scores)[0]


def test_a_score_that_the_grader_took_is_named_with_its_mend(report):
    (score,) = (s for s in json.loads(json.dumps(report))["scores"] if s["arm"] == "student")
    score |= {"pass_at": {"1": score["pass_at"]["1"]}, "verdicts": {"pass": 8}}
    recipe, scores = Recipe(), {"scores": [score], "trained_on": {}}
    untold = not_measured(recipe, scores)
    score["pass_at"]["5"] = score["pass_at"]["1"]
    assert not_measured(recipe, scores) == untold  # not by harness errors
    score["verdicts"] = {"harness_error": 2, "pass": 8}
    assert not_measured(recipe, scores) == untold  # there are enough
    del score["pass_at"]["5"]
    line, *others = not_measured(recipe, scores)
    assert others == untold and line.startswith(f"pass@5 of student at {score['decoding']}: fewer than 5 of its")
    assert "delete its grades in eval" in line
    score["pass_at"].clear()
    assert not_measured(recipe, scores)[0].startswith("pass@1 of student")


LOG = [
    {"step": 0, "validation": {"loss": 1.25}},
    {"step": 1, "loss": 1.0},
    {"step": 2, "skipped": "gradient", "validation": {"loss": 0.75, "loss_kept_mass": 0.5, "loss_conditional": 0.25}},
    {"step": 3, "loss": 0.5, "loss_kept_mass": 0.25, "loss_conditional": 0.25},
    {"step": 4, "loss": 0.25, "validation": {"loss": 0.875}},
]


def test_training_with_validation_and_skipped_steps(report):
    found = training_facts(LOG)
    assert found == {
        "steps": 4, "skipped_steps": 1, "loss_first_tenth": 1.0, "loss_last_tenth": 0.25,
        "validation": {"base": 1.25, "best": 0.75, "best_step": 2},
    }  # fmt: skip
    student = report["arms"][0]
    arm = arm_facts("student", Recipe(), student["selection"], student["curation"], LOG, {"rows_cut": 3, "steps": 4})
    *_, said = details({"scores": [], "arms": [arm]})
    for phrase in (
        "4 optimizer steps, 1 of them skipped",
        "loss 1.000 (first tenth) -> 0.250 (last tenth)",
        "3 samples cut for their length",
        "held-out loss 1.250 (base) -> 0.750 (step 2, the best)",
    ):
        assert phrase in said


def test_training_of_which_nothing_is_finite():
    """A validation that is not finite stands in the log as an empty one."""
    log = [{"step": 0, "validation": {}}, {"step": 1, "skipped": "loss", "validation": {}}]
    log.append({"step": 2, "skipped": "loss"})
    assert training_facts(log) == {"steps": 2, "skipped_steps": 2}
    later = training_facts([*log, {"step": 3, "loss": 1.0, "validation": {"loss": 0.5}}])
    assert later["validation"] == {"base": None, "best": 0.5, "best_step": 3}
