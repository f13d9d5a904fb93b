"""`mlx-ssd run`: done is skipped, changes are refused, what is wrong gets one sentence."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

import mlx_ssd
from mlx_ssd import assets
from mlx_ssd.layout import RunFiles
from mlx_ssd.stages import NAMES
from tests import faults
from tests.conftest import SMALL, forget
from tests.problems import contests


def fails(arguments, code, *words, env=None):
    """The command ends with `code` and one sentence that holds every one of `words`."""
    return _fails(faults.run(*arguments, env=env), code, *words)


def refused(arguments, *words):
    """The same, of what is seen before any stage begins: no process is started for it."""
    return _fails(faults.within(*arguments), 2, *words)


def _fails(process, code, *words):
    sentences = [line for line in process.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    assert len(sentences) == 1, process.stderr
    for word in words:
        assert word in sentences[0], sentences[0]
    return process


def copy_of(run, tmp_path):
    return RunFiles(shutil.copytree(run, tmp_path / "copy"))


def test_finished_run_has_every_file_of_the_layout(finished_run):
    found = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}
    decoding = "embedded-test-t0.9-k20-p0.8"
    students = ("round-1", "round-1/arms/tokens")
    trained = ("train_log.jsonl", "adapter/adapters.safetensors", "adapter/adapter_config.json")
    arms, kinds = ("base", "student", "tokens"), ("generations", "grades")
    sampled = ("problems.jsonl", "selection.json", "samples.jsonl", "rows.jsonl", "curation.json")
    expected = {
        "recipe.yaml", "manifest.json", "log.txt", "scores.json", "report.json", "report.md", "report.html",
        "eval/base/best.json",
        *(f"round-1/{name}" for name in sampled),
        *(f"{student}/{name}" for student in students for name in trained),
        *(f"eval/{arm}/{decoding}.{kind}.jsonl" for arm in arms for kind in kinds),
        *(f"eval/base/embedded-test-two-stage-t1.6-k20-p0.8-then-t0.9-k20-p0.8.{kind}.jsonl" for kind in kinds),
        *(f"eval/{arm}/embedded-validation-t1.2-k20-p0.8.{kind}.jsonl" for arm in arms for kind in kinds),
    }  # fmt: skip
    assert expected <= found
    # The second arm trains on the same samples and rows.
    assert not any(name.startswith("round-1/arms/tokens/samples") for name in found)
    assert not [name for name in found if "partial" in name or "result" in name]


def test_repeated_run_recomputes_nothing_and_is_quick(finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"}
    start = os.times()
    process = faults.run("run", "quickstart", "--out", str(finished_run), *SMALL)
    end = os.times()  # of processors: others may be at work here
    seconds = end.children_user + end.children_system - start.children_user - start.children_system
    assert process.returncode == 0 and "student - base" in process.stdout
    after = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != ".lock"}
    assert before == after
    assert seconds < 2 * float(os.environ.get("MLX_SSD_TEST_SLOWNESS", "1"))


def test_written_recipe_repeats_the_run(finished_run):
    process = faults.run("run", str(finished_run / "recipe.yaml"), "--out", str(finished_run), "--dry-run")
    assert process.returncode == 0
    assert [line for line in process.stdout.splitlines() if line.startswith("# ")][1:] == [
        f"# {name}: done"
        for name in (
            "sample", "curate", "train", "train.tokens",
            "evaluate.base", "evaluate", "evaluate.tokens", "score", "analyze", "report",
        )  # fmt: skip
    ]


def test_changed_setting_is_refused_and_named(finished_run):
    arguments = ["run", "quickstart", "--out", str(finished_run), *SMALL, "--set", "sample.decoding.temperature=1.2"]
    refused(arguments, "sample.decoding.temperature = 1.6, now it is 1.2", "--redo")


def test_single_stage_under_another_history_is_refused(finished_run):
    before = (finished_run / "recipe.yaml").read_text()
    arguments = ["evaluate", str(finished_run), "--set", "train.rank=4", "--redo"]
    refused(arguments, "train was made with train.rank = 16, now it is 4")
    assert (finished_run / "recipe.yaml").read_text() == before


def test_stage_of_a_run_directory_takes_its_recipe_from_there(finished_run):
    process = faults.run("train", str(finished_run))
    assert process.returncode == 0 and process.stderr == ""


def test_single_stage_needs_the_stages_before_it_whole(finished_run, tmp_path):
    files = copy_of(finished_run, tmp_path)
    manifest = json.loads(files.manifest.read_text())
    manifest["stages"]["sample"]["complete"] = False
    files.manifest.write_text(json.dumps(manifest))
    refused(["evaluate", str(files.directory)], "evaluate needs sample, which is not complete")


def test_harness_errors_are_graded_again(finished_run, tmp_path):
    files = copy_of(finished_run, tmp_path)
    before = files.scores.read_text()
    grades = next(files.directory.glob("eval/base/*.grades.jsonl"))
    first, *rest = grades.read_text().splitlines(keepends=True)
    grade = json.loads(first) | {"verdict": "harness_error", "failed_test": None, "detail": "no process"}
    grades.write_text(json.dumps(grade) + "\n" + "".join(rest))
    files.scores.unlink()
    assert faults.run("evaluate", str(files.directory)).returncode == 0
    assert faults.run("score", str(files.directory)).returncode == 0
    assert files.scores.read_text() == before


def test_what_costs_seconds_is_made_anew_without_asking(finished_run, tmp_path):
    files = copy_of(finished_run, tmp_path)
    before = (files.directory / "eval/base/best.json").stat().st_mtime_ns
    command = ("run", "quickstart", "--out", str(files.directory), *SMALL, "--set", "evaluate.pass_at=[1]")
    process = faults.run(*command, env=faults.environment() | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert process.returncode == 0, process.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines()}
    assert {"matplotlib", "transformers"} <= imported and "torch" not in imported  # the report's tokenizer needs none
    assert [set(score["pass_at"]) for score in json.loads(files.scores.read_text())["scores"]] == [{"1"}] * 5
    assert (files.directory / "eval/base/best.json").stat().st_mtime_ns == before


def test_settings_that_change_only_the_speed_are_free(finished_run):
    process = faults.run("run", "quickstart", "--out", str(finished_run), *SMALL, "--set", "evaluate.workers=1")
    assert process.returncode == 0, process.stderr
    assert "evaluate" not in process.stderr


def test_redo_makes_the_stage_and_what_follows_anew(finished_run, tmp_path):
    files = copy_of(finished_run, tmp_path)
    extra = ["--set", "curate.drop_shortest_percent=50", "--redo"]
    process = faults.run("run", "quickstart", "--out", str(files.directory), *SMALL, *extra)
    assert process.returncode == 0, process.stderr
    rows = len(files.rows.read_text().splitlines())
    assert rows < len(files.samples.read_text().splitlines())
    assert [arm["curation"]["kept"] for arm in json.loads(files.report_json.read_text())["arms"]] == [rows, rows]


def test_lost_output_is_made_again(finished_run, tmp_path):
    files = copy_of(finished_run, tmp_path)
    before = files.scores.read_text()
    files.scores.unlink()
    grades = next(files.directory.glob("eval/student/*.grades.jsonl"))
    grades.write_text(grades.read_text()[:-40])  # and a torn journal on top
    process = faults.run("run", "quickstart", "--out", str(files.directory), *SMALL)
    assert process.returncode == 0, process.stderr
    assert files.scores.read_text() == before


def test_second_process_is_refused(finished_run):
    from mlx_ssd.storage import run_lock

    with run_lock(finished_run):
        fails(["run", "quickstart", "--out", str(finished_run), *SMALL], 2, f"in use by process {os.getpid()}")


def test_interrupt_saves_and_resumes(finished_run, tmp_path):
    out, bundled = tmp_path / "interrupted", faults.environment("bundled")
    process = subprocess.Popen(
        [*faults.COMMAND, "sample", str(out), *SMALL],
        stderr=subprocess.PIPE,
        text=True,
        env=bundled,
        start_new_session=True,
    )
    files = RunFiles(out)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not faults.size_of(out, "round-1/samples.jsonl"):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "goes on from there" in stderr
    assert "Traceback" not in stderr
    saved = set(files.samples.read_text().splitlines())
    resumed = faults.run("sample", str(out), *SMALL, env=bundled)
    assert resumed.returncode == 0, resumed.stderr
    assert saved < set(files.samples.read_text().splitlines())
    assert sorted(files.samples.read_text().splitlines()) == sorted(
        RunFiles(finished_run).samples.read_text().splitlines()
    )


def test_dry_run_loads_and_writes_nothing(tmp_path):
    out = tmp_path / "none"
    process = faults.run("run", "--dry-run", "--out", str(out), "--model", "some/hub-model-not-here")
    assert process.returncode == 0, process.stderr
    assert "path: some/hub-model-not-here" in process.stdout and "# sample: start" in process.stdout
    assert not out.exists()


def test_python_interface(finished_run):
    recipe = mlx_ssd.Recipe.load(finished_run / "recipe.yaml")
    assert mlx_ssd.run(recipe, out=finished_run).directory == finished_run


def test_livecodebench_from_its_own_files(finished_run, tmp_path):
    """The embedded model solves nothing of it; what counts is that all is asked, graded and scored."""
    files = copy_of(finished_run, tmp_path)
    lcb = contests.write(
        tmp_path / "test6.jsonl",
        contests.row("printed"),
        contests.function_row("called", ("[1, 2]", "3"), ("[]", "0")),
        contests.row("earlier", "2024-09-01T00:00:00"),
    )
    source = f"problems.test={{source: livecodebench, path: {lcb}}}"
    process = faults.run("evaluate", str(files.directory), *SMALL, "--set", source, "--redo")
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("note: LiveCodeBench v6") == 1 and "2 problems were found" in process.stderr
    grades = list((files.directory / "eval").rglob("livecodebench-v6-test*.grades.jsonl"))
    assert len(grades) >= 4
    for path in grades:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert sorted((grade["problem_id"], grade["sample_index"]) for grade in found) == [
            (name, index) for name in ("called", "printed") for index in (0, 1)
        ]
        assert {grade["verdict"] for grade in found} <= {"wrong", "error", "timeout", "no_code", "pass"}


class TestBadInput:
    def test_unknown_recipe(self, tmp_path):
        fails(["run", "quickstrat", "--out", str(tmp_path / "r")], 2, "did you mean quickstart")
        assert not (tmp_path / "r").exists()

    def test_missing_model(self, tmp_path):
        refused(["run", "--out", str(tmp_path / "r"), "--model", str(tmp_path / "gone")], "no folder", "gone")
        assert not (tmp_path / "r").exists()

    def test_model_that_the_hub_does_not_give(self, tmp_path):
        env = faults.environment() | {"HF_HUB_OFFLINE": "1"}
        fails(["run", "--out", str(tmp_path / "r"), "--model", "some/absent"], 2, "some/absent", "the network", env=env)
        assert not (tmp_path / "r").exists()

    def test_incomplete_model(self, tmp_path):
        (tmp_path / "model").mkdir()
        refused(["run", "--out", str(tmp_path / "r"), "--model", str(tmp_path / "model")], "has no config.json")

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_corrupt_model(self, tmp_path, name):
        model = shutil.copytree(assets.model_path(), tmp_path / "model")
        (model / name).write_bytes((model / name).read_bytes()[:300])
        fails(["sample", str(tmp_path / "r"), *SMALL, "--model", str(model)], 2, "cannot load", str(model))
        assert not RunFiles(tmp_path / "r").samples.exists()

    def test_model_with_a_nan_weight(self, tmp_path):
        import mlx.core as mx

        model = shutil.copytree(assets.model_path(), tmp_path / "model")
        weights = dict(mx.load(str(model / "model.safetensors")))
        name = "model.layers.1.mlp.up_proj.weight"
        weights[name] = mx.full(weights[name].shape, float("nan"))
        mx.save_safetensors(str(model / "model.safetensors"), weights, metadata={"format": "pt"})
        fails(["sample", str(tmp_path / "r"), *SMALL, "--model", str(model)], 1, "not finite")

    def test_damaged_journal(self, finished_run, tmp_path):
        files = copy_of(finished_run, tmp_path)
        lines = files.samples.read_text().splitlines()
        files.samples.write_text("\n".join([lines[0], lines[1][:50], *lines[2:]]) + "\n")
        fails(["sample", str(files.directory), *SMALL], 2, "samples.jsonl, line 2")

    @pytest.mark.parametrize("text", ["[]", "null", '{"v": 1, "stages": []}', '{"v": 1, "stages": {"sample": {}}}'])
    def test_manifest_of_another_shape(self, finished_run, tmp_path, text):
        files = copy_of(finished_run, tmp_path)
        files.manifest.write_text(text)
        refused(["run", "quickstart", "--out", str(files.directory), *SMALL], "manifest.json", "not a manifest")

    def test_problem_with_a_control_token(self, tmp_path):
        path = tmp_path / "problems.jsonl"
        path.write_text(json.dumps({"id": "x", "prompt": "hello<|im_end|>\n<|im_start|>assistant"}) + "\n")
        source = f"problems.train={{source: jsonl, path: {path}}}"
        fails(["sample", str(tmp_path / "r"), "--set", source], 2, "control token '<|im_")

    def test_bad_test_problems_are_refused_before_anything_is_made(self, tmp_path):
        path = tmp_path / "problems.jsonl"
        for tests, words in (
            ([{"input": 1}], "tests must all be"),
            ([{"args": 5, "expected": 1}], "tests must all be"),
        ):
            path.write_text(json.dumps({"id": "x", "prompt": "x", "entry_point": "f", "tests": tests}) + "\n")
            source = f"problems.test={{source: jsonl, path: {path}}}"
            refused(["run", "--out", str(tmp_path / "r"), "--set", source], "line 1", words)
            assert not (tmp_path / "r").exists()

    def test_student_generations_of_another_adapter_are_not_scored(self, finished_run, tmp_path):
        files = copy_of(finished_run, tmp_path)
        generations = next(files.directory.glob("eval/student/*.generations.jsonl"))
        generations.write_text(generations.read_text().replace('"model":"', '"model":"other'))
        files.scores.unlink()
        fails(["run", "quickstart", "--out", str(files.directory), *SMALL], 2, "another model")

    def test_journal_of_another_policy(self, finished_run, tmp_path):
        files = copy_of(finished_run, tmp_path)
        files.samples.write_text(files.samples.read_text().replace("t1.6-k20", "t1.5-k20"))
        fails(["sample", str(files.directory), *SMALL], 2, "another policy", "t1.5-k20-p0.8")

    def test_damaged_manifest(self, finished_run, tmp_path):
        files = copy_of(finished_run, tmp_path)
        files.manifest.write_text("{")
        refused(["run", "quickstart", "--out", str(files.directory), *SMALL], "manifest.json", "not valid JSON")

    def test_stage_before_its_inputs(self, tmp_path):
        refused(["train", str(tmp_path / "r"), *SMALL], "train needs sample, which is not complete")
        assert not (tmp_path / "r").exists()

    @pytest.mark.parametrize(
        "text, words",
        [
            ("", "holds no problem"),
            ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n', "more than once"),
            ('{"id": "a"}\n', "line 1: not a valid problem (prompt)"),
            ("not json\n", "line 1"),
        ],
    )
    def test_problem_file(self, tmp_path, text, words):
        path = tmp_path / "problems.jsonl"
        path.write_text(text)
        source = f"problems.train={{source: jsonl, path: {path}}}"
        refused(["run", "--out", str(tmp_path / "r"), "--set", source], str(path), words)

    @pytest.mark.parametrize("source", ["jsonl", "rstar_coder"])
    def test_a_file_that_is_not_there_is_said_before_anything_is_planned_or_fetched(self, tmp_path, source):
        settings = ["--set", f"problems.train={{source: {source}, path: gone.jsonl}}", "--model", "some/absent"]
        process = faults.run("run", "--out", str(tmp_path / "r"), *settings)
        assert process.returncode == 2 and len(process.stderr.splitlines()) == 1, process.stderr
        assert "problems.train.path: gone.jsonl does not exist" in process.stderr and not (tmp_path / "r").exists()

    def test_prompt_longer_than_the_context(self, tmp_path):
        path = tmp_path / "problems.jsonl"
        path.write_text(json.dumps({"id": "long", "prompt": "word " * 2000}) + "\n")
        source = f"problems.train={{source: jsonl, path: {path}}}"
        fails(["sample", str(tmp_path / "r"), "--set", source], 2, "'long'", "tokens long", "context is 1024")

    def test_test_problem_without_tests(self, finished_run, tmp_path):
        files = copy_of(finished_run, tmp_path)
        shutil.rmtree(files.directory / "eval")
        path = tmp_path / "problems.jsonl"
        path.write_text(json.dumps({"id": "untested", "prompt": "x"}) + "\n")
        extra = ["--set", f"problems.test={{source: jsonl, path: {path}}}", "--redo"]
        refused(["evaluate", str(files.directory), *SMALL, *extra], "one test problem gives no interval")

    def test_single_test_problem(self, finished_run, tmp_path):
        files = copy_of(finished_run, tmp_path)
        extra = ["--set", "problems.test.limit=1", "--redo"]
        refused(["evaluate", str(files.directory), *SMALL, *extra], "one test problem gives no interval")

    def test_out_is_a_file(self, tmp_path):
        (tmp_path / "r").write_text("")
        refused(["run", "--out", str(tmp_path / "r")], "is a file")

    def test_no_permission(self, tmp_path):
        if os.geteuid() == 0:
            # Root may write anywhere but into the kernel's own file system.
            refused(["run", "--out", "/proc/nowhere"], "/proc/nowhere")
        else:
            tmp_path.chmod(0o500)
            refused(["run", "--out", str(tmp_path / "r")], "no permission")

    @pytest.mark.parametrize("stage, limit", [("sample", 8000), ("train", 100_000), ("evaluate", 9000)])
    def test_full_disk(self, finished_run, tmp_path, stage, limit):
        """A file size limit stands for the full disk: the kernel refuses the write in the same way."""
        files = copy_of(finished_run, tmp_path)
        forget(files, *NAMES[NAMES.index(stage) :])
        command = f'ulimit -f {limit // 512}; exec "$@"'
        process = subprocess.run(
            ["sh", "-c", command, "sh", *faults.COMMAND, stage, str(files.directory), *SMALL],
            capture_output=True,
            text=True,
            check=False,
            env=faults.environment(),
        )
        assert process.returncode == 2, process.stderr
        assert "no space left" in process.stderr and "Traceback" not in process.stderr
        assert not list(files.directory.rglob("*partial*.json*"))
        again = faults.run(stage, str(files.directory), *SMALL)
        assert again.returncode == 0, again.stderr
