"""The recipes as files: each plans offline, says what it needs, and names the paper's value where it differs."""

import json
import os
import re

import pytest
import yaml
from click.testing import CliRunner

from mlx_ssd import models, planning, recipe
from mlx_ssd.budget import KNOWN_CONFIGS, ChipSpeed, ModelSize, chip_of
from mlx_ssd.budget.training import resident_bytes, step_bytes
from mlx_ssd.cli import main
from mlx_ssd.layout import RunFiles
from mlx_ssd.planning import mends, plan
from mlx_ssd.recipe import Recipe
from tests import faults

PAPERS = tuple(name for name in recipe.names() if name.startswith("paper-"))
NIGHTS = tuple(name for name in recipe.names() if name.startswith("mac-") and name != "mac-4b-check")
LARGE = (*NIGHTS, *PAPERS, "own-code")


def test_every_model_of_the_paper_has_both():
    models = {"4b-instruct", "4b-thinking", "30b-instruct", "30b-thinking", "llama-8b", "gpt-oss-20b"}
    assert {name.removeprefix("paper-") for name in PAPERS} == {name.removeprefix("mac-") for name in NIGHTS} == models
    assert len(recipe.names()) >= 14


@pytest.mark.parametrize("name", recipe.names())
def test_plans_without_the_hub(name, monkeypatch):
    """Or says in a sentence that no Mac has the memory: all weights of 30 billion in float32."""
    monkeypatch.setattr(models, "_snapshot", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.setattr(models, "cached_config", lambda *_: None)
    result = CliRunner().invoke(main, ["plan", name, "--memory-gb", "512", "--chip", "M3 Ultra", "--json"])
    if name in ("paper-30b-instruct", "paper-30b-thinking"):
        assert result.exit_code == 2 and "takes 666 GB (computed), and 371 GB may be used" in result.output
    else:
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[-1])["stages"]["train"]["bytes"]["activations"] > 0


@pytest.mark.parametrize("name", NIGHTS)
def test_sizes_in_the_header_are_the_plans(name):
    """The Mac that it fits as it is, and the number of prompts of a night, where it says of which."""
    loaded, head = Recipe.load(name), header(name)
    config = KNOWN_CONFIGS[loaded.model.path]
    assert int(re.search(r"fits (\d+) GB as it is", head)[1]) == mends.least_mac(loaded, config, {"chip": "Apple"})
    assert f"Downloads {ModelSize.of(config).weight_bytes / 1e9:.1f} GB" in head
    if night := re.search(r'--memory-gb (\d+) --chip "(.*?)" --hours 8', head):
        machine = plan.injected(float(night[1]), night[2])
        sized = planning.sized(loaded, config, machine, ChipSpeed(chip_of(machine)), 8)
        assert sized.problems.train.limit == loaded.problems.train.limit
        for section in ("sample", "evaluate"):  # nothing had to be made shorter
            assert getattr(sized, section).max_tokens == getattr(loaded, section).max_tokens


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


@pytest.mark.parametrize("name", LARGE)
def test_large_models_say_hours_and_peak_and_how_these_are_known(name):
    head = header(name)
    assert re.search(r"^# Hours +\S", head, re.M) and re.search(r"^# Peak GB +\S", head, re.M)
    assert re.search(r"computed", head, re.I)


# Tables 3 and 4 of the paper: sampling, evaluation and the base's own; (temperature, top-k, top-p), 0 for no top-k.
DECODING = {
    "4b-instruct": ((1.6, 20, 0.8), (1.1, 20, 0.8), (0.7, 20, 0.8)),
    "4b-thinking": ((1.1, 20, 0.95), (0.7, 20, 0.95), (0.6, 20, 0.95)),
    "30b-instruct": ((1.6, 20, 0.8), (0.9, 20, 0.8), (0.7, 20, 0.8)),
    "30b-thinking": ((1.2, 20, 0.95), (0.7, 20, 0.95), (0.6, 20, 0.95)),
    "llama-8b": ((0.8, 20, 0.8), (0.7, 20, 0.8), (0.9, 0, 0.8)),
    "gpt-oss-20b": ((1.2, 0, 1.0), (1.0, 20, 0.95), (1.0, 0, 1.0)),
}
THINKING = ("4b-thinking", "30b-thinking", "gpt-oss-20b")  # trained for 300 steps (gpt-oss: not stated)


def model_of(name: str) -> str:
    return "4b-instruct" if name == "own-code" else name.partition("-")[2]


@pytest.mark.parametrize("name", LARGE)
def test_decoding_is_the_papers(name):
    loaded = Recipe.load(name)
    found = (loaded.sample.decoding, loaded.evaluate.decoding, loaded.evaluate.base_best)
    assert tuple((d.temperature, d.top_k, d.top_p) for d in found) == DECODING[model_of(name)]
    assert all(d.order == "temperature_first" for d in found)


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
STATED_THINKING = STATED | {"train.warmup_fraction": 50 / 300, "train.steps": 300, "train.checkpoint_every_steps": 50}


def stated(name: str) -> dict:
    return STATED_THINKING if model_of(name) in THINKING else STATED


# Of which the paper has no such thing (it trains all weights) or says nothing.
OTHERS = (
    "model.path", "train.rank", "train.num_layers", "problems.test", "problems.train", "problems.train.limit",
)  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_every_deviation_stands_beside_its_value(name):
    text = recipe.find(name).read_text()
    loaded = Recipe.load(name).model_dump(mode="json")
    for key, line in leaves(yaml.compose(text)).items():
        written, value = text.splitlines()[line], loaded
        for part in key.split("."):
            value = value[part]
        numbers = stated(name)
        if key in numbers and not same(value, numbers[key]) or key in OTHERS and name not in PAPERS:
            assert re.search(r"# .*\bpaper\b", written), f"{name}: {written}"


def same(value, number) -> bool:
    return value == pytest.approx(number, rel=1e-3) if isinstance(number, float) else value == number


@pytest.mark.parametrize("name", PAPERS)
def test_papers_recipe_holds_the_papers_numbers(name):
    loaded = Recipe.load(name).model_dump(mode="json")
    for key, value in stated(name).items():
        section, field = key.split(".")
        if name == "paper-gpt-oss-20b" and key in ("train.method", "train.learning_rate"):
            continue  # what cannot be trained whole; the next test
        assert same(loaded[section][field], value), key
    if name == "paper-gpt-oss-20b":
        return
    peak, end = 5e-6, 1e-6
    assert loaded["train"]["learning_rate"] * loaded["train"]["final_fraction"] == pytest.approx(end)
    assert peak == loaded["train"]["learning_rate"]
    written = recipe.find(name).read_text()
    assert written.count("stop_loops: null") == 2  # not by a default that may change
    head = header(name)
    assert "cannot do" in head and "cluster" in head


def test_experts_in_mxfp4_are_not_trained_whole():
    loaded, head = Recipe.load("paper-gpt-oss-20b"), header("paper-gpt-oss-20b")
    assert loaded.train.method == "lora" and loaded.train.experts and "--dequantize" in head


@pytest.mark.parametrize("name", PAPERS)
def test_gigabytes_in_the_headers_of_the_papers_recipes(name):
    loaded, head = Recipe.load(name), header(name)
    size = ModelSize.of(KNOWN_CONFIGS[loaded.model.path])
    always = resident_bytes(size, loaded.train, size.weight_bytes)
    step = step_bytes(size, loaded.train, 65_536, 65_536, True)
    assert f"Here {always / 1e9:.0f} for weights" in head and f"and {step / 1e9:.0f} more to train" in head
    kept = 65_536 * size.kv_bytes + size.window_bytes
    assert f"in sampling {kept / 1e9:.1f} of" in " ".join(head.replace("#", "").split())


@pytest.mark.parametrize("name", LARGE)
def test_models_and_data_are_pinned(name):
    loaded = Recipe.load(name)
    if name == "mac-30b-thinking":  # no commit was found, and the recipe says so
        assert loaded.model.revision is None
        assert "no commit was found" in recipe.find(name).read_text()
    else:
        assert re.fullmatch("[0-9a-f]{40}", loaded.model.revision)
    if loaded.problems.train.source == "rstar_coder":
        assert re.fullmatch("[0-9a-f]{40}", loaded.problems.train.revision)


@pytest.mark.parametrize("name", NIGHTS)
def test_says_that_the_test_problems_cannot_show_a_gain(name):
    assert Recipe.load(name).problems.test.source == "embedded"
    assert "LiveCodeBench itself" in header(name) and "ceiling" in header(name)


def test_thinking_is_on_where_the_model_thinks():
    thinks = {name: Recipe.load(name).prompt for name in recipe.names()}
    assert {name for name, prompt in thinks.items() if prompt.enable_thinking} == {
        f"{kind}-{size}-thinking" for kind in ("mac", "paper") for size in ("4b", "30b")
    }
    efforts = {name: prompt.reasoning_effort for name, prompt in thinks.items() if prompt.reasoning_effort}
    assert efforts == {"paper-gpt-oss-20b": "high", "mac-gpt-oss-20b": "medium"}


@pytest.mark.parametrize("name", LARGE)
def test_longest_answer_fits_into_a_training_row(name):
    loaded = Recipe.load(name)
    room = 0 if name in PAPERS else 1000  # of the prompt; the paper gives one number for both
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
