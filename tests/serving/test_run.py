"""A run whose samples a server draws, by the command line: what the manifest, the samples and the report say of it."""

import json

import yaml
from click.testing import CliRunner

from benchmarks.faulty_server import Canned, FaultyServer
from mlx_ssd.cli import main
from mlx_ssd.records import Sample
from mlx_ssd.report.facts import drawn_elsewhere
from mlx_ssd.sampling.server.client import KEY
from mlx_ssd.storage import Journal


def mlx_ssd(*arguments):
    return CliRunner().invoke(main, arguments)


def test_the_sample_stage_asks_the_server_and_keeps_the_key_to_itself(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "sesame-7")
    run = tmp_path / "run"
    changes = {"engine": "server", "server.tolerance": "null", "max_tokens": "64"}
    with FaultyServer(Canned(2), 0.2, ("500", "closed", "truncated"), seed=1) as server:
        options = [f"--set=sample.{key}={value}" for key, value in (changes | {"server.url": server.url}).items()]
        limits = ["--set=problems.train.limit=12", "--set=train.keys=[no_such_module]"]  # ends after the samples
        mlx_ssd("run", "quickstart", "--out", str(run), *options, *limits)
        assert {headers.get("Authorization") for _, headers, _ in server.seen} == {"Bearer sesame-7"}
    sampled = json.loads((run / "manifest.json").read_text())["stages"]["sample"]
    assert sampled["complete"] and sampled["measured"]["server"]["version"] == "0.11.0"
    assert sum(sampled["measured"]["server"]["faults"].values()) == sum(server.faults.values()) > 0
    drawn = Journal(run / "round-1" / "samples.jsonl", Sample).read()
    assert len({sample.key for sample in drawn}) == len(drawn) == 12
    assert {sample.drawn_by for sample in drawn} == {"vllm 0.11.0"}
    assert not [path for path in run.rglob("*") if path.is_file() and b"sesame-7" in path.read_bytes()]
    assert yaml.safe_load((run / "recipe.yaml").read_text())["sample"]["server"]["url"] == server.url


def test_the_report_warns_of_samples_that_a_server_drew():
    good = {"kind": "vllm", "version": "0.11.0", "token_ids": "given", "checked": {"tokens": 128}}
    bad = good | {"version": None, "token_ids": "RE-TOKENIZED …", "checked": {"model": "not looked at"}}
    said = drawn_elsewhere({"sample": {"server": good}, "sample.b": {"server": bad}, "train": {"seconds": 1}})
    assert said == [
        "sample: drawn by a server (vllm 0.11.0), whose draws are its own.",
        "sample.b: drawn by a server (vllm), whose draws are its own; RE-TOKENIZED from its text, so not surely the "
        "tokens that it drew; its model was not compared with this one.",
    ]
