"""`mlx-ssd eval`: a model or a run on a suite; it goes on, it mixes nothing, it leaves the run as it is."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_ssd import assets
from mlx_ssd.cli import main
from mlx_ssd.grading import texts
from mlx_ssd.records import Generation, Grade
from mlx_ssd.storage import Journal, hash_path
from mlx_ssd.suites import __main__ as process
from mlx_ssd.suites import choose, evaluating
from tests import faults
from tests.conftest import SMALL

FEW = ("--suite", "embedded", "--limit", "4", "--samples", "2")


@pytest.fixture(scope="module")
def here():
    """The work is done in this process; its programs run in the real sandbox, without canaries first."""

    def work(command, lock, **_):
        process.complete(evaluating.Question.load(Path(command[4])))
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "supervise", work)
        patch.setattr(texts, "check_canaries", lambda *_: None)
        yield


def evaluate(*arguments):
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def facts_of(*arguments):
    result = evaluate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments):
    result = evaluate(*arguments)
    assert result.exit_code == 2 and result.stdout == "", result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    return line


def lines(folder, kind):
    return {path.name: path.read_text().splitlines() for path in sorted(folder.glob(f"suites/*/*.{kind}.jsonl"))}


class TestModel:
    @pytest.fixture(scope="class")
    def once(self, here, tmp_path_factory):
        out = tmp_path_factory.mktemp("model") / "e"
        return out, facts_of("embedded", *FEW, "--out", out)

    @pytest.fixture
    def evaluated(self, once, tmp_path):
        return shutil.copytree(once[0], tmp_path / "e"), once[1]

    def test_scores_and_repetition(self, evaluated):
        out, facts = evaluated
        [score] = facts["scores"]
        assert (facts["suite"], facts["model"], score["arm"], score["problems"]) == ("embedded", "embedded", "base", 4)
        assert set(score["pass_at"]) == {"1"} and sum(score["verdicts"].values()) == 8
        assert json.loads((out / "suites" / "embedded-test.json").read_text()) == facts
        before = hash_path(out)
        again = evaluate("embedded", *FEW, "--out", out)
        assert again.exit_code == 0 and again.stderr == "" and "pass@1 %" in again.stdout  # nothing drawn or graded
        assert hash_path(out) == before

    def test_more_samples_and_problems_go_on(self, evaluated):
        out, facts = evaluated
        drawn = lines(out, "generations")
        more = facts_of("embedded", "--suite", "embedded", "--limit", "5", "--samples", "3", "--out", out)
        assert more["scores"][0]["problems"] == 5 and sum(more["scores"][0]["verdicts"].values()) == 15
        [(name, now)] = lines(out, "generations").items()
        assert now[:8] == drawn[name] and len(now) == 15
        assert facts_of("embedded", *FEW, "--out", out) == facts  # of the first four problems and two samples again

    def test_another_decoding_or_limit_is_named(self, evaluated):
        out, _ = evaluated
        before = hash_path(out)
        said = refused("embedded", *FEW, "--out", out, "--temperature", "0.5")
        assert "evaluate.decoding.temperature = 0.9, now it is 0.5; give --redo" in said and "another --out" in said
        said = refused("embedded", *FEW, "--out", out, "--max-tokens", "64")
        assert "evaluate.max_tokens = 128, now it is 64" in said
        assert hash_path(out) == before

    def test_redo_of_other_limits_keeps_what_was_drawn(self, evaluated):
        out, _ = evaluated
        drawn = (out / "suites/base/embedded-test-t0.9-k20-p0.8.generations.jsonl").stat().st_mtime_ns
        facts = facts_of("embedded", *FEW, "--out", out, "--timeout", "5", "--redo")
        assert facts["limits"]["wall_seconds"] == 5
        assert (out / "suites/base/embedded-test-t0.9-k20-p0.8.generations.jsonl").stat().st_mtime_ns == drawn

    def test_another_model_is_refused_whatever_the_suite(self, evaluated, tmp_path):
        out, _ = evaluated
        other = shutil.copytree(assets.model_path(), tmp_path / "other")
        (other / "generation_config.json").write_text("{}")
        settings = ("--max-tokens", "128", "--set", "evaluate.rows=128")
        assert "was made with model = " in refused(other, *FEW, *settings, "--out", out)
        said = refused(other, "--suite", "embedded-validation", "--limit", "2", "--out", out)
        assert "holds what another model, embedded, was asked on embedded" in said

    def test_greedy_decoding_draws_once(self, here, tmp_path):
        facts = facts_of("embedded", *FEW[:4], "--temperature", "0", "--out", tmp_path / "g")
        assert facts["scores"][0]["samples_per_problem"] == 1

    @pytest.mark.parametrize(
        "arguments, words",
        [
            (("runs/none", "--suite", "embedded"), "runs/none does not exist"),
            (("quickstrat", "--suite", "embedded"), "no folder 'quickstrat'"),
            (("embedded",), "--suite is missing; suites are: embedded"),
            (("embedded", "--suite", "humanevil"), "there is no such suite"),
            (("embedded", "--suite", "embedded", "--controls"), "only a run has controls"),
            (("embedded", "--suite", "embedded", "--set", "train.rank=8"), "train.rank: only what starts with"),
            (("embedded", "--suite", "embedded", "--set", "evaluate.rws=8"), "evaluate.rws is not a setting"),
        ],
    )
    def test_bad_input(self, arguments, words, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert words in refused(*arguments)

    def test_no_message_asks_for_python_where_the_answer_is_a_number(self):
        systems = {}
        for name, settings in (("gsm8k", {}), ("mbpp", {}), ("gsm8k", {"prompt.system": "Think."})):
            systems[name, *settings] = evaluating.question_of("embedded", choose(name), settings).recipe.prompt.system
        assert systems["gsm8k",] == "" and "Python" in systems["mbpp",]
        assert systems["gsm8k", "prompt.system"] == "Think."

    def test_a_download_is_confirmed_first(self, monkeypatch, tmp_path):
        from mlx_ssd import models

        monkeypatch.setattr(models, "download_bytes", lambda name, revision: 10**9)
        assert "some/model: 1.0 GB to download" in refused("some/model", *FEW, "--out", tmp_path / "e")
        assert not (tmp_path / "e").exists()


class TestRun:
    @pytest.fixture
    def run(self, finished_run, tmp_path):
        return shutil.copytree(finished_run, tmp_path / "run")

    def test_base_and_students_and_the_run_as_it_was(self, run, here):
        before = hash_path(run)
        facts = facts_of(run, "--suite", "embedded-validation", "--limit", "3", "--samples", "1", "--controls")
        assert [score["arm"] for score in facts["scores"]] == ["base", "base-best", "two-stage", "student", "tokens"]
        pairs = {(c["arm"], c["baseline"]) for c in facts["comparisons"]}
        assert {("student", "base"), ("tokens", "base"), ("student", "tokens"), ("student", "two-stage")} <= pairs
        table = evaluate(run, "--suite", "embedded-validation", "--limit", "3", "--samples", "1").stdout
        assert "student - base" in table and "two-stage" not in table
        dry = CliRunner().invoke(main, ["run", "quickstart", "--out", str(run), *SMALL, "--dry-run"]).stdout
        assert [line.split(": ")[1] for line in dry.splitlines() if line.startswith("# ")][1:] == ["done"] * 10
        shutil.rmtree(run / "suites")
        assert hash_path(run) == before

    def test_what_the_run_has_drawn_and_graded_is_taken_over(self, run, here, monkeypatch):
        monkeypatch.setattr(process, "generate", lambda paths, *_: self.nothing_missing(paths))
        result = evaluate(run, "--suite", "embedded", "--limit", "24", "--samples", "2", "--json")
        assert result.exit_code == 0 and "grade" not in result.stderr
        of_run = {s["arm"]: s for s in json.loads((run / "scores.json").read_text())["scores"]}
        for score in json.loads(result.stdout)["scores"]:
            assert score["pass_at"]["1"] == of_run[score["arm"]]["pass_at"]["1"]
            assert score["verdicts"] == of_run[score["arm"]]["verdicts"]

    @staticmethod
    def nothing_missing(paths):
        for path, _ in paths:
            assert len(Journal(path, Generation).read()) == 48
        return {}

    def test_bad_input(self, run):
        assert "evaluate.rws is not a setting" in refused(run, *FEW, "--set", "evaluate.rws=1")
        assert "--out is for a MODEL" in refused(run, *FEW, "--out", "x")
        assert "keep their decodings" in refused(run, *FEW, "--temperature", "1")
        assert "prompt.system: only what starts with evaluate." in refused(run, *FEW, "--set", "prompt.system=x")
        for adapter in (run / "round-1/adapter", run / "round-1/arms/tokens/adapter"):
            shutil.rmtree(adapter)
        assert "has no trained adapter" in refused(run, *FEW)


@pytest.mark.slow
def test_killed_evaluation_goes_on_to_the_same_scores(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    size = ["--limit", "4", "--samples", "2", "--set", "evaluate.rows=2"]
    arguments = ["eval", "embedded", "--suite", "embedded", *size]
    bundled = faults.environment("bundled")
    process = faults.run(*arguments, "--out", str(whole), env=bundled)
    assert process.returncode == 0, process.stderr
    grows = ["suites/*/*.jsonl"]
    hit = faults.kill_and_resume(
        [*arguments, "--out", str(killed)],
        grows=lambda: faults.size_of(killed, *grows),
        expected_bytes=faults.size_of(whole, *grows),
        kills=2,
        seed=0,
        env=bundled,
    )
    assert hit, "a kill must hit a process at work"
    for kind, record in (("generations", Generation), ("grades", Grade)):
        [(name, found)] = lines(killed, kind).items()
        assert sorted(found) == sorted(lines(whole, kind)[name])
        assert len({r.key for r in Journal(killed / "suites/base" / name, record).read()}) == len(found) == 8
    assert (killed / "suites/embedded-test.json").read_text() == (whole / "suites/embedded-test.json").read_text()
