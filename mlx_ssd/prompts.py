"""From a problem's text to prompt token ids: the one rendering that sampling, training and evaluation share."""

from __future__ import annotations

from typing import Any

from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Prompt
from mlx_ssd.storage import hash_json


def render(tokenizer: Any, text: str, prompt: Prompt) -> list[int]:
    """`tokenizer` as models.load gives it. Token ids of a single-turn prompt up to where the model's answer begins.

    `chat` goes through the model's own template; `raw` is the text alone, as the released script
    of the paper sends it.
    """
    if prompt.format == "raw":
        return tokenizer.encode(text, add_special_tokens=False)
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput("the model has no chat template; set prompt.format to raw")
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    messages.append({"role": "user", "content": text})
    return list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=prompt.enable_thinking)
    )


def template_hash(tokenizer: Any, prompt: Prompt) -> str:
    """Names the rendering: the template's text and the recipe's prompt section."""
    template = getattr(tokenizer, "chat_template", None) if prompt.format == "chat" else None
    return hash_json([template, prompt.model_dump()])[:16]
