"""The embedded model's tokenizer, a small byte-level BPE of Qwen2's kind, and its ChatML conversations."""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

VOCABULARY_SIZE = 704
CONTEXT = 1024
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")  # ids 0..4

# `enable_thinking`, which Qwen3's template takes, is accepted and has no effect: this model does not think.
CHAT_TEMPLATE = (
    "{%- for message in messages %}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "{{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}"
)

SYSTEM_PROMPT = "Solve this in Python, in one fenced code block."


def conversation(prompt: str, code: str | None = None) -> list[dict[str, str]]:
    """System and user turn, and with `code` the assistant's turn: the code in one fenced block."""
    turns = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": prompt}]
    if code is not None:
        turns.append({"role": "assistant", "content": f"```python\n{code}\n```"})
    return turns


def conversation_text(turns: list[dict[str, str]]) -> str:
    """The text that the tokenizer learns from: roles and contents without the special tokens."""
    return "\n".join(f"{turn['role']}\n{turn['content']}" for turn in turns)


def train_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Learns the merges (deterministic in `texts`) and adds the special tokens and the chat template.

    Normalizer, pre-tokenizer and class are Qwen2's own, as in every Qwen3 folder, so programs that know Qwen
    know this tokenizer.
    """
    backend = Qwen2Tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: Qwen2Tokenizer, prompt: str, code: str) -> tuple[list[int], list[int]]:
    """A pre-training example (prompt ids, answer ids), both as the chat template renders them.

    The answer ends with <|im_end|>; what the template puts after it (a line break) is left out.
    """
    head = tokenizer.apply_chat_template(conversation(prompt), add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(conversation(prompt, code), return_dict=False)
    if whole[: len(head)] != head:
        raise ValueError(f"the generation prompt is no token prefix of the conversation: {prompt!r}")
    answer = whole[len(head) :]
    return head, answer[: answer.index(tokenizer.eos_token_id) + 1]
