"""The stage that writes the page of a real run, with and without an analysis, and the command around it."""

import json
import re
import shutil
import tracemalloc
from pathlib import Path

import pytest

from mlx_ssd.analysis import store
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Generation, Grade
from mlx_ssd.report.page import samples
from mlx_ssd.stages import report as stage
from mlx_ssd.storage import Journal, write_records
from tests import faults
from tests.report import synthetic
from tests.report.page.test_page import Read

DECODING = "t0.9-k20-p0.8"


@pytest.fixture(scope="module")
def files(finished_run):
    return RunFiles(finished_run)


@pytest.fixture
def copy(files, tmp_path):
    return RunFiles(shutil.copytree(files.directory, tmp_path / "run"))


def base_answers(files):
    name = f"embedded-test-{DECODING}"
    folder = files.directory / "eval/base"
    grades = {g.key: g for g in Journal(folder / f"{name}.grades.jsonl", Grade).read()}
    return Journal(folder / f"{name}.generations.jsonl", Generation).read(), grades


def packed(html):
    return json.loads(re.findall(r'id="samples-data">(.*?)</script>', html, re.S)[0])


def test_without_analysis_the_answers_of_base_and_student_are_shown(copy):
    shutil.rmtree(copy.analysis)
    recipe = Recipe.load(copy.recipe)
    html = stage._page(recipe, copy)
    data = packed(html)
    assert "They are not shaded" in Read(html).text
    wanted = recipe.problems.test.limit * recipe.evaluate.samples_per_problem
    arms = [sample["arm"] for sample in data["samples"]]
    assert arms.count("base") == arms.count("student") == wanted
    assert data["arms"] == []
    generations, grades = base_answers(copy)
    shown = {(data["problems"][s["problem"]]["id"], s["i"]): s for s in data["samples"] if s["arm"] == "base"}
    for generation in generations:
        sample = shown[generation.key]
        assert sample["verdict"] == grades[generation.key].verdict and sample["n"] == len(generation.completion_ids)
    assert "def solve" in data["problems"][0]["prompt"] and "solve(" in data["problems"][0]["tests"][0]


def test_of_the_answers_only_what_a_page_shows_is_in_memory(copy):
    """Long answers of base and student: their tokens take 40 bytes each where whole journals are held."""
    recipe, longest, filler = Recipe.load(copy.recipe), 0, range(10_000, 16_000)
    for path in copy.directory.glob(f"eval/*/embedded-test-{DECODING}.generations.jsonl"):
        answers = Journal(path, Generation).read()
        longest += len(answers)
        long = [a.model_copy(update={"completion_ids": [*a.completion_ids, *filler]}) for a in answers]
        write_records(path, long)
    tracemalloc.start()
    shown = stage._shown(recipe, copy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(shown) > 20 and {len(answer.completion_ids) for answer in shown} == {samples.MOST_TOKENS}
    assert all(answer.tokens > len(filler) for answer in shown)
    assert peak < longest * len(filler) * 40 / 3


def test_the_run_ends_by_naming_its_page(files):
    process = faults.run("report", str(files.directory))
    assert process.returncode == 0
    assert process.stdout.rstrip().endswith(f"{files.directory}/report.html")


def test_the_analysis_of_the_run_is_in_its_report(files):
    report, data = json.loads(files.report_json.read_text()), packed(files.report_html.read_text(encoding="utf-8"))
    arms = store.arms(files.analysis)
    assert list(report["analysis"]) == data["arms"] == arms and len(arms) == 2
    text = Read(files.report_html.read_text(encoding="utf-8")).text
    for arm in arms:
        assert report["analysis"][arm] == store.summary(files.analysis, arm)
        assert all(line in text for line in report["analysis"][arm]["finding"])
    texts, (_, grades) = store.texts(files.analysis), base_answers(files)
    assert len(data["samples"]) == len(texts)
    for sample, found in zip(data["samples"], sorted(texts, key=lambda t: (t.problem_id, t.sample_index)), strict=True):
        assert (data["problems"][sample["problem"]]["id"], sample["i"]) == (found.problem_id, found.sample_index)
        assert sample["arm"] == BASE and sample["n"] == len(found.completion_ids) and all(sample["of"])
        assert sample["verdict"] == grades[found.problem_id, found.sample_index].verdict
    manifest = json.loads(files.manifest.read_text())
    assert "analysis of student" in manifest["stages"]["report"]["made_of"]["inputs"]


def test_texts_that_are_no_answers_of_the_run_get_no_verdict(copy):
    generations, _ = base_answers(copy)
    first = generations[0]
    text = synthetic.Text(
        problem_id=first.problem_id, sample_index=first.sample_index, prompt_ids=[1], completion_ids=[5, 6, 7]
    )
    shutil.rmtree(copy.analysis)
    synthetic.write_analysis(copy.analysis, [text])
    (sample,) = stage._analysed(Recipe.load(copy.recipe), copy)
    assert sample.verdict is None and sample.arm == "the text"


def test_what_other_commands_wrote_is_an_input(copy):
    recipe = Recipe.load(copy.recipe)
    before = stage.inputs(recipe, copy)
    for name in ("parity.json", "bench.jsonl", "export/mlx/verify.json"):
        path = copy.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    assert set(stage.inputs(recipe, copy)) - set(before) == {"parity.json", "bench.jsonl", "export/mlx/verify.json"}


def test_the_figures_are_files_too_and_the_frontier_is_among_them(copy):
    shutil.copy(Path(__file__).parents[2] / "benchmarks/results/frontier.json", copy.directory)
    recipe = Recipe.load(copy.recipe)
    html = stage._page(recipe, copy)
    names = {path.stem for path in copy.figures.glob("*.svg")}
    assert names >= {"differences", "scores", "tail-mass", "entropy-split", "frontier"}
    assert all(f'id="{name}--' in html for name in names) and copy.figures in stage.outputs(recipe, copy)
    assert "frontier.json" in stage.inputs(recipe, copy)


def test_compare_and_bad_input(copy, files, tmp_path):
    process = faults.run("report", str(copy.directory), "--compare", str(files.directory))
    assert process.returncode == 0, process.stderr
    assert f"Side by side: {copy.directory}/compare.html" in process.stdout
    text = Read((copy.directory / "compare.html").read_text()).text
    assert str(files.directory) in text and "None: the recipes are the same." in text
    for arguments in ((str(files.directory),), ("--compare", str(tmp_path))):
        process = faults.run("report", str(copy.directory), *arguments)
        assert process.returncode == 2 and len(process.stderr.strip().splitlines()) == 1
