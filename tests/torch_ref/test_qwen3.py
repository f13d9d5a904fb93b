"""The convertible Qwen3 against Transformers' own, in float32: all at once, and with a cache, token by token."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mlx_ssd.errors import BadInput  # noqa: E402
from mlx_ssd.torch_ref import qwen3  # noqa: E402
from mlx_ssd.torch_ref.qwen3_config import Qwen3Config, unsupported  # noqa: E402

TINY = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "vocab_size": 80,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
IDS = np.random.default_rng(0).integers(0, 80, 24)


def reference(**changes):
    """Transformers' model with random norms and biases too: at one and zero they would hide a fault."""
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**TINY | changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (1 if "norm" in name else 0))
    return model


def twin(model, context=32, factors=None, **changes):
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return qwen3.build(Qwen3Config.of(TINY | changes), context, weights, weights.__getitem__, factors=factors)


@torch.no_grad()
def run(model, steps, dtype=torch.float32):
    """Logits of all IDS, given in calls of `steps` tokens."""
    caches, found, end = model.empty_caches(), [], 0
    for count in steps:
        ids = torch.from_numpy(IDS[end : end + count])[None]
        end += count
        found.append(model(ids, qwen3.causal_mask(count, end, dtype), *caches)[0])
    return torch.cat(found)


@torch.no_grad()
def expected(model):
    return model(torch.from_numpy(IDS)[None], use_cache=False).logits[0]


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"attention_bias": True}, {"rope_theta": 5e6}])
@pytest.mark.parametrize("steps", [[24], [16] + 8 * [1], [5, 7, 1, 11]])
def test_equals_transformers(changes, steps):
    model = reference(**changes)
    ours = twin(model, **changes)
    assert set(ours.state_dict()) == set(model.state_dict())
    logits = expected(model)
    assert logits.abs().max() > 1
    assert torch.allclose(run(ours, steps), logits, rtol=0, atol=1e-5)


def test_a_cache_holds_what_earlier_calls_wrote_and_nothing_more():
    model = twin(reference())
    k, v = model.empty_caches()
    with torch.no_grad():
        model(torch.from_numpy(IDS[:5])[None], qwen3.causal_mask(5, 5), k, v)
    assert k[:, :, :, :5].abs().amin(-1).min() > 0 and v[:, :, :, :5].abs().amax(-1).min() > 0
    assert k[:, :, :, 5:].abs().max() == 0 == v[:, :, :, 5:].abs().max()


def test_unfused_branches_equal_the_fused_weights():
    model, draw = reference(), np.random.default_rng(1)
    factors = {}
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"):
        out, into = model.get_submodule(name).weight.shape
        factors[name] = (draw.normal(size=(into, 4)) * 0.2, draw.normal(size=(4, out)) * 0.2, 1.5)
    before = run(twin(model), [24])
    branches = run(twin(model, factors=factors), [24])
    with torch.no_grad():
        for name, (a, b, scale) in factors.items():
            model.get_submodule(name).weight += torch.from_numpy(scale * (a @ b).T).float()
    assert torch.allclose(branches, expected(model), rtol=0, atol=1e-5)
    assert (branches - before).abs().max() > 0.1


def test_norms_in_float16_bear_what_real_models_hold():
    """The residual stream of real models reaches thousands; a float16 square overflows at 256."""
    norm, x = qwen3.RMSNorm(64, 1e-6), torch.randn(5, 64, generator=torch.manual_seed(0))
    x[0] *= 1e4
    x[1] *= 1e-4
    x[2] = 0
    x[3] *= 1e-3
    plain = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-6)
    assert torch.allclose(norm(x).double(), plain, rtol=1e-6, atol=1e-7)
    assert torch.allclose(norm.half()(x.half()).double(), plain, rtol=5e-3, atol=2e-3)


def test_what_is_no_tensor_of_the_model_or_is_missing_is_named():
    weights = {name: tensor.numpy() for name, tensor in reference().state_dict().items()}
    config = Qwen3Config.of(TINY)

    def built(weights):
        return qwen3.build(config, 32, weights, weights.__getitem__)

    with pytest.raises(BadInput, match="lacks the tensor model.norm.weight"):
        built({name: array for name, array in weights.items() if name != "model.norm.weight"})
    with pytest.raises(BadInput, match="no tensor model.visual.weight"):
        built(weights | {"model.visual.weight": np.zeros(3)})
    with pytest.raises(BadInput, match=r"model.norm.weight is \[3\]; config.json asks for \[64\]"):
        built(weights | {"model.norm.weight": np.zeros(3)})
    built({name: array for name, array in weights.items() if name != "lm_head.weight"})  # tied


def test_an_adapter_of_the_embedding_has_no_branch():
    with pytest.raises(BadInput, match="embed_tokens, which is no linear layer"):
        twin(reference(), factors={"model.embed_tokens": (np.zeros((80, 2)), np.zeros((2, 64)), 1.0)})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "llama"}, "this is llama"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "linear"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_other_models_are_named(changes, reason):
    assert reason in unsupported(TINY | changes)
    assert unsupported(TINY) is None
