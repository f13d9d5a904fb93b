"""Other programs' commands that prompt and decode as the run's own evaluation does, and the form of its prompts."""

from __future__ import annotations

import json
import shlex

from mlx_ssd.prompts import messages, template_options
from mlx_ssd.recipe import Recipe

YOURS = "..."  # stands for what the user asks
# llama.cpp's samplers in each of our orders; its own chain has more.
SAMPLERS = {
    "temperature_first": "temperature;top_k;top_p",
    "mlx_lm": "top_p;top_k;temperature",
    "llama_cpp": "top_k;top_p;temperature",
}


def mlx_lm(recipe: Recipe, model: str, adapter: str | None = None) -> str:
    """The whole command. Told nothing, mlx_lm.generate is greedy, ends after 100 tokens, and has every model think
    that can."""
    prompt, decoding = recipe.prompt, recipe.evaluate.decoding
    options = [f"mlx_lm.generate --model {quoted(model)}", *([f"--adapter-path {adapter}"] if adapter else [])]
    if prompt.format == "raw":
        options.append("--ignore-chat-template")
    else:
        options += [f"--system-prompt {quoted(prompt.system)}"] if prompt.system else []
        options.append(f"--chat-template-config {quoted(json.dumps(template_options(prompt)))}")
    options += [f"--temp {decoding.temperature:g}", f"--top-p {decoding.top_p:g}", f"--top-k {decoding.top_k}"]
    return " ".join([*options, f"--max-tokens {recipe.evaluate.max_tokens}", f"--prompt '{YOURS}'"])


def llama_cpp(recipe: Recipe, file: str) -> str:
    """The whole command, its options as llama.cpp's tools/cli/README.md has them; not run here. llama-cli always
    converses, so that bare prompts are llama-completion's."""
    prompt, decoding = recipe.prompt, recipe.evaluate.decoding
    options = [f"llama-completion -m {file} -no-cnv"]
    if prompt.format == "chat":
        options = [f"llama-cli -m {file} --jinja"]
        options.append(f"--chat-template-kwargs {quoted(json.dumps(template_options(prompt)))}")
        options += [f"-sys {quoted(prompt.system)}"] if prompt.system else []
    options.append(f"--samplers {quoted(SAMPLERS[decoding.order])}")
    options += [f"--temp {decoding.temperature:g}", f"--top-k {decoding.top_k}", f"--top-p {decoding.top_p:g}"]
    return " ".join([*options, f"-n {recipe.evaluate.max_tokens}", f"-p '{YOURS}'"])


def prompted(recipe: Recipe) -> str:
    """JSON in one line: what the chat template, or without one the model itself, is given."""
    prompt = recipe.prompt
    if prompt.format == "raw":
        return json.dumps({"prompt": YOURS})
    return json.dumps({"messages": messages(YOURS, prompt)} | template_options(prompt), ensure_ascii=False)


def quoted(text: str) -> str:
    """A word of a shell (bash, zsh) on one line."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(c if c.isprintable() else _escaped(c) for c in escaped) + "'"


def _escaped(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t"}.get(character) or "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))
