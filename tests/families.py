"""Folders of the model families that recipes are for: tiny, random weights, quantized as the published ones are.

gpt-oss has its control tokens and a template in its layout. The template is ours, short, and takes what the published
one takes: the effort, and today's date.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.nn import Sequential
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_config, save_model

from mlx_ssd import assets
from mlx_ssd.budget.tensors import MXFP4
from tests.architectures import COMMON, MODELS

WIDE = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64}  # groups of 64
EIGHT = {"group_size": 64, "bits": 8}

HARMONY_TOKENS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>")
TEMPLATE = (
    "<|start|>system<|message|>Current date: {{ strftime_now('%Y-%m-%d') }}\n\n"
    "Reasoning: {{ reasoning_effort or 'medium' }}\n\n# Valid channels: analysis, commentary, final.<|end|>"
    "{% for message in messages %}"
    "<|start|>{{ 'developer' if message.role == 'system' else message.role }}<|message|>"
    "{% if message.role == 'system' %}# Instructions\n\n{% endif %}{{ message.content }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def family_folder(folder: Path, name: str) -> Path:
    """llama, qwen3-moe: 4 bits in groups of 64; gpt-oss: MXFP4 experts, all else in 8 bits."""
    folder.mkdir(parents=True)
    for path in assets.model_path().iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    vocabulary, ends = 704, 2
    if name == "gpt-oss":
        tokens = _add_control_tokens(folder)
        (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        vocabulary, ends = 704 + len(tokens), [tokens["<|return|>"], tokens["<|call|>"]]
    module, settings = MODELS[name]
    known = COMMON | settings
    config = known | {key: value for key, value in WIDE.items() if key in known}
    config |= {"vocab_size": vocabulary, "eos_token_id": ends}
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(config))
    model.update(tree_map(lambda x: 0.2 * mx.random.normal(x.shape) if x.ndim > 1 else x, model.parameters()))
    model.set_dtype(mx.bfloat16)
    if name == "gpt-oss":
        how = {"mode": "mxfp4", "quant_predicate": lambda path, _: MXFP4 if ".experts." in path else EIGHT}
        model, config = quantize_model(model, config, 32, 4, **how)
    else:
        model, config = quantize_model(model, config, 64, 4)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    return folder


def hub_layout(folder: Path, name: str) -> Path:
    """The folder of `family_folder` as its makers published it: qwen3-moe in bfloat16, each expert by itself; gpt-oss's
    experts in MXFP4 blocks, gate and up in turns, and all else in bfloat16."""
    model, config = load_model(family_folder(folder, name))
    kept = {"gpt-oss": lambda path, module: ".experts." not in path, "qwen3-moe": lambda path, module: True}[name]
    for path, module in tree_flatten(model.leaf_modules(), is_leaf=lambda leaf: hasattr(leaf, "bits")):
        if hasattr(module, "bits") and kept(path, module):
            model.update_modules(tree_unflatten([(path, dequantize_model(Sequential(module)).layers[0])]))
    arrays = {key: a.astype(mx.bfloat16) if a.dtype == mx.float32 else a for key, a in tree_flatten(model.parameters())}
    published = {}
    for key, array in arrays.items():
        if name == "qwen3-moe" and ".switch_mlp." in key:
            parts = {key.replace("switch_mlp", f"experts.{number}"): array[number] for number in range(len(array))}
        elif name == "gpt-oss" and ".experts.up_proj." in key:
            pair = mx.stack([arrays[key.replace("up_proj", "gate_proj")], array], axis=2)
            parts = _published(key.replace("up_proj", "gate_up_proj"), pair.flatten(1, 2))
        elif name == "gpt-oss" and ".experts." in key:
            parts = {} if "gate_proj" in key else _published(key, array)
        else:
            parts = {key: array}
        published |= {key: mx.contiguous(part) for key, part in parts.items()}
    config = {key: value for key, value in config.items() if not key.startswith("quantization")}
    if name == "gpt-oss":
        config["quantization_config"] = {"quant_method": "mxfp4"}
    for file in folder.glob("model*"):
        file.unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), published, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _published(key: str, array: mx.array) -> dict[str, mx.array]:
    module, _, part = key.rpartition(".")
    if part == "weight":  # 16 bytes, that is 32 numbers, a block
        array = array.view(mx.uint8)
        array = array.reshape(*array.shape[:-1], -1, 16)
    return {f"{module}_{'blocks' if part == 'weight' else part}": array}


def _add_control_tokens(folder: Path) -> dict[str, int]:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    first = 1 + max(token["id"] for token in tokenizer["added_tokens"] if token["id"] >= 0)
    first = max(first, 704)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {name: first + n for n, name in enumerate(HARMONY_TOKENS)}
    tokenizer["added_tokens"] += [{"id": id, "content": name} | plain for name, id in added.items()]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return added
