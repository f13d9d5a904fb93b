"""From a problem's text to prompt token ids: the one rendering that sampling, training and evaluation share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from mlx_ssd.errors import BadInput
from mlx_ssd.sections import Prompt
from mlx_ssd.storage import hash_json

# The day that a template is told which puts one into the prompt, as gpt-oss's does: a run that goes on after midnight
# must ask the same. The day that gpt-oss came out.
TODAY = datetime(2025, 8, 5)
_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def render(tokenizer: Any, text: str, prompt: Prompt) -> list[int]:
    """`tokenizer` as models.load gives it. Token ids of a single-turn prompt up to where the model's answer begins.

    `chat` goes through the model's own template; `raw` is the text alone, as the released script
    of the paper sends it, after the beginning-of-text token of a model that has one.
    """
    if prompt.format == "raw":
        given = tokenizer.bos_token and text.startswith(tokenizer.bos_token)
        return ([] if given else _beginning(tokenizer)) + tokenizer.encode(text, add_special_tokens=False)
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput("the model has no chat template; set prompt.format to raw")
    control = next((t for t in _control_tokens(tokenizer) if t in text), None)
    if control:
        raise BadInput(f"a problem's text holds the model's control token {control!r} ({text[:40]!r}…); take it out")
    options = template_options(prompt)
    template = tokenizer.chat_template
    if isinstance(template, str) and _NOW.search(template):
        options["chat_template"] = _NOW.sub(lambda asked: repr(TODAY.strftime(asked[2])), template)
    try:
        ids = tokenizer.apply_chat_template(messages(text, prompt), add_generation_prompt=True, **options)
    except Exception as error:  # a template is the model's own program and may raise anything
        raise BadInput(f"the model's chat template refuses the prompt ({error}); try prompt.system ''") from error
    return list(ids)


def messages(text: str, prompt: Prompt) -> list[dict[str, str]]:
    """What a chat template is given of a single-turn prompt."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": text}]


def template_options(prompt: Prompt) -> dict[str, Any]:
    """What it is given besides. An export says the same to the programs that load it."""
    effort = {"reasoning_effort": prompt.reasoning_effort} if prompt.reasoning_effort else {}
    return {"enable_thinking": prompt.enable_thinking} | effort


def template_hash(tokenizer: Any, prompt: Prompt) -> str:
    """Names the rendering: the template's text (or what is put before a raw prompt), the recipe's prompt section."""
    around = getattr(tokenizer, "chat_template", None) if prompt.format == "chat" else _beginning(tokenizer) or None
    return hash_json([around, prompt.settings()])[:16]


def _beginning(tokenizer: Any) -> list[int]:
    """The beginning-of-text token, where the tokenizer itself puts one before a text. What some put
    after it is left out: an end of text is no place to go on from."""
    return [id_ for id_ in tokenizer.encode("x")[:1] if id_ == tokenizer.bos_token_id]


def _control_tokens(tokenizer: Any) -> list[str]:
    """Every token that a text must not hold, those that only tokenizer.json calls special included."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [token for token in (*tokenizer.all_special_tokens, *added) if token]
