"""`mlx-ssd bench` as it is called."""

import json
import signal
import subprocess
import time

from click.testing import CliRunner

from mlx_ssd.bench import benching
from mlx_ssd.cli import main
from mlx_ssd.errors import WorkFailed
from tests import faults
from tests.bench.test_rows import row

SHORT = ("-p", "8", "-n", "4", "-r", "2")
RATE = {"bytes_per_second": 1e9, "source": "chip table"}


def bench(*arguments):
    return CliRunner().invoke(main, ["bench", *arguments])


def test_a_run_gives_a_row_a_way_and_the_ratios(run, tmp_path):
    out, plot = tmp_path / "rows" / "b.jsonl", tmp_path / "b.svg"
    found = bench(str(run), *SHORT, "--compare", "--adapter", "off,on", "--out", str(out), "--plot", str(plot))
    assert found.exit_code == 0, found.output
    off, on, comparison = map(json.loads, out.read_text().splitlines())
    assert (off["adapter"], on["adapter"]) == ("off", "on") and on["parameters"] > off["parameters"]
    assert off["bandwidth"]["source"] in ("measured copy", "chip table") and off["roofline_share"] > 0
    assert comparison["rounds"] == 2 and comparison["ratios"]["decode_tps"]["low"] > 0
    assert "pp8+tg4" in found.output and "Ratios to embedded, 32 bit, adapter off" in found.output
    assert plot.read_text().startswith("<svg")


def test_one_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def measure(configurations, *_):
        if configurations[0].load.batch == 1:
            raise WorkFailed("the first one died")
        yield row(batch=2)

    monkeypatch.setattr(benching, "measure", measure)
    monkeypatch.setattr(benching, "rate_of", lambda configuration: RATE)
    found = bench("embedded", "-b", "1,2", "--out", str(tmp_path / "b.jsonl"))
    assert found.exit_code == 1 and "the first one died" in found.output
    assert [json.loads(line)["batch"] for line in (tmp_path / "b.jsonl").read_text().splitlines()] == [2]
    assert "| " not in found.output and "40.0 ± 2.0" in found.output


def test_interrupted_it_leaves_what_is_finished(tmp_path):
    out = tmp_path / "b.jsonl"
    lengths = "4,8,12,16,20,24,28,32"
    command = [*faults.COMMAND, "bench", "embedded", "-p", "8", "-n", lengths, "-r", "1", "--out", str(out)]
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in what a shell starts with &
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, ignored)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = _children(process.pid)  # the first one's process may still be ending
    while not set(_children(process.pid)) - set(begun) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == 130 and "the rows that were finished are kept" in complaint
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert 1 <= len(rows) < 8 and rows[0]["generated_tokens"] == 4
    assert said.count("pp8+tg") == len(rows)
    assert not _children(process.pid)


def _children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def test_what_makes_no_sense_is_one_sentence(run, tmp_path):
    for arguments, says in (
        (("embedded", "--compare"), "--compare: give two configurations"),
        (("embedded", "-p", "x"), "give whole numbers"),
        (("embedded", "--adapter", "half"), "give some of off, on, fused"),
        (("embedded", "--bits", "5,9"), "--bits 9"),
        ((str(tmp_path / "gone" / "model"),), "no folder"),
        (("runs/gone",), "runs/gone does not exist; give a run directory"),
        ((str(run), "--arm", "nobody"), "--arm nobody"),
    ):
        found = bench(*arguments)
        assert found.exit_code == 2 and says in found.output, found.output
        assert "Traceback" not in found.output
