"""A byte-level BPE between tokenizer.json and the fields of GGUF.

A GGUF file names how text is cut up before merging (`tokenizer.ggml.pre`); the patterns themselves are in llama.cpp.
So a tokenizer can be written only where its patterns are those of a name. llama.cpp normalizes nothing: text that is
not in NFC, which Qwen's own tokenizer makes of it, it may split otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import read_json

if TYPE_CHECKING:
    import gguf

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp's src/llama-vocab.cpp at 00ad355: the patterns of a name, each splitting what the one before left.
PATTERNS = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (rf"{_LETTERS}\p{{N}}{_REST}",),
    "llama-bpe": (rf"{_LETTERS}\p{{N}}{{1,3}}{_REST}",),
}
IGNORES_MERGES = ("llama-bpe",)  # a piece that is a token stays whole, whatever the merges say

# What tokenizers differ in: contractions, digits, runs of spaces and newlines, scripts, signs, code.
PROBES = (
    "I'm sure they'LL say it's 12345 of 3.14159",
    "def f(x):\n    return x ** 2  # squared\n\n\n\tif  x :\r\n      pass   ",
    "naïve Straße Ελλάδα Привет 你好，世界 こんにちは ١٢٣ Ⅷ ½ 🙂👩‍👩‍👧",
    "a_b-c/d\\e <x>&amp; {'k': [1,22,333]} != >= -> ::",
    "  leading, trailing  \n \n",
)


@dataclass(frozen=True)
class Vocabulary:
    """Of tokenizer.json, as GGUF has it."""

    pre: str
    tokens: list[str]  # by id
    types: list[int]
    merges: list[str]


def of_folder(folder: Path, size: int) -> Vocabulary:
    """`size`: rows of the embedding; ids that the tokenizer leaves free are filled up. Raises BadInput."""
    file = folder / "tokenizer.json"
    facts = read_json(file)
    model = facts["model"]
    pre = _name(facts, file)
    ids = dict(model["vocab"])
    types = dict.fromkeys(ids.values(), NORMAL)
    for added in facts.get("added_tokens") or ():
        ids[added["content"]] = added["id"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(types) >= size:
        raise BadInput(f"{file} has a token {max(types)}, but the model {size} of them; they are of two models")
    content = {number: token for token, number in ids.items()}
    return Vocabulary(
        pre=pre,
        tokens=[content.get(number, f"[PAD{number}]") for number in range(size)],
        types=[types.get(number, UNUSED) for number in range(size)],
        merges=[pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
    )


def _name(facts: dict[str, Any], file: Path) -> str:
    """llama.cpp's name for how a tokenizer.json cuts up text."""
    model, normalizer = facts["model"], (facts.get("normalizer") or {}).get("type")
    if model["type"] != "BPE" or model.get("byte_fallback") or normalizer not in (None, "NFC"):
        raise BadInput(f"{file} is no byte-level BPE, which --target gguf writes; --target hf or mlx takes any")
    found = _patterns(facts.get("pre_tokenizer"))
    ignores = bool(model.get("ignore_merges"))
    for name, patterns in PATTERNS.items():
        if found == patterns and ignores == (name in IGNORES_MERGES):
            return name
    raise BadInput(
        f"{file} cuts up text as none of {', '.join(PATTERNS)} does, which are llama.cpp's names that --target gguf "
        "knows; --target hf or mlx takes any"
    )


def _patterns(pre_tokenizer: dict[str, Any] | None) -> tuple[str | None, ...]:
    """Of a tokenizer.json, one after the other; None for a step that is no pattern."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    found: list[str | None] = []
    for step in steps:
        kind = step.get("type")
        if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            found.append(step["pattern"].get("Regex"))
        elif kind == "Digits" and step["individual_digits"]:
            found.append(r"\p{N}")
        elif kind == "ByteLevel" and not step["add_prefix_space"]:
            found += [_GPT2] if step.get("use_regex", True) else []
        else:
            found.append(None)
    return tuple(found)


def write(writer: gguf.GGUFWriter, vocabulary: Vocabulary, tokenizer: Any) -> None:
    """`tokenizer` is Transformers' of the same folder: it knows the special tokens and the template."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    first = tokenizer("a").input_ids[0]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def rebuilt(fields: dict[str, Any]) -> Any:
    """A tokenizer (of `tokenizers`) from a file's own fields, cutting up text by llama.cpp's patterns.

    Raises BadInput for fields that make none.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    pre = fields["tokenizer.ggml.pre"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in IGNORES_MERGES))
    except Exception as error:  # the library has no class of its own for it
        raise BadInput(f"the file's tokenizer cannot be built ({error}); export again with --force") from None
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[pre]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, types, strict=True):
        if kind in (CONTROL, USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
    return tokenizer


def first_unlike(rebuilt: Any, tokenizer: Any, texts: Iterable[str]) -> str | None:
    """The first text that the two encode otherwise; None where there is none."""
    for text in texts:
        own = tokenizer(text, add_special_tokens=False).input_ids
        if rebuilt.encode(text, add_special_tokens=False).ids != own:
            return text
    return None
