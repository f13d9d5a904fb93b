"""A user's own prompts without tests: from samples to an adapter, and a report that says what it cannot measure."""

import json

import mlx_lm
import pytest

from mlx_ssd import assets
from mlx_ssd.layout import RunFiles
from tests import faults

PROMPTS = [
    "Write a function that adds two numbers.",
    "Given a list of integers xs, return the sum of the squares.\n\ndef solve(xs):",
    "Count the words of a text s.\n\ndef solve(s):",
    "Given a list of integers xs. Keep those that are odd, and return the largest.\n\ndef solve(xs):",
    "What is the third digit of n?",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    process = faults.run(
        "run", "quickstart", "--out", str(folder / "run"),
        "--set", f"problems={{train: {{source: jsonl, path: {file}}}, test: {{source: jsonl, path: {file}}}}}",
        "--set", "evaluate.curve=null",
        "--set", "arms=[]",
        "--set", "evaluate.samples_per_problem=2",
        "--set", "evaluate.pass_at=[1]",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return RunFiles(folder / "run"), process


def test_every_prompt_was_sampled_and_trained_on(run):
    files, _ = run
    prompts = [json.loads(line)["prompt"] for line in files.problems.read_text().splitlines()]
    assert prompts == PROMPTS
    assert len(files.samples.read_text().splitlines()) == len(PROMPTS)
    model, _ = mlx_lm.load(str(assets.model_path()), adapter_path=str(files.adapter))
    assert any("lora_a" in module for _, module in model.named_modules())


def test_nothing_was_graded_and_nothing_is_claimed(run):
    files, process = run
    report = json.loads(files.report_json.read_text())
    for score in report["scores"]:
        assert score["pass_at"] == {} and score["graded_problems"] == 0
        assert set(score["verdicts"]) <= {"ungraded", "no_code"}
        assert score["completion_tokens"] > 0
    assert report["verdict"] == []
    assert report["not_measured"][0].startswith("Whether answers are right: the test problems have no tests.")
    for text in (process.stdout, files.report_md.read_text()):
        assert "the test problems have no tests" in text
        assert "5 of the 5 test problems were prompts that student was trained on" in text
        assert "pass@" not in text
