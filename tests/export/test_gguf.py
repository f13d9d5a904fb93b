"""The GGUF file against Hugging Face's layout, the definition of its types, two other readers and a file of others."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("gguf")

import gguf
from gguf.quants import dequantize, quantize

from mlx_ssd import assets, export, models
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export import gguf as target
from mlx_ssd.export.__main__ import check, make
from mlx_ssd.export.compare import compare
from mlx_ssd.export.gguf import architecture, blocks, tokens
from mlx_ssd.export.source import source_of
from mlx_ssd.export.texts import drawn
from mlx_ssd.weights import AdaptedWeights
from tests.architectures import COMMON, ROPE
from tests.export.conftest import Maker, make_run
from tests.stand_ins.conftest import stand_in as stand_in

ROPE_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPE_SCALING |= {"original_max_position_embeddings": 32}
QUANTIZED = [precision for precision in target.PRECISIONS if precision != "F16"]


@pytest.fixture(scope="module")
def qwen(kept_runs, tmp_path_factory):
    """A Qwen3 student, exported in every precision."""
    source = source_of(Maker(kept_runs, tmp_path_factory.mktemp("gguf"))(update=0.3))  # more than four bits lose
    for precision in target.PRECISIONS:
        make(source, "gguf", precision)
    return source


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama student as since 3.1, its rotary embedding scaled from 32 tokens on, with a head of its own. 80 of its
    widths fill no blocks of 32, 16 of its ids are no tokens."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    folder = tmp_path_factory.mktemp("llama")
    config = COMMON | ROPE | {"model_type": "llama", "tie_word_embeddings": False, "rms_norm_eps": 1e-5}
    config |= {"hidden_size": 64, "intermediate_size": 80, "vocab_size": 720, "rope_scaling": ROPE_SCALING}
    mx.random.seed(0)
    weights = tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters())
    base = folder / "base"
    base.mkdir()
    drawn = {name: mx.random.normal(w.shape) * 0.2 + (1 if w.ndim == 1 else 0) for name, w in weights}
    mx.save_safetensors(str(base / "model.safetensors"), drawn)
    (base / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(assets.model_path() / name, base / name)
    source = source_of(make_run(folder / "run", base))
    for precision in ("F16", "Q8_0"):
        make(source, "gguf", precision)
    return source


def folder_of(source, precision):
    return source.files.directory / "export" / export.folder_name("gguf", precision)


def facts_of(source, precision):
    return json.loads((folder_of(source, precision) / "verify.json").read_text())


def fields_of(source, precision):
    return target.Contents(folder_of(source, precision) / "model.gguf").fields


def types_of(source, precision):
    reader = gguf.GGUFReader(folder_of(source, precision) / "model.gguf")
    return {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}


@pytest.mark.parametrize("precision", target.PRECISIONS)
def test_file_is_the_student_rounded_as_the_types_are_defined(qwen, precision):
    facts = facts_of(qwen, precision)
    assert facts["verdict"] == "pass" and facts["conversion"]["max_abs"] < 1e-4


def test_more_bits_lose_less_and_take_more(qwen):
    lost = {p: facts_of(qwen, p)["kept"]["kl_exported"] for p in target.PRECISIONS}
    assert 0 < lost["F16"] < lost["Q8_0"] < lost["Q5_0"] < lost["Q4_0"] < facts_of(qwen, "F16")["kept"]["kl_base"]
    sizes = {p: facts_of(qwen, p)["bytes"]["model.gguf"] for p in target.PRECISIONS}
    assert sizes["Q4_0"] < sizes["Q4_1"] < sizes["Q5_1"] < sizes["Q8_0"] < sizes["F16"]


def test_update_is_left_in_every_layer(qwen):
    layers = facts_of(qwen, "Q8_0")["kept"]["layers"]
    assert [row["layer"] for row in layers] == [0, 1, 2, 3]
    assert all(abs(row["share"] - 1) < 0.01 and row["noise"] < 0.1 for row in layers)


def test_every_tensor_is_there(qwen):
    weights = AdaptedWeights(qwen.base.path, qwen.adapter)
    file = target.Contents(folder_of(qwen, "F16") / "model.gguf")
    assert sorted(file.names) == sorted(weights.names)
    for name in file.names:
        expected = weights.read(name)
        assert np.array_equal(file.read(name), expected if expected.ndim == 1 else expected.astype(np.float16))


def test_types_of_tensors(qwen, llama):
    four = types_of(qwen, "Q4_0")
    assert four["blk.3.ffn_down.weight"] == "Q4_0" and four["token_embd.weight"] == "Q8_0"
    assert four["blk.3.attn_q_norm.weight"] == four["output_norm.weight"] == "F32"
    assert "output.weight" not in four
    eight = types_of(llama, "Q8_0")
    assert eight["blk.0.ffn_up.weight"] == eight["output.weight"] == "Q8_0"
    assert eight["blk.0.ffn_down.weight"] == "F16"


def test_llama(llama):
    for precision in ("F16", "Q8_0"):
        facts = facts_of(llama, precision)
        assert facts["verdict"] == "pass" and facts["conversion"]["max_abs"] < 1e-4


@pytest.mark.parametrize("who, precision", [("qwen", "Q8_0"), ("qwen", "Q4_1"), ("llama", "F16"), ("llama", "Q8_0")])
def test_transformers_own_reader_finds_the_same_model(who, precision, request):
    from transformers import AutoConfig, AutoModelForCausalLM

    from mlx_ssd.export.torch_reader import TorchReader

    source = request.getfixturevalue(who)
    folder = folder_of(source, precision)
    config = AutoConfig.from_pretrained(source.base.path)  # it would not see the file's size of a head
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", config=config, dtype="float32")
    theirs = TorchReader(model.eval())
    text = drawn(source)[0][0]
    assert np.abs(theirs.logits(text) - target.load(source, folder, precision).logits(text)).max() < 1e-3


def test_rotary_embedding_scaled_as_since_llama_3_1(llama):
    file = target.Contents(folder_of(llama, "Q8_0") / "model.gguf")
    assert file.rope_factors[0] == 1 and file.rope_factors[-1] == 8 and np.all(np.diff(file.rope_factors) >= 0)
    assert any(1 < factor < 8 for factor in file.rope_factors)
    reader = target.load(llama, folder_of(llama, "Q8_0"), "Q8_0")
    plain = reader.model.model.rotary_emb.inv_freq.numpy() * file.rope_factors
    assert np.allclose(plain, 10_000.0 ** -(np.arange(0, 16, 2) / 16))


def test_rows_of_llamas_queries_and_keys_are_interleaved():
    """Hugging Face turns dimension i of a head with i + half, llama.cpp's Llama 2 i with 2 i + 1."""
    config = {"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 1}
    rows = np.arange(8)[:, None] * np.ones((1, 3))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert architecture.paired(config, name, rows)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(architecture.unpaired(config, name, architecture.paired(config, name, rows)), rows)
    keys = architecture.paired(config, name.replace("q_proj", "k_proj"), rows)
    assert keys[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert architecture.paired(config, name.replace("q_proj", "v_proj"), rows) is rows
    assert architecture.paired(config | {"model_type": "qwen3"}, name, rows) is rows


@pytest.mark.parametrize("kind", ["F16", *QUANTIZED])
def test_types_are_what_the_gguf_package_makes_of_them(kind):
    values = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    values[0] = 0
    values[1] = 0.25
    values[2, :32] = -np.abs(values[2, :32])
    values[3] = np.abs(values[3]) + 2  # far from zero: what a least value is for
    values[4] *= 1e-4
    qtype = gguf.GGMLQuantizationType[kind]
    assert np.array_equal(blocks.rounded(values, kind), dequantize(quantize(values, qtype), qtype))


def test_types_by_hand():
    row = np.zeros((1, 32), np.float32)
    row[0, :4] = 8, -4, 1.4, 0.4
    assert blocks.rounded(row, "Q4_0")[0, :4].tolist() == [8, -4, 1, 0]  # d = -1
    row[0, :4] = 15, 7.4, 2.6, 0.3
    assert blocks.rounded(row, "Q4_1")[0, :4].tolist() == [15, 7, 3, 0]  # d = 1, m = 0
    row[0, :4] = -127, 63.6, 0.5, 0.4
    assert blocks.rounded(row, "Q8_0")[0, :4].tolist() == [-127, 64, 1, 0]  # d = 1, halves away from zero


def test_fields_say_what_the_model_is(qwen):
    fields, tokenizer = fields_of(qwen, "Q8_0"), models.load_tokenizer(qwen.base)
    expected = {
        "general.architecture": "qwen3",
        "general.name": qwen.name,
        "general.file_type": 7,
        "qwen3.block_count": 4,
        "qwen3.embedding_length": 128,
        "qwen3.feed_forward_length": 384,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 32,
        "qwen3.attention.value_length": 32,
        "qwen3.context_length": 1024,
        "qwen3.rope.freq_base": 10_000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert fields["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert fields["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(range(704))
    assert fields["tokenizer.ggml.token_type"] == [tokens.CONTROL] * 5 + [tokens.NORMAL] * 699
    assert "tokenizer.ggml.bos_token_id" not in fields


def test_tokenizer_in_the_file_is_the_models(qwen):
    fields, tokenizer = fields_of(qwen, "F16"), models.load_tokenizer(qwen.base)
    texts = [*tokens.PROBES, "<|im_start|>user\nx<|im_end|>", "it's", "1234"]
    assert tokens.first_unlike(tokens.rebuilt(fields), tokenizer, texts) is None
    other = fields | {"tokenizer.ggml.pre": "gpt-2"}
    assert tokens.first_unlike(tokens.rebuilt(other), tokenizer, texts) == tokens.PROBES[1]


def test_rows_of_the_embedding_without_a_token_are_filled_up(llama):
    fields = fields_of(llama, "F16")
    assert fields["tokenizer.ggml.tokens"][704:] == [f"[PAD{i}]" for i in range(704, 720)]
    assert fields["tokenizer.ggml.token_type"][704:] == [tokens.UNUSED] * 16


def test_a_changed_file_is_found(qwen):
    path = folder_of(qwen, "Q5_1") / "model.gguf"
    kept = path.read_bytes()
    start = next(t.data_offset for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    damage = bytes(24 * 32)
    try:
        path.write_bytes(kept[:start] + damage + kept[start + len(damage) :])
        with pytest.raises(WorkFailed, match="its logits are up to"):
            check(qwen, "gguf", "Q5_1")
        path.write_bytes(kept.replace(b"qwen2", b"gpt-2", 1))
        with pytest.raises(WorkFailed, match="splits .* otherwise"):
            check(qwen, "gguf", "Q5_1")
        path.write_bytes(kept.replace("Ġreturn".encode(), "Ġretur0".encode(), 1))
        with pytest.raises(WorkFailed, match="tokenizer cannot be built .*Ġreturn"):
            check(qwen, "gguf", "Q5_1")
        path.write_bytes(kept[:1000])
        with pytest.raises(WorkFailed, match="cannot be read"):
            check(qwen, "gguf", "Q5_1")
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize("choices", [{"bits": 4}, {"method": "full"}])
def test_students_of_quantized_bases_and_of_full_training(run_dir, choices):
    source = source_of(run_dir(**choices))
    make(source, "gguf", "F16")
    facts = facts_of(source, "F16")
    assert facts["conversion"]["max_abs"] < 1e-4 and facts["kept"]["kl_exported"] < 1e-5


DENSE = {"model_type": "qwen3", "rope_theta": 1e6, "num_hidden_layers": 2}


def test_refusals_say_what_is_not_written():
    assert target.refuse(DENSE, {}) is None
    assert target.refuse(DENSE | {"model_type": "llama", "rope_scaling": None}, {}) is None
    assert target.refuse(DENSE | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, {}) is None
    assert "qwen3_moe" in target.refuse(DENSE | {"model_type": "qwen3_moe"}, {})
    assert target.refuse(DENSE | {"model_type": "llama", "rope_scaling": ROPE_SCALING}, {}) is None
    assert "scaled (yarn)" in target.refuse(DENSE | {"rope_scaling": {"rope_type": "yarn", "factor": 4}}, {})
    assert "scaled (llama3)" in target.refuse(DENSE | {"rope_scaling": ROPE_SCALING}, {})
    assert "window" in target.refuse(DENSE | {"layer_types": ["full_attention", "sliding_attention"]}, {})
    assert "biases" in target.refuse(DENSE | {"attention_bias": True}, {})


def test_a_tensor_that_the_architecture_does_not_have():
    names = ["model.layers.1.self_attn.q_proj.weight", "lm_head.weight"]
    tied = DENSE | {"tie_word_embeddings": True}
    assert architecture.stored_names(tied, names) == {names[0]: "blk.1.attn_q.weight"}
    assert architecture.stored_names(DENSE, names)["lm_head.weight"] == "output.weight"
    with pytest.raises(BadInput, match="no place for model.layers.0.linear_attn.conv.weight in a qwen3"):
        architecture.stored_names(DENSE, ["model.layers.0.linear_attn.conv.weight"])


SPLIT = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Removed", "invert": False}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "cuts up text as none of gpt-2"),
        ({"pre_tokenizer": SPLIT}, "cuts up text as none of gpt-2"),
        ({"normalizer": {"type": "Lowercase"}}, "no byte-level BPE"),
        ({"model": {"type": "Unigram", "vocab": []}}, "no byte-level BPE"),
    ],
)
def test_tokenizers_that_no_name_stands_for(tmp_path, change, message):
    facts = json.loads((assets.model_path() / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts | change))
    with pytest.raises(BadInput, match=message):
        tokens.of_folder(tmp_path, 704)


def test_tokenizer_of_another_model():
    with pytest.raises(BadInput, match="has a token 703, but the model 700"):
        tokens.of_folder(assets.model_path(), 700)


def test_llama_3_is_known_by_its_three_digits_and_whole_pieces(tmp_path):
    facts = json.loads((assets.model_path() / "tokenizer.json").read_text())
    split = facts["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(r"|\p{N}|", r"|\p{N}{1,3}|")
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts))
    with pytest.raises(BadInput, match="none of"):
        tokens.of_folder(tmp_path, 704)
    facts["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts))
    assert tokens.of_folder(tmp_path, 704).pre == "llama-bpe"


@pytest.mark.slow
def test_smollm2_comes_back_as_its_makers_wrote_it(stand_in, tmp_path):
    """A real model and tokenizer that began as a file of llama.cpp's own converter."""
    from benchmarks.stand_ins.fetch import fetch
    from benchmarks.stand_ins.smollm2 import MODEL

    source = source_of(make_run(tmp_path / "run", stand_in("smollm2"), update=0))
    target.write(source, tmp_path, "F16", lambda done, total: None)
    original, ours = (gguf.GGUFReader(path) for path in (*fetch(MODEL).values(), tmp_path / "model.gguf"))
    theirs = {tensor.name: tensor for tensor in original.tensors}
    assert theirs.keys() == {tensor.name for tensor in ours.tensors}
    for tensor in ours.tensors:
        other = theirs[tensor.name]
        assert list(tensor.shape) == list(other.shape)
        values = dequantize(other.data, other.tensor_type).astype(np.float16).astype(np.float32)
        assert np.array_equal(dequantize(tensor.data, tensor.tensor_type), values)
    fields = {name: field.contents() for name, field in ours.fields.items()}
    needed = {
        name: field.contents() for name, field in original.fields.items() if not name.startswith(("general.", "GGUF."))
    }
    of_no_use_to_a_bpe = {"tokenizer.ggml.add_space_prefix", "tokenizer.ggml.unknown_token_id"}
    assert needed.keys() - fields.keys() == of_no_use_to_a_bpe
    assert {name for name in needed.keys() & fields.keys() if fields[name] != needed[name]} == set()


# As largest difference of logits and mean KL. Products with quantized weights are made of inputs in 8 bits.
LLAMA_CPP = dict.fromkeys(QUANTIZED, (0.5, 2e-3)) | {"F16": (0.05, 1e-5)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "who, precision", [*(("qwen", precision) for precision in target.PRECISIONS), ("llama", "F16"), ("llama", "Q8_0")]
)
def test_llama_cpp_runs_it(who, precision, request, monkeypatch):
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
    usual = llama_cpp.llama_model_default_params

    def without_repacking():
        parameters = usual()
        parameters.use_extra_bufts = False  # its AMX kernels crash on weights as narrow as these
        return parameters

    monkeypatch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", without_repacking)
    source = request.getfixturevalue(who)
    folder = folder_of(source, precision)
    model = llama_cpp.Llama(str(folder / "model.gguf"), n_ctx=512, logits_all=True, verbose=False)
    reader, tokenizer = target.load(source, folder, precision), models.load_tokenizer(source.base)
    texts = drawn(source)[0][:2]
    for text in [*tokens.PROBES, *(tokenizer.decode([*t.prompt_ids, *t.completion_ids]) for t in texts)]:
        own = tokenizer(text, add_special_tokens=False).input_ids
        assert model.tokenize(text.encode(), add_bos=False, special=True) == own
    found = []
    for text in texts:
        model.reset()
        model.eval([*text.prompt_ids, *text.completion_ids])
        first, last = len(text.prompt_ids) - 1, len(text.prompt_ids) + len(text.completion_ids) - 1
        found.append(np.array(model.scores[first:last]))
    facts = compare(texts, found, [reader.logits(text) for text in texts])
    furthest, kl = LLAMA_CPP[precision]
    assert facts["max_abs"] < furthest and facts["kl_mean"] < kl and facts.get("clear_top1", 1) == 1
