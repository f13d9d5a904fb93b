"""A run of several rounds, killed on its way, and what comes after it."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.records import Generation, Sample
from mlx_ssd.storage import Journal
from tests import faults

SMALL = (
    "--set", "problems.train.limit=8",
    "--set", "problems.validation.limit=4",
    "--set", "problems.test.limit=4",
    "--set", "sample.rows=16",
    "--set", "train.epochs=1",
    "--set", "train.rows_per_step=2",
    "--set", "train.checkpoint_every_steps=1",
    "--set", "evaluate.curve={temperatures: [0.6, 0.9], samples_per_problem: 2}",
    "--set", "evaluate.samples_per_problem=2",
    "--set", "evaluate.pass_at=[1, 2]",
    "--set", "evaluate.limits.wall_seconds=2",
    "--set", "arms=[]",
)  # fmt: skip
ROUNDS = ("--set", "rounds=auto", "--set", "rounds.most=2", "--set", "rounds.temperatures=[1.6, 1.0]")
FRESH = ("--set", "rounds.prompts=fresh", "--set", "rounds.floors={pass_gap: 0, distinct: 0, fork_entropy: 0}")
BUNDLED = faults.environment("bundled")  # samples drawn again after a kill are then the same in any batch


def run(out, *more):
    return faults.run("run", "quickstart", "--out", str(out), *SMALL, *ROUNDS, *FRESH, *more, env=BUNDLED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("rounds") / "whole"
    process = run(out)
    assert process.returncode == 0, process.stderr
    return RunFiles(out)


def of_round(files, number):
    return RunFiles(files.directory, number=number)


def test_each_round_is_made_of_the_one_before(whole):
    first, second = of_round(whole, 1), of_round(whole, 2)
    drawn = [Journal(files.samples, Sample).read() for files in (first, second)]
    assert [{(s.policy, s.stream) for s in samples} for samples in drawn] == [
        {("t1.6-k20-p0.8", "train/round-1")},
        {("t1-k20-p0.8", "train/round-2")},
    ]
    models = [samples[0].model for samples in drawn]
    assert "+" not in models[0] and models[1].startswith(models[0] + "+")  # the second round's teacher is the first's
    assert not {s.problem_id for s in drawn[0]} & {s.problem_id for s in drawn[1]}  # fresh prompts
    manifest = json.loads(whole.manifest.read_text())["stages"]
    inputs = {name: entry["made_of"]["inputs"] for name, entry in manifest.items()}
    assert inputs["train.round-2"]["teacher"] == inputs["sample.round-2"]["adapter"] == inputs["validate"]["adapter"]


def test_validation_is_of_the_rounds_own_student_on_the_same_problems_and_draws(whole):
    base, first, second = (
        json.loads(files.validation.read_text())
        for files in (RunFiles(whole.directory, BASE, number=0), of_round(whole, 1), of_round(whole, 2))
    )
    assert [found["round"] for found in (base, first, second)] == [0, 1, 2]
    assert set(first["differences"]) == {"0"} and set(second["differences"]) == {"0", "1"}
    for found in (base, first, second):
        passes = [c / n for n, c in found["counts"]]
        assert len(passes) == 4 and {n for n, _ in found["counts"]} == {2}
        assert found["pass_at"]["1"]["mean"] == pytest.approx(sum(passes) / 4)
        assert max(tried["pass@1"] for tried in found["tried"]) == found["pass_at"]["1"]["mean"]
    mean = second["pass_at"]["1"]["mean"] - first["pass_at"]["1"]["mean"]
    assert second["differences"]["1"]["mean"] == pytest.approx(mean)
    assert {"distinct", "pass_gap", "fork_entropy"} <= second["diversity"].keys()
    assert first["diversity_of_base"] == second["diversity_of_base"] != {}
    assert first["diversity"]["fork_entropy"] != second["diversity"]["fork_entropy"]


def test_the_test_problems_are_answered_once_by_the_kept_round_at_its_temperature(whole):
    report = json.loads(whole.report_json.read_text())
    kept = next(entry for entry in report["rounds"] if entry.get("kept"))
    scores = {(score["arm"], score["decoding"]) for score in report["scores"]}
    decoding = f"t{kept['temperature']:g}-k20-p0.8"
    assert {("student", decoding), ("base", decoding)} <= scores
    assert len([arm for arm, _ in scores if arm == "student"]) == 1
    answers = Journal(RunFiles(whole.directory).generations("embedded-test", decoding), Generation).read()
    drawn_by = Journal(next(of_round(whole, kept["round"]).validated.glob("*.generations.jsonl")), Generation).read()
    assert {a.model for a in answers} == {a.model for a in drawn_by} and "+" in answers[0].model
    assert "rounds of student" in whole.report_md.read_text() and "Round by round" in whole.report_html.read_text()
    assert (whole.figures / "rounds-pass-1.svg").exists()


def test_nothing_is_done_twice(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.directory.rglob("*") if path.name != ".lock"}
    assert run(whole.directory).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in whole.directory.rglob("*") if path.name != ".lock"}


def test_a_stage_that_each_round_has_is_not_run_alone(whole):
    process = faults.run("train", str(whole.directory))
    assert process.returncode == 2 and "train belongs to each of several rounds" in process.stderr


def killed(out, moment):
    """Begin a run and kill it, and all it started, when `moment` has come."""
    command = [*faults.COMMAND, "run", "quickstart", "--out", str(out), *SMALL, *ROUNDS, *FRESH]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, env=BUNDLED, stdout=nowhere, stderr=nowhere, start_new_session=True)
    while not moment() and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def test_killed_in_the_second_round_it_ends_the_same(whole, tmp_path):
    out = RunFiles(shutil.copytree(whole.directory, tmp_path / "killed"))
    second = of_round(out, 2)
    shutil.rmtree(second.round)
    for path in (out.directory / "eval" / "student", out.scores, out.report_json, out.analysis):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    manifest = json.loads(out.manifest.read_text())
    for name in list(manifest["stages"]):
        if name.endswith("round-2") or name in ("evaluate", "score", "analyze", "report"):
            del manifest["stages"][name]
    out.manifest.write_text(json.dumps(manifest))
    moments = [
        lambda: second.samples.exists() and second.samples.stat().st_size > 1500,
        lambda: any(second.checkpoints.glob("step-*")),
        lambda: any(second.validated.glob("*.generations.jsonl")),
    ]
    for moment in moments:
        assert killed(out.directory, moment) == -signal.SIGKILL
    assert run(out.directory).returncode == 0
    for name in ("samples.jsonl", "rows.jsonl", "adapter/adapters.safetensors", "validation.json"):
        a, b = ((files.round / name).read_bytes() for files in (second, of_round(whole, 2)))
        assert sorted(a.splitlines()) == sorted(b.splitlines()), name
    assert out.scores.read_text() == whole.scores.read_text()


def test_one_more_round_keeps_what_there_is(whole):
    process = run(whole.directory, "--set", "rounds={count: 3, prompts: fresh, temperatures: [1.6, 1.0]}", "--dry-run")
    assert process.returncode == 0, process.stderr
    planned = dict(line[2:].split(": ") for line in process.stdout.splitlines() if line.startswith("# "))
    assert planned["validate"] == planned["train.round-2"] == planned["validate.round-2"] == "done"
    assert planned["sample.round-3"] == "start" and planned["each further round, 3 at most"]
