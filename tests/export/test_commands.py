"""What a card says to type prompts and decodes as the run did, read by mlx-lm's own program."""

import importlib
import json
import subprocess
from types import SimpleNamespace

import pytest

from mlx_ssd import assets, models
from mlx_ssd.export import card, commands, preset, swift
from mlx_ssd.export.source import source_of
from mlx_ssd.models import ModelSource
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from tests.families import TEMPLATE, family_folder

QUESTION = "Return the sum of xs."
ODD = "It's \"odd\": $HOME `ls` \\ {x}\n\n\tAnswer in `Python`; 100 % §\x07"


def recipe(**settings):
    return Recipe.parse("", "", {key.replace("__", "."): value for key, value in settings.items()})


def typed(command):
    """As bash hands it over."""
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return said.stdout.decode().split("\0")[:-1]


@pytest.fixture
def generated(monkeypatch):
    """What mlx_lm.generate makes of a command: prompt ids, tokens at most, and the sampler's settings."""
    program = importlib.import_module("mlx_lm.generate")

    def run(command, question=QUESTION):
        words = [word if word != commands.YOURS else question for word in typed(command)]
        found = SimpleNamespace()
        monkeypatch.setattr("sys.argv", words)

        def sampler(*given, **named):
            found.given, found.named = given, named

        def generate(model, tokenizer, ids, max_tokens, **_):
            found.ids, found.most = ids, max_tokens

        monkeypatch.setattr(program, "make_sampler", sampler)
        monkeypatch.setattr(program, "generate", generate)
        program.main()
        return found

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompt__enable_thinking": True},
        {"prompt__system": ODD, "evaluate__decoding": {"temperature": 0.65, "top_k": 0, "top_p": 0.95}},
        {"prompt__system": "", "evaluate__max_tokens": 77},
        {"prompt__format": "raw"},
    ],
)
def test_mlx_lm_is_given_the_prompt_and_the_decoding_of_the_run(settings, generated):
    wanted = recipe(**settings)
    found = generated(commands.mlx_lm(wanted, str(assets.model_path())))
    tokenizer = models.load_generating_tokenizer(ModelSource(assets.model_path(), ""))
    assert list(found.ids) == render(tokenizer, QUESTION, wanted.prompt)
    decoding = wanted.evaluate.decoding
    assert found.given[:2] == (decoding.temperature, decoding.top_p) and found.named["top_k"] == decoding.top_k
    assert found.most == wanted.evaluate.max_tokens


def test_thinking_and_effort_are_the_runs(tmp_path, generated):
    """mlx-lm has every model think that can; here one that can, in a run without."""
    folder = family_folder(tmp_path / "model", "gpt-oss")
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{{ '<think>' if enable_thinking }}")
    config = json.loads((folder / "tokenizer.json").read_text())
    last = config["added_tokens"][-1]
    config["added_tokens"] += [last | {"id": last["id"] + n, "content": f"<{'/' * (n - 1)}think>"} for n in (1, 2)]
    (folder / "tokenizer.json").write_text(json.dumps(config))
    tokenizer = models.load_generating_tokenizer(ModelSource(folder, ""))
    assert tokenizer.has_thinking
    for thinking in (False, True):
        wanted = recipe(prompt__enable_thinking=thinking, prompt__reasoning_effort="high")
        ids = list(generated(commands.mlx_lm(wanted, str(folder))).ids)
        said, ours = tokenizer.decode(ids), tokenizer.decode(render(tokenizer, QUESTION, wanted.prompt))
        assert said.split("\n", 1)[1] == ours.split("\n", 1)[1]  # but for the day
        assert said.endswith("<think>") == thinking and "Reasoning: high" in said


def test_everything_that_is_written_asks_alike(run_dir):
    source = source_of(run_dir())
    prompt = source.recipe.prompt.model_copy(update={"enable_thinking": True, "reasoning_effort": "low"})
    object.__setattr__(source, "recipe", source.recipe.model_copy(update={"prompt": prompt}))
    options = {"enable_thinking": True, "reasoning_effort": "low"}
    rule = preset.rule_of(source.files.directory)
    object.__setattr__(rule, "recipe", source.recipe)
    assert f"**{options!r})" in preset.sampler_text(rule)
    for name in ("adapter", "mlx", "coreml"):
        text = (swift.write(source, name, name) / "Sources/Student/Student.swift").read_text()
        assert 'additionalContext: ["enable_thinking": true, "reasoning_effort": "low"])' in text
    facts = {
        "bytes": {"model.gguf": 5}, "texts": {"count": 16, "from": "x"}, "checked_by": "y",
        "conversion": {"max_abs": 0.25, "kl_mean": 1e-5, "top1": 0.995}, "kept": {"kl_exported": 0, "kl_base": 1},
    }  # fmt: skip
    cards = {name: card.render(source, name, precision, facts) for name, precision in PRECISIONS.items()}
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": "..."}]
    for text in cards.values():
        line = next(line for line in text.splitlines() if line.startswith('    {"messages"'))
        assert json.loads(line) == {"messages": messages} | options
        assert f"at most {source.recipe.evaluate.max_tokens:,} tokens" in text
    assert f"    {commands.mlx_lm(source.recipe, 'embedded', 'adapter')}\n" in cards["adapter"]
    assert f"    {commands.mlx_lm(source.recipe, 'mlx')}\n" in cards["mlx"]
    assert f"    {commands.llama_cpp(source.recipe, 'gguf/model.gguf')}\n" in cards["gguf"]


PRECISIONS = {"adapter": "float32", "mlx": "base", "peft": "float32", "hf": "bfloat16", "gguf": "Q8_0"}


def test_llama_cpp():
    words = typed(commands.llama_cpp(recipe(prompt__system=ODD), "a.gguf"))
    assert words[:4] == ["llama-cli", "-m", "a.gguf", "--jinja"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given == {
        "--chat-template-kwargs": '{"enable_thinking": false}', "-sys": ODD, "-p": "...", "-n": "4096",
        "--samplers": "temperature;top_k;top_p", "--temp": "0.9", "--top-k": "20", "--top-p": "0.8",
    }  # fmt: skip
    bare = typed(commands.llama_cpp(recipe(prompt__format="raw"), "a"))
    assert bare[:5] == ["llama-completion", "-m", "a", "-no-cnv", "--samplers"] and "-sys" not in bare


@pytest.mark.parametrize("text", [ODD, "", "plain", "'", "a\\nb", "ü\u2028", "x\x7f1"])
def test_a_word_of_the_shell_is_on_one_line(text):
    assert len(commands.quoted(text).splitlines()) == 1 and typed(commands.quoted(text)) == [text]
