"""Every figure of the report, computed again from the run's files, the plain way."""

import itertools
import json
import re
from collections import Counter, defaultdict

import pytest

from mlx_ssd import assets, statistics
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Comparison, Interval
from mlx_ssd.report.facts import sentence
from mlx_ssd.report.markdown import render

WHERE = ("embedded-test", "t0.9-k20-p0.8")


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


def outcomes(files, arm, problems):
    """Per problem, the list of passed (True) or not, in the problems' order."""
    of = defaultdict(list)
    for grade in lines(files.grades(arm, *WHERE)):
        assert grade["verdict"] != "harness_error"
        of[grade["problem_id"]].append(grade["verdict"] == "pass")
    return [of[p["id"]] for p in problems]


def pass_at(results, k):
    """pass@k by its definition: the share of all k-subsets of the samples that hold a passing one."""
    subsets = list(itertools.combinations(results, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


@pytest.mark.parametrize("arm", ["base", "student"])
def test_scores(arm, files, report, recipe, problems):
    (score,) = [s for s in report["scores"] if s["arm"] == arm]
    results = outcomes(files, arm, problems)
    assert {len(r) for r in results} == {recipe.evaluate.samples_per_problem} == {score["samples_per_problem"]}
    assert score["problems"] == len(problems) == recipe.problems.test.limit
    assert (score["suite"], score["decoding"]) == WHERE
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
    generations, grades = lines(files.generations(arm, *WHERE)), lines(files.grades(arm, *WHERE))
    assert score["verdicts"] == Counter(g["verdict"] for g in grades)
    assert score["finish_reasons"] == Counter(g["finish_reason"] for g in generations)
    mean = sum(len(g["completion_ids"]) for g in generations) / len(generations)
    assert score["completion_tokens"] == pytest.approx(mean)
    with_code = sum(g["verdict"] != "no_code" for g in grades) / len(grades)
    assert score["extractable_code"] == pytest.approx(with_code)


def test_difference(files, report, recipe, problems):
    (comparison,) = report["comparisons"]
    assert (comparison["baseline"], comparison["arm"]) == ("base", "student")
    assert comparison["decoding"] == comparison["baseline_decoding"] == WHERE[1]
    assert set(comparison["difference"]) == {str(k) for k in recipe.evaluate.pass_at}
    for k in recipe.evaluate.pass_at:
        base, student = ([pass_at(r, k) for r in outcomes(files, arm, problems)] for arm in ("base", "student"))
        difference = comparison["difference"][str(k)]
        expected = sum(b - a for a, b in zip(base, student, strict=True)) / len(base)
        assert difference["mean"] == pytest.approx(expected, abs=1e-12)
        interval = statistics.paired_bootstrap(base, student, recipe.evaluate.bootstrap_resamples, 0)
        assert difference["low"] == pytest.approx(interval.low, abs=1e-9)
        assert difference["high"] == pytest.approx(interval.high, abs=1e-9)


def test_curation_and_training(files, report, recipe):
    samples, rows, log = lines(files.samples), lines(files.rows), lines(files.training_log)
    account = report["curation"]
    assert account["samples"] == len(samples) == recipe.problems.train.limit
    assert account["kept"] == len(rows) == len(samples) - sum(account["dropped"].values())
    assert account["completion_tokens"] == sum(len(r["completion_ids"]) for r in rows)
    assert account["finish_reasons"] == Counter(s["finish_reason"] for s in samples)
    training = report["training"]
    assert training["steps"] == len(log) == recipe.train.epochs * -(-len(rows) // recipe.train.rows_per_step)
    tenth = max(1, len(log) // 10)
    losses = [entry["loss"] for entry in log]
    assert training["loss_first_tenth"] == pytest.approx(sum(losses[:tenth]) / tenth)
    assert training["loss_last_tenth"] == pytest.approx(sum(losses[-tenth:]) / tenth)


def test_times_memory_and_model_are_the_manifests(files, report):
    stages = json.loads(files.manifest.read_text())["stages"]
    assert report["seconds"] == {
        name: stages[name]["measured"]["seconds"] for name in ("sample", "curate", "train", "evaluate")
    }
    assert report["peak_rss_bytes"] == max(
        stages[name]["measured"]["peak_rss_bytes"] for name in ("sample", "curate", "train", "evaluate")
    )
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
    table = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| (base|student) ", line)]
    for cells, score in zip(table, [*report["scores"]], strict=False):
        for cell, k in zip(cells[1:], sorted(score["pass_at"], key=int), strict=False):
            value = score["pass_at"][k]
            numbers = [float(n) for n in re.findall(r"-?\d+\.\d", cell)]
            assert numbers == [round(100 * value[part], 1) for part in ("mean", "low", "high")]


def words(low, mean, high, problems=100):
    comparison = Comparison(
        baseline="base", baseline_decoding="d", arm="student", decoding="d", suite="s", difference={}
    )
    return sentence(comparison, 1, Interval(mean=mean, low=low, high=high), problems)


def test_words_are_what_the_interval_allows():
    assert "is better by +5.0 points [+1.0, +9.0]" in words(0.01, 0.05, 0.09)
    assert "is worse by" in words(-0.09, -0.05, -0.01)
    for low, high in ((-0.01, 0.09), (0.0, 0.09), (-0.09, 0.0)):
        assert "no difference can be told" in words(low, (low + high) / 2, high)
        assert "better" not in words(low, (low + high) / 2, high)


def test_no_verdict_from_a_handful_of_problems():
    said = words(0.5, 0.75, 1.0, problems=2)
    assert "2 problems are too few for a verdict" in said and "better" not in said
