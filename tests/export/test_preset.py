"""Two-stage decoding as a sampler: the written file draws what the specification says, and mlx-lm runs it."""

import json
import shutil

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from mlx_ssd import assets
from mlx_ssd.controls import policy_of
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export import preset
from mlx_ssd.export.preset.llama_cpp import Chain, chain_of
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe, names
from mlx_ssd.sections import Prompt
from tests.export.conftest import invoke

STAGES = {
    "the paper's": ({"temperature": 1.6, "top_k": 20, "top_p": 0.8}, {"temperature": 1.1, "top_k": 20, "top_p": 0.8}),
    "sharp": ({"temperature": 0.8, "top_k": 20, "top_p": 0.8}, {"temperature": 0.7, "top_k": 20, "top_p": 0.8}),
    "whole vocabulary first": ({"temperature": 1.2, "top_k": 0, "top_p": 1.0}, {"temperature": 1.0, "top_p": 0.95}),
    "fewer in the end": ({"temperature": 1.1, "top_k": 50, "top_p": 0.95}, {"temperature": 2, "top_k": 3, "top_p": 1}),
    "top-p alone": ({"temperature": 2.0, "top_k": 0, "top_p": 0.7}, {"temperature": 0.5, "top_k": 0, "top_p": 0.9}),
    "greedy": ({"temperature": 1.6, "top_k": 20, "top_p": 0.8}, {"temperature": 0.0}),
}  # fmt: skip


def a_folder(path, train, evaluation, **settings):
    path.mkdir(parents=True)
    overrides = {"sample.decoding": train, "evaluate.decoding": evaluation} | settings
    (path / "recipe.yaml").write_text(Recipe.parse("", "r", overrides).to_yaml())
    return path


def probabilities(module, logits):
    ids, kept = (np.array(array, dtype=np.float64) for array in module.distribution(mx.array(logits)))
    found = np.zeros(logits.shape)
    mass = np.exp(kept - kept.max(axis=-1, keepdims=True))
    np.put_along_axis(found, ids.astype(int), mass / mass.sum(axis=-1, keepdims=True), axis=-1)
    return found


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
def test_it_is_the_specification(stages, tmp_path):
    run = a_folder(tmp_path / "run", *stages)
    facts = preset.make(run)
    assert facts["verdict"] == "pass" and facts["probabilities"]["max_abs"] < 1e-5
    written = {path.name for path in (run / "export" / "preset").iterdir()}
    assert written == {"ssd_sampler.py", "preset.json", "README.md", "verify.json"}  # and nothing of Python's own
    module = preset.load(run / "export" / "preset" / "ssd_sampler.py")
    policy = preset.rule_of(run).policy
    random = np.random.default_rng(7)
    logits = (random.normal(size=(40, 300)) * np.linspace(0.3, 9, 40)[:, None]).astype(np.float32)
    logits[:, 5] = -np.inf  # as a bias that forbids a token leaves it
    found = probabilities(module, logits)
    for row, kept in zip(logits, found, strict=True):
        assert np.abs(kept - policy.reference_probabilities(row)).max() < 1e-5
    # mlx-lm hands over log-probabilities.
    again = probabilities(module, np.array(mx.array(logits) - mx.logsumexp(mx.array(logits), axis=-1, keepdims=True)))
    assert np.abs(found - again).max() < 1e-5


def test_draws(tmp_path):
    run = a_folder(tmp_path / "run", *STAGES["the paper's"])
    preset.make(run)
    module = preset.load(run / "export" / "preset" / "ssd_sampler.py")
    logits = np.random.default_rng(1).normal(size=60).astype(np.float32) * 2
    expected = preset.rule_of(run).policy.reference_probabilities(logits)
    mx.random.seed(3)
    drawn = np.array(module.sampler(mx.broadcast_to(mx.array(logits), (40_000, 60))))
    assert drawn.shape == (40_000,) and set(drawn) == set(np.flatnonzero(expected)) and 3 < len(set(drawn)) < 20
    assert np.abs(np.bincount(drawn, minlength=60) / 40_000 - expected).max() < 0.012


def test_mlx_lm_generates_with_it_on_the_base(tmp_path):
    run = a_folder(tmp_path / "run", *STAGES["the paper's"])
    preset.make(run)
    module = preset.load(run / "export" / "preset" / "ssd_sampler.py")
    model, tokenizer = mlx_lm.load(str(assets.model_path()))
    prompt = render(tokenizer, "Return the sum of xs.", Prompt())
    calls = []

    def watched(logprobs):
        calls.append(logprobs.shape)
        return module.sampler(logprobs)

    text = mlx_lm.generate(model, tokenizer, prompt, max_tokens=24, sampler=watched)
    assert text.startswith("```python") and len(calls) >= 10 and set(calls) == {(1, 704)}


def test_the_file_needs_mlx_alone_and_runs_from_a_terminal(tmp_path, monkeypatch, capsys):
    run = a_folder(tmp_path / "run", *STAGES["the paper's"], **{"evaluate.max_tokens": 8})
    preset.make(run)
    file = run / "export" / "preset" / "ssd_sampler.py"
    source = file.read_text()
    imported = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imported == ["import mlx.core as mx"]
    monkeypatch.setattr("sys.argv", ["ssd_sampler.py", str(assets.model_path()), "Return the sum of xs."])
    exec(compile(source, str(file), "exec"), {"__name__": "__main__"})
    assert len(capsys.readouterr().out) > 5


class TestCommand:
    def test_a_run_that_was_not_trained_a_probe_and_an_arm(self, tmp_path):
        arm = {"name": "hot", "set": {"sample.decoding.temperature": 2.0}}
        run = a_folder(tmp_path / "run", *STAGES["the paper's"], arms=[arm])
        result = invoke(run, "--target", "preset")
        assert result.exit_code == 0 and result.stdout.startswith("preset: pass, probabilities within"), result.output
        held = json.loads((run / "export" / "preset" / "preset.json").read_text())
        assert held["stages"] == [*STAGES["the paper's"]]
        text = (run / "export" / "preset" / "ssd_sampler.py").read_text()
        assert 'load("mlx_ssd/assets/model")' in text and "@" not in text
        assert held["base"] == "embedded" and held["effective_temperature"] == pytest.approx(1.76)
        assert invoke(run, "--target", "preset", "--arm", "hot").exit_code == 0
        hot = json.loads((run / "export" / "arms" / "hot" / "preset" / "preset.json").read_text())
        assert hot["stages"][0]["temperature"] == 2.0
        assert "no --force" not in result.output
        assert "exists; give --force" in invoke(run, "--target", "preset").output
        assert invoke(run, "--target", "preset", "--check", "--json").exit_code == 0

    def test_refusals(self, tmp_path):
        assert "has no recipe.yaml" in invoke(tmp_path / "none", "--target", "preset").output
        run = a_folder(tmp_path / "run", *STAGES["the paper's"])
        assert "no precision" in invoke(run, "--target", "preset", "--precision", "int4").output
        assert "--arm tutor" in invoke(run, "--target", "preset", "--arm", "tutor").output
        other = a_folder(tmp_path / "other", {"temperature": 1.6, "order": "mlx_lm"}, {"temperature": 0.9})
        with pytest.raises(BadInput, match="sample.decoding.order is mlx_lm"):
            preset.rule_of(other)

    @pytest.mark.parametrize(
        "old, new, reason",
        [
            ("'temperature': 1.6", "'temperature': 1.5", "probability is"),
            ("in STAGES", "in STAGES[:1]", "probability is"),
            ("above < top_p", "above + mass < top_p", "probability is"),
            ("drawn = mx.random.categorical(logits)", "drawn = mx.argmax(logits, axis=-1)", "standard deviations"),
            ("import mlx.core", "import mlx.cores", "cannot be read"),
        ],
    )
    def test_a_damaged_sampler_does_not_hold(self, old, new, reason, tmp_path):
        run = a_folder(tmp_path / "run", *STAGES["the paper's"])
        preset.make(run)
        file = run / "export" / "preset" / "ssd_sampler.py"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        with pytest.raises(WorkFailed, match=reason):
            preset.check(run)

    def test_the_settings_are_checked_too(self, tmp_path):
        run = a_folder(tmp_path / "run", *STAGES["the paper's"])
        preset.make(run)
        (run / "export" / "preset" / "preset.json").write_text('{"stages": []}')
        with pytest.raises(WorkFailed, match="does not hold the recipe"):
            preset.check(run)
        assert invoke(run, "--target", "preset", "--check").exit_code == 1


def llama_cpp(chain: Chain, logits: np.ndarray) -> np.ndarray:
    """What a chain of llama.cpp's samplers does, in float64: each divides, or cuts what the one before left."""
    ids = np.argsort(-logits, kind="stable")
    left = logits[ids].astype(np.float64)
    for name in chain.samplers.split(";"):
        if name == "top_k":
            ids, left = ids[: chain.top_k], left[: chain.top_k]
        elif name == "temperature":
            left = left / chain.temperature
        else:
            mass = np.exp(left - left.max())
            reached = int(np.argmax(np.cumsum(mass / mass.sum()) >= chain.top_p)) + 1
            ids, left = ids[:reached], left[:reached]
    found = np.zeros(logits.shape)
    mass = np.exp(left - left.max())
    found[ids] = mass / mass.sum()
    return found


class TestLlamaCpp:
    def of(self, train, evaluation):
        return chain_of([DecodingPolicy(**train), DecodingPolicy(**evaluation)])

    def test_the_chain_is_two_stage_decoding_of_the_temperatures_it_says(self):
        chain = self.of(*STAGES["the paper's"])
        assert chain.samplers == "top_k;" + 5 * "temperature;" + "top_p;temperature;top_p"
        assert chain.arguments.endswith("--temp 1.099 --top-k 20 --top-p 0.8")
        policy = StagedPolicy(*chain.stages)
        random = np.random.default_rng(0)
        for spread in np.linspace(0.5, 8, 30):
            logits = random.normal(size=400) * spread
            assert np.abs(llama_cpp(chain, logits) - policy.reference_probabilities(logits)).max() < 1e-12

    @pytest.mark.parametrize("name", [name for name in names() if name.startswith("paper-")])
    def test_of_the_papers_models(self, name):
        """One in which a stage heats and the other cools has no chain."""
        recipe = Recipe.load(name)
        found = chain_of([policy_of(recipe.sample.decoding), policy_of(recipe.evaluate.decoding)])
        heats = {stage.temperature > 1 for stage in (recipe.sample.decoding, recipe.evaluate.decoding)}
        if len(heats) == 2 and recipe.evaluate.decoding.temperature != 1:
            assert isinstance(found, str) and "heats" in found
        else:
            first, second = found.stages
            assert first.temperature == pytest.approx(recipe.sample.decoding.temperature, rel=0.02)
            assert second.temperature == pytest.approx(recipe.evaluate.decoding.temperature, rel=0.02)
            logits = np.random.default_rng(2).normal(size=300) * 3
            policy = StagedPolicy(*found.stages)
            assert np.abs(llama_cpp(found, logits) - policy.reference_probabilities(logits)).max() < 1e-12

    def test_what_has_no_chain(self):
        hot = {"temperature": 1.6, "top_k": 20, "top_p": 0.8}
        assert "one --top-p" in self.of(hot, hot | {"top_p": 0.9})
        assert "one --top-k" in self.of(hot, hot | {"top_k": 10})
        assert "one --temp" in self.of(hot, hot | {"temperature": 0.7})
        assert "greedy" in self.of(hot, {"temperature": 0.0})
        assert self.of(hot, {"temperature": 1.0}).samplers.endswith("top_p")  # the second stage does nothing

    def test_the_card_says_it(self, tmp_path):
        run = a_folder(tmp_path / "run", *STAGES["the paper's"])
        preset.make(run)
        said = " ".join((run / "export" / "preset" / "README.md").read_text().split())
        assert self.of(*STAGES["the paper's"]).arguments in said and "1.603 and 1.099, in this order" in said
        assert "Nothing yet: this run has not been evaluated" in said and "LM Studio" in said
        other = a_folder(tmp_path / "other", *STAGES["the paper's"])
        shutil.copy(run / "recipe.yaml", other)
        (other / "probe.json").write_text(json.dumps({"verdict": ["Room.", "Two-stage decoding has it.", "Expected."]}))
        preset.make(other)
        said = (other / "export" / "preset" / "README.md").read_text()
        assert "By a probe of the base: Two-stage decoding has it." in said
