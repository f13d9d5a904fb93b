"""Planted defects: `mlx-ssd export RUN --target T --check` finds each, and finds none in what is whole."""

import pytest

from tests.export import damage
from tests.export.conftest import invoke


def adapter_scale(folder):
    damage.settings(folder / "adapter_config.json", lambda c: c["lora_parameters"].update(scale=2.5))


def alpha(folder):
    damage.settings(folder / "adapter_config.json", lambda c: c.update(lora_alpha=10))


def fewer_layers(folder):
    damage.settings(folder / "adapter_config.json", lambda c: c.update(num_layers=3))


def fewer_modules(folder):
    damage.settings(folder / "adapter_config.json", lambda c: c["target_modules"].remove("down_proj"))


def no(name):
    def remove(folder):
        (folder / name).unlink()

    return remove


def another_template(folder):
    damage.settings(folder / "tokenizer_config.json", lambda c: c.update(chat_template="{{ messages }}"))


def wrong_bits(folder):
    def change(config):
        config["quantization"]["bits"] = config["quantization_config"]["bits"] = 4

    damage.settings(folder / "config.json", change)


def another_rope(folder):
    def change(config):
        config["rope_theta"] = config["rope_parameters"]["rope_theta"] = 20_000.0

    damage.settings(folder / "config.json", change)


OFF, LOAD = "off; 0.001 are allowed", "cannot load"
COMMON = [(damage.corrupted, OFF), (damage.swapped, OFF), (damage.cut, LOAD), (damage.endless, "logits are up to inf")]
WHOLE = [
    (damage.scaled, OFF),
    (another_rope, OFF),
    (another_template, "tokenizer_config.json is not the base's"),
    (no("tokenizer.json"), "has no tokenizer.json, which the base has"),
    (no("tokenizer_config.json"), "has no tokenizer_config.json"),
    (no("generation_config.json"), "has no generation_config.json"),
    (no("config.json"), "has no config.json"),
    (no("model.safetensors"), "has no model*.safetensors"),
]
ADAPTER = [
    *COMMON,
    (adapter_scale, OFF),
    (fewer_layers, LOAD),
    (no("adapters.safetensors"), "has no adapters.safetensors"),
    (no("adapter_config.json"), "has no adapter_config.json"),
]
PEFT = [
    *COMMON,
    (alpha, OFF),
    (damage.missing, OFF),
    (fewer_modules, OFF),
    (no("adapter_model.safetensors"), "has no adapter_model.safetensors"),
]
HF = [*COMMON, *WHOLE, (damage.missing, "not the whole model that Transformers expects: model.layers.2.mlp.up_proj")]
MLX = [*COMMON, *WHOLE, (damage.missing, LOAD)]


def named(target, defects, **choices):
    precision = choices.pop("precision", None)
    for defect, words in defects:
        yield pytest.param(target, precision, choices, defect, words, id=f"{target}-{precision}-{words[:32]}")


@pytest.mark.parametrize(
    "target, precision, choices, defect, words",
    [
        *named("adapter", ADAPTER),
        *named("peft", PEFT),
        *named("hf", HF),
        *named("mlx", MLX),
        *named("mlx", [(damage.scaled, OFF), (wrong_bits, "says that model.")], bits=8),
    ],
)
def test_check_finds(target, precision, choices, defect, words, run_dir, here):
    run = run_dir.exported(target, precision, **choices)
    [folder] = (run / "export").glob(f"{target}*")
    defect(folder)
    result = invoke(run, "--target", target, "--check", *(["--precision", precision] if precision else []))
    assert result.exit_code == 1 and words in result.stderr, result.output
    assert f"{folder} does not hold" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize("target", ["adapter", "peft", "hf", "mlx"])
def test_check_finds_nothing_in_what_is_whole(target, run_dir, here):
    result = invoke(run_dir.exported(target), "--target", target, "--check")
    assert result.exit_code == 0 and f"{target} " in result.stdout and ": pass, " in result.stdout, result.output
