"""The recipes as files: each plans offline, says what it needs, and names the paper's value where it differs."""

import json
import os
import re

import pytest
import yaml

from mlx_ssd import recipe
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from tests import faults

QWEN = ("qwen3-4b-instruct", "qwen3-4b-thinking", "own-code")
FOUR_B = (*QWEN, "paper-4b-instruct")


@pytest.mark.parametrize("name", recipe.names())
def test_dry_run_needs_no_network_and_writes_nothing(name, tmp_path):
    # Offline and with an empty cache: a download, or a model that is looked for, would be an error.
    offline = faults.environment() | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    process = faults.run("run", name, "--dry-run", "--out", str(tmp_path / "run"), env=offline)
    assert process.returncode == 0, process.stderr
    assert f"name: {name}\n" in process.stdout and "# sample: start" in process.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", recipe.names())
def test_opens_with_what_it_is_for_and_what_it_needs(name):
    head = header(name)
    for word in ("Purpose", "Hardware", "Expect"):
        assert re.search(rf"^# {word} +\S", head, re.M), word
    assert re.search(r"\d+ (hours|minutes)|hours unknown|Hours +\S", head)
    assert re.search(r"\d GB|Peak GB +\S", head)


@pytest.mark.parametrize("name", FOUR_B)
def test_large_models_say_hours_and_peak_and_how_these_are_known(name):
    head = header(name)
    assert re.search(r"^# Hours +\S", head, re.M) and re.search(r"^# Peak GB +\S", head, re.M)
    assert re.search(r"computed", head, re.I)


PAPER = {
    "sample.decoding": {
        "qwen3-4b-instruct": (1.6, 20, 0.8), "qwen3-4b-thinking": (1.1, 20, 0.95),
        "paper-4b-instruct": (1.6, 20, 0.8), "own-code": (1.6, 20, 0.8),
    },
    "evaluate.decoding": {
        "qwen3-4b-instruct": (1.1, 20, 0.8), "qwen3-4b-thinking": (0.7, 20, 0.95),
        "paper-4b-instruct": (1.1, 20, 0.8), "own-code": (1.1, 20, 0.8),
    },
    "evaluate.base_best": {
        "qwen3-4b-instruct": (0.7, 20, 0.8), "qwen3-4b-thinking": (0.6, 20, 0.95),
        "paper-4b-instruct": (0.7, 20, 0.8), "own-code": (0.7, 20, 0.8),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FOUR_B)
def test_decoding_is_the_papers(name):
    """Tables 3 and 4 of the paper."""
    loaded = Recipe.load(name)
    for key, values in PAPER.items():
        section, field = key.split(".")
        decoding = getattr(getattr(loaded, section), field)
        assert (decoding.temperature, decoding.top_k, decoding.top_p) == values[name], key
        assert decoding.order == "temperature_first"


# What the paper states for its Instruct recipe, None for what it does not mention; a recipe that sets anything else
# says so on the same line.
STATED = {
    "sample.samples_per_problem": 1, "sample.max_tokens": 65536, "sample.stop_loops": None,
    "curate.drop_empty": True, "curate.drop_stubs": True, "curate.unfinished": "keep",
    "train.targets": "tokens", "train.learning_rate": 5e-6, "train.final_fraction": 0.2, "train.warmup_fraction": 0.1,
    "train.method": "full", "train.betas": [0.9, 0.95], "train.weight_decay": 0.1, "train.steps": 2500,
    "train.rows_per_step": 32,
    "train.max_length": 65536, "train.checkpoint_every_steps": 250,
    "evaluate.samples_per_problem": 10, "evaluate.pass_at": [1, 5], "evaluate.max_tokens": 65536,
    "evaluate.stop_loops": None,
}  # fmt: skip
# Of which the paper has no such thing (it trains all weights) or says nothing.
OTHERS = (
    "model.path", "train.rank", "train.num_layers", "problems.test", "problems.train", "problems.train.limit",
)  # fmt: skip


@pytest.mark.parametrize("name", FOUR_B)
def test_every_deviation_stands_beside_its_value(name):
    text = recipe.find(name).read_text()
    loaded = Recipe.load(name).model_dump(mode="json")
    for key, line in leaves(yaml.compose(text)).items():
        written, value = text.splitlines()[line], loaded
        for part in key.split("."):
            value = value[part]
        if key in STATED and value != STATED[key] or key in OTHERS and name != "paper-4b-instruct":
            assert re.search(r"# .*\bpaper\b", written), f"{name}: {written}"


def test_papers_recipe_holds_the_papers_numbers():
    loaded = Recipe.load("paper-4b-instruct").model_dump(mode="json")
    for key, value in STATED.items():
        section, field = key.split(".")
        assert loaded[section][field] == value, key
    peak, end = 5e-6, 1e-6
    assert loaded["train"]["learning_rate"] * loaded["train"]["final_fraction"] == pytest.approx(end)
    assert peak == loaded["train"]["learning_rate"]
    written = recipe.find("paper-4b-instruct").read_text()
    assert written.count("stop_loops: null") == 2  # not by a default that may change
    head = header("paper-4b-instruct")
    assert "cannot do" in head and "cluster" in head


@pytest.mark.parametrize("name", FOUR_B)
def test_models_and_data_are_pinned(name):
    loaded = Recipe.load(name)
    assert re.fullmatch("[0-9a-f]{40}", loaded.model.revision)
    if loaded.problems.train.source == "rstar_coder":
        assert re.fullmatch("[0-9a-f]{40}", loaded.problems.train.revision)


@pytest.mark.parametrize("name", ("qwen3-4b-instruct", "qwen3-4b-thinking"))
def test_says_that_the_test_problems_cannot_show_a_gain(name):
    assert Recipe.load(name).problems.test.source == "embedded"
    assert "LiveCodeBench itself" in header(name) and "ceiling" in header(name)


def test_thinking_is_on_where_the_model_thinks():
    assert [name for name in recipe.names() if Recipe.load(name).prompt.enable_thinking] == ["qwen3-4b-thinking"]


@pytest.mark.parametrize("name", FOUR_B)
def test_longest_answer_fits_into_a_training_row(name):
    loaded = Recipe.load(name)
    room = 0 if name == "paper-4b-instruct" else 1000  # of the prompt; the paper gives one number for both
    assert loaded.train.max_length >= loaded.sample.max_tokens + room


@pytest.mark.slow
def test_five_prompts_without_tests_go_from_sample_to_adapter(tmp_path):
    asked = (
        "Add two numbers.",
        "Reverse a list xs.",
        "Given n, return n squared.",
        "Count the words of s.",
        "Sort xs.",
    )
    prompts, held_out = tmp_path / "prompts.jsonl", tmp_path / "held-out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
    held_out.write_text("".join(json.dumps({"prompt": f"{text} In Python."}) + "\n" for text in asked[:2]))
    settings = {
        "problems.train.path": prompts, "problems.test.path": held_out, "model.revision": "null",
        "sample.max_tokens": 24, "curate.drop_stubs": "false",
        "evaluate.max_tokens": 24, "evaluate.samples_per_problem": 2, "evaluate.pass_at": "[1, 2]",
    }  # fmt: skip
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    process = faults.run("run", "own-code", "--model", "embedded", "--out", str(tmp_path / "run"), *arguments)
    assert process.returncode == 0, process.stderr
    files = RunFiles(tmp_path / "run")
    assert (files.adapter / "adapters.safetensors").is_file()
    report = json.loads(files.report_json.read_text())
    assert report["arms"][0]["curation"]["kept"] == len(asked)
    for said in (process.stdout, files.report_md.read_text()):
        assert "Whether answers are right: the test problems have no tests" in " ".join(said.split())
        assert "pass@" not in said


def header(name: str) -> str:
    text = recipe.find(name).read_text()
    return text[: text.index("\nname:")]


def leaves(node: yaml.Node, prefix: str = "") -> dict[str, int]:
    """Each setting of the file with its line; a mapping within one line is one setting."""
    found = {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            found |= leaves(value, f"{name}.")
        else:
            found[name] = key.start_mark.line
    return found
