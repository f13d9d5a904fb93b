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
    control = next((t for t in tokenizer.all_special_tokens if t and t in text), None)
    if control:
        raise BadInput(f"a problem's text holds the model's control token {control!r} ({text[:40]!r}…); take it out")
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    messages.append({"role": "user", "content": text})
    try:
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=prompt.enable_thinking
        )
    except Exception as error:  # a template is the model's own program and may raise anything
        raise BadInput(f"the model's chat template refuses the prompt ({error}); try prompt.system ''") from error
    return list(ids)


def template_hash(tokenizer: Any, prompt: Prompt) -> str:
    """Names the rendering: the template's text and the recipe's prompt section."""
    template = getattr(tokenizer, "chat_template", None) if prompt.format == "chat" else None
    return hash_json([template, prompt.model_dump()])[:16]
