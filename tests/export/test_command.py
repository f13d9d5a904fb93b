"""`mlx-ssd export`: what it refuses, what it leaves behind, what it says."""

import json
import shutil
import signal
import subprocess
import time

import pytest

from mlx_ssd import export, machine
from mlx_ssd.errors import BadInput
from mlx_ssd.export import __main__ as process
from mlx_ssd.export import adapter, bits, exporting
from mlx_ssd.export import mlx as mlx_target
from mlx_ssd.export.source import source_of
from mlx_ssd.storage import hash_path, run_lock
from tests import faults
from tests.export import damage
from tests.export.conftest import invoke

pytestmark = pytest.mark.usefixtures("here")


def refused(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2 and result.stdout == "", result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("mlx-ssd: ")]
    return line


def entries(run):
    """What stands in the export folder, hidden things too, but for the reference's logits."""
    return sorted(path.name for path in (run / "export").iterdir() if path.name not in (".reference", "swift"))


class TestRefusals:
    def test_of_arguments(self, run_dir):
        run = run_dir()
        before = hash_path(run)
        assert f"--target nose: there is {', '.join(export.TARGETS)}, preset" in refused(run, "--target", "nose")
        said = refused(run, "--target", "mlx", "--precision", "3bit")
        assert "--precision 3bit: --target mlx has base, fitted, 8bit, 4bit, bfloat16" in said
        assert "--arm tutor" in refused(run, "--target", "adapter", "--arm", "tutor")
        assert "give --target NAME, once or more, or --all" in refused(run)
        assert "give --target NAME, once or more, or --all" in refused(run, "--all", "--target", "mlx")
        assert "--precision belongs to one --target" in refused(run, "--all", "--precision", "8bit")
        assert "leave out --check to write it" in refused(run, "--target", "adapter", "--check")
        assert hash_path(run) == before

    def test_no_run(self, tmp_path):
        assert "is not a run directory; it has no recipe.yaml" in refused(tmp_path / "none", "--target", "adapter")

    def test_nothing_trained(self, run_dir):
        run = run_dir()
        shutil.rmtree(run / "round-1")
        assert "has no trained adapter of student; run `mlx-ssd run" in refused(run, "--target", "adapter")

    def test_no_texts(self, run_dir):
        run = run_dir()
        shutil.rmtree(run / "eval")
        result = invoke(run, "--target", "adapter")
        assert result.exit_code == 1 and "holds no completions to measure an export on" in result.stderr

    def test_missing_packages(self, run_dir, monkeypatch):
        monkeypatch.setattr(adapter, "PACKAGES", ("no_such_package",))
        monkeypatch.setattr(adapter, "EXTRA", "parity")
        said = refused(run_dir(), "--target", "adapter")
        assert "--target adapter needs no_such_package: pip install -e '.[parity]'" in said

    @pytest.mark.parametrize("target", ["adapter", "peft"])
    def test_full_fine_tuning_has_no_adapter(self, target, run_dir):
        assert "trained in full and has no adapter" in refused(run_dir(method="full"), "--target", target)

    @pytest.mark.parametrize("target", ["peft", "hf", "gguf"])
    def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(self, target, run_dir, monkeypatch):
        module = export.find(target)
        pytest.importorskip(module.PACKAGES[-1])
        run = run_dir()
        monkeypatch.setattr(machine.memory, "limit_bytes", lambda: 4 * 10**9)
        monkeypatch.setattr(module, "write", lambda *_: pytest.fail("it was begun"))
        said = "0.0 billion parameters take about 4 GB of memory to verify in float32; there are 4 GB here; do it on a"
        said = f"--target {target}: {said} larger machine, or take --target adapter"
        assert said in refused(run, "--target", "adapter", "--target", target)
        with pytest.raises(BadInput, match="larger machine"):  # in the child, too
            process.make(source_of(run), target, module.PRECISIONS[0])
        assert entries(run) == []
        wanted, notes = exporting.all_targets(run, "student")
        assert (target, None) not in wanted and ("adapter", None) in wanted
        assert any(note.startswith(said) for note in notes)

    def test_all_is_asked_before_anything_is_written(self, run_dir):
        run = run_dir()
        assert "there is adapter" in refused(run, "--target", "adapter", "--target", "nose")
        assert entries(run) == []

    def test_a_run_in_use(self, run_dir):
        run = run_dir()
        with run_lock(run):
            assert "is in use by process" in refused(run, "--target", "adapter")
        assert entries(run) == []


class TestWhatIsThere:
    def test_is_kept_unless_forced(self, run_dir):
        run = run_dir.exported("adapter")
        damage.settings(run / "export/adapter/adapter_config.json", lambda c: c.update(num_layers=1))
        before = hash_path(run / "export/adapter")
        said = refused(run, "--target", "adapter")
        assert "exists; give --force to replace it, or --check to verify it as it is" in said
        assert hash_path(run / "export/adapter") == before
        assert invoke(run, "--target", "adapter", "--force").exit_code == 0
        assert json.loads((run / "export/adapter/adapter_config.json").read_text())["num_layers"] == 4
        assert entries(run) == ["adapter"]

    def test_check_writes_nothing(self, run_dir):
        run = run_dir.exported("adapter")
        before = hash_path(run)
        assert invoke(run, "--target", "adapter", "--check").exit_code == 0
        assert hash_path(run) == before

    def test_a_failing_export_leaves_what_was_there(self, run_dir, monkeypatch):
        run = run_dir.exported("adapter")
        before = hash_path(run / "export/adapter")
        monkeypatch.setattr(adapter, "explicit", lambda *_: {**_[0], "num_layers": 2})
        result = invoke(run, "--target", "adapter", "--force")
        assert result.exit_code == 1 and "adapter was not exported: cannot load" in result.stderr
        assert hash_path(run / "export/adapter") == before
        assert entries(run) == ["adapter", "adapter.failed.json"]

    def test_arms_have_folders_of_their_own(self, run_dir):
        run = run_dir()
        recipe = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(recipe.replace("arms: []", "arms: [{name: other, set: {train.rank: 4}}]"))
        shutil.copytree(run / "round-1/adapter", run / "round-1/arms/other/adapter")
        shutil.copytree(run / "eval/student", run / "eval/other")
        result = invoke(run, "--target", "adapter", "--arm", "other", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["name"] == "run-other"
        assert entries(run) == ["arms"] and (run / "export/arms/other/adapter/verify.json").exists()


class TestWhatIsSaid:
    def test_json_has_one_object_a_target(self, run_dir):
        run = run_dir(bits=8)
        result = invoke(run, "--target", "adapter", "--target", "mlx", "--json")
        assert result.exit_code == 0, result.output
        objects = [json.loads(line) for line in result.stdout.splitlines()]
        assert [facts["target"] for facts in objects] == ["adapter", "mlx"] and entries(run) == ["adapter", "mlx"]
        for facts in objects:
            assert json.loads((run / "export" / facts["target"] / "verify.json").read_text()) == facts
            assert facts["verdict"] == "pass" and facts["failures"] == [] and facts["v"] == 1
            found = {p.name: p.stat().st_size for p in (run / "export" / facts["target"]).iterdir()}
            del found["verify.json"], found["README.md"]
            assert facts["bytes"] == found

    def test_where_it_is(self, run_dir):
        run = run_dir()
        assert invoke(run, "--target", "mlx", "--precision", "8bit").stdout.endswith(f"; in {run}/export/mlx-8bit\n")

    def test_all_goes_on_with_what_is_missing(self, run_dir, monkeypatch):
        monkeypatch.setattr(export, "TARGETS", {name: export.TARGETS[name] for name in ("adapter", "mlx")})
        run = run_dir.exported("adapter")
        before = hash_path(run / "export/adapter")
        result = invoke(run, "--all")
        assert result.exit_code == 0 and f"note: {run}/export/adapter is there already; --force" in result.stderr
        assert hash_path(run / "export/adapter") == before and entries(run) == ["adapter", "mlx"]
        assert len(invoke(run, "--all", "--check").stdout.splitlines()) == 2
        assert len(invoke(run, "--all", "--force").stdout.splitlines()) == 2

    def test_all_tells_what_is_left_out(self, run_dir, monkeypatch):
        from mlx_ssd.export import hf

        monkeypatch.setattr(export, "TARGETS", {name: export.TARGETS[name] for name in ("adapter", "hf", "mlx")})
        monkeypatch.setattr(hf, "PACKAGES", ("no_such_package",))
        result = invoke(run_dir(method="full"), "--all")
        assert result.exit_code == 0, result.output
        assert "note: --target adapter: the student was trained in full" in result.stderr
        assert "note: --target hf needs no_such_package" in result.stderr
        assert result.stdout.startswith("mlx base: pass, ") and len(result.stdout.splitlines()) == 1


class TestFailures:
    def test_a_lost_update_is_said_with_numbers_and_ways_out(self, run_dir, monkeypatch):
        monkeypatch.setattr(bits, "quantizer_of", lambda bits: "plain")
        run = run_dir(bits=4, update=0.02)
        result = invoke(run, "--target", "mlx", "--json")
        assert result.exit_code == 1 and result.stdout == "", result.output
        assert entries(run) == ["mlx.failed.json"]
        facts = json.loads((run / "export/mlx.failed.json").read_text())
        kept = facts["kept"]
        assert facts["verdict"] == "fail" and kept["kl_exported"] > 0.5 * kept["kl_base"] > 0
        assert facts["conversion"]["max_abs"] <= 1e-3, "the conversion is right: it is the bits that are too few"
        assert len(kept["layers"]) == 4
        for words in ("update did not survive", f"{kept['kl_exported']:.3g} nats", f"{kept['kl_base']:.3g};"):
            assert words in result.stderr
        for words in ("% of it is left in the layers", "--target adapter", "--precision", "mlx.failed.json"):
            assert words in result.stderr
        assert invoke(run, "--target", "mlx", "--precision", "8bit").exit_code == 0
        assert entries(run) == ["mlx-8bit", "mlx.failed.json"]

    def test_success_takes_the_old_failure_away(self, run_dir):
        run = run_dir()
        (run / "export/adapter.failed.json").write_text("{}")
        assert invoke(run, "--target", "adapter").exit_code == 0
        assert entries(run) == ["adapter"]

    def test_the_others_are_tried_all_the_same(self, run_dir, monkeypatch):
        monkeypatch.setattr(adapter, "explicit", lambda *_: {**_[0], "num_layers": 2})
        run = run_dir()
        result = invoke(run, "--target", "adapter", "--target", "mlx")
        assert result.exit_code == 1 and "1 of 2 exports failed, see above" in result.stderr
        assert entries(run) == ["adapter.failed.json", "mlx"]

    def test_interrupted(self, run_dir, monkeypatch):
        run = run_dir()

        def write(source, folder, precision, report):
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

        monkeypatch.setattr(mlx_target, "write", write)
        result = invoke(run, "--target", "mlx")
        assert result.exit_code == 130 and "nothing half-written is left" in result.stderr
        assert entries(run) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from mlx_ssd.child import exit_code
from mlx_ssd.export.__main__ import make
from mlx_ssd.export.source import source_of
source = source_of(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(exit_code(lambda: make(source, sys.argv[2], sys.argv[3])))
"""


@pytest.mark.parametrize("target, precision", [("adapter", "float32"), ("mlx", "base")])
def test_a_full_disk_leaves_nothing(target, precision, run_dir):
    run = run_dir()
    command = [faults.COMMAND[0], "-c", FULL_DISK, str(run), target, precision]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=faults.environment("open"))
    assert process.returncode == 2 and "no space left to write" in process.stderr, process.stderr
    assert "Traceback" not in process.stderr and entries(run) == []


def test_in_processes_of_their_own(run_dir):
    run = run_dir()
    done = faults.run("export", str(run), "--target", "adapter", "--json", env=faults.environment("open"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass" and entries(run) == ["adapter"]


def test_ctrl_c_while_it_writes(run_dir):
    run = run_dir()
    command = [*faults.COMMAND, "export", str(run), "--target", "mlx", "--precision", "8bit"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a module of ours ignores it, and that is inherited
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=faults.environment("open"))
    deadline = time.monotonic() + faults.TIMEOUT
    while not (run / "export/.mlx-8bit.partial").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in said, said
    # None, or where the signal came as the last file was there, the whole.
    assert entries(run) in ([], ["mlx-8bit"])
    assert not entries(run) or invoke(run, "--target", "mlx", "--precision", "8bit", "--check").exit_code == 0
    assert invoke(run, "--target", "adapter").exit_code == 0, "the lock is free again"
