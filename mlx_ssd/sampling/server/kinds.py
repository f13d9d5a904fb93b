"""What each kind of server takes and gives, and in which order it decodes.

Read in their sources: mlx_lm.server 0.32 (`mlx_lm/server.py`, `sample_utils.py`), vLLM
(`entrypoints/openai/completion/protocol.py`, `v1/sample/ops/topk_topp_sampler.py`), SGLang (`srt/layers/sampler.py`:
top-k and top-p are both applied to the whole tempered distribution); LM Studio's from its documentation.

Every setting that shapes the distribution is sent, off where the recipe has none: a server would otherwise take its own
default, or the model's `generation_config.json`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.server.client import Client, Fault
from mlx_ssd.sections import Server

# Of an order: is top-p measured on the tempered distribution, and on what top-k has left?
ORDERS = {
    "temperature_first": (True, True),
    "mlx_lm": (False, False),
    "llama_cpp": (False, True),
    "joint": (True, False),
}
MLX_LM_FINGERPRINT = re.compile(r"(\d+\.\d+\.\d+)\S*?-\d+\.\d+\.\d+\S*-(macOS|Darwin|Linux|Windows)")
LONGEST_NAME = 500  # characters of a model's name, which goes into the manifest
DEFAULT_MODEL = {"mlx_lm": "default_model", "sglang": ""}  # of others: the first that they list


@dataclass(frozen=True)
class Asked:
    """A prompt, and how it is sent: as token ids, or as a text that becomes them."""

    ids: tuple[int, ...]
    text: str | None = None

    @property
    def sent(self) -> list[int] | str:
        return list(self.ids) if self.text is None else self.text


@dataclass(frozen=True)
class Question:
    prompt: Asked
    policy: DecodingPolicy
    max_tokens: int
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True)
class Answer:
    ids: list[int] | None  # None: the server gives text alone
    text: str
    finish: str  # "stop" or "length"
    prompt_tokens: int | None
    completion_tokens: int | None
    logprobs: list[float] | None  # of each drawn token; as a rule at temperature 1, before truncation
    model: str | None  # by the server's own account, with its fingerprint


@dataclass(frozen=True)
class Kind:
    name: str
    order: str | None  # None: not known
    takes_ids: bool  # prompts
    seeds: bool  # whether a seed makes a draw, without special settings of the server
    path: str
    body: Callable[[str, Question], dict[str, Any]]
    read: Callable[[Any], Answer]


@dataclass(frozen=True)
class Peer:
    """A server as it was found."""

    kind: Kind
    version: str | None
    model: str

    @property
    def name(self) -> str:
        return f"{self.kind.name} {self.version}" if self.version else self.kind.name


def order_of(peer: Peer, settings: Server) -> str | None:
    """The order that it decodes in: by kind and version, or by the recipe for a kind that does not tell."""
    if peer.kind.name == "mlx_lm" and not (peer.version or "").startswith("0.32."):
        return settings.order  # older ones tempered first, and nobody has read a newer one
    return peer.kind.order or settings.order


def same_distribution(policy: DecodingPolicy, order: str) -> bool:
    """Whether a decoding in `order` is what `policy` says in its own order."""
    if policy.greedy or policy.top_p == 1:
        return True  # tempering does not change which k are the largest
    (tempered, after_top_k), (its_tempered, its_after) = ORDERS[policy.order], ORDERS[order]
    return (tempered == its_tempered or policy.temperature == 1) and (after_top_k == its_after or policy.top_k == 0)


def check_order(policy: DecodingPolicy, name: str, order: str | None) -> None:
    """Raises BadInput where a server (`name`) does not draw from what the policy says, or nobody knows whether."""
    if order is None:
        if not all(same_distribution(policy, known) for known in ORDERS):
            raise BadInput(
                f"in which order {name} applies temperature, top-k and top-p is not known, and for {policy.name()} it "
                "matters; say it in sample.server.order, or set top_p to 1"
            )
    elif not same_distribution(policy, order):
        how = {
            "mlx_lm": "truncates before it tempers",
            "llama_cpp": "truncates before it tempers",
            "joint": "takes top-p of the whole tempered distribution, not of the top k",
            "temperature_first": "tempers before it truncates",
        }[order]
        own = f"set sample.decoding.order to {order}, " if order != "joint" else "set top_k to 0, "
        raise BadInput(
            f"{name} {how}, which is another distribution than {policy.name()} in order {policy.order}: "
            f"{own}set top_p to 1, or take another server"
        )


def detect(client: Client, settings: Server, ask: Callable[[Callable[[], Any]], Any]) -> Peer:
    """Which server answers. ask: calls what it is given, again after a Fault."""
    kind = settings.kind
    listed = _quietly(ask, lambda: client.get("/v1/models")) if kind != "mlx_lm" else None  # which may drop the line
    models = listed.get("data") if isinstance(listed, dict) else None
    models = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    owner = str(models[0].get("owned_by")) if models else ""
    if kind == "auto":
        kind = {"vllm": "vllm", "sglang": "sglang", "organization_owner": "lm_studio"}.get(owner, "")
    version = None
    if kind == "vllm":
        version = _field(_quietly(ask, lambda: client.get("/version")), "version")
    elif kind == "sglang":
        version = _field(_quietly(ask, lambda: client.get("/get_server_info")), "version")
    elif kind in ("", "mlx_lm"):
        body = {"prompt": "x", "max_tokens": 1, "temperature": 0.0}
        body |= {"model": settings.model or (models and models[0].get("id")) or DEFAULT_MODEL["mlx_lm"]}
        found = ask(lambda: client.post("/v1/completions", body, 1 << 20))
        version = _field(found, "system_fingerprint")
        told = MLX_LM_FINGERPRINT.match(version or "")
        version = told[1] if told else None
        kind = kind or ("mlx_lm" if told else "other")
    name = settings.model or DEFAULT_MODEL.get(kind)
    if name is None:
        if not models or not isinstance(models[0].get("id"), str) or len(models[0]["id"]) > LONGEST_NAME:
            raise BadInput(f"{client.url} does not say which models it has; name one in sample.server.model")
        name = models[0]["id"]
    return Peer(KINDS[kind], version, name)


def _quietly(ask: Callable[[Callable[[], Any]], Any], call: Callable[[], Any]) -> Any:
    """The answer, or None where there is none to such a question."""

    def tolerant() -> Any:
        try:
            return call()
        except BadInput:
            return None
        except Fault as fault:
            if fault.name in ("malformed", "truncated", "connection") and "refused" not in str(fault):
                return None  # mlx_lm.server breaks off where it has no cache of models
            raise

    return ask(tolerant)


def _field(found: Any, name: str) -> str | None:
    value = found.get(name) if isinstance(found, dict) else None
    return value[:80] if isinstance(value, str) else None


def _plain(model: str, question: Question) -> dict[str, Any]:
    policy = question.policy
    body = {
        "model": model,
        "prompt": question.prompt.sent,
        "max_tokens": question.max_tokens,
        "temperature": float(policy.temperature),
        "top_p": float(policy.top_p),
        "stream": False,
    }
    return body if question.seed is None else body | {"seed": question.seed}


def _vllm(model: str, question: Question) -> dict[str, Any]:
    off = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    body = _plain(model, question) | off | {"top_k": question.policy.top_k or -1, "return_token_ids": True}
    return body | {"logprobs": 0} if question.logprobs else body  # 0: of the drawn token alone


def _mlx_lm(model: str, question: Question) -> dict[str, Any]:
    # Token ids stand beside the log-probabilities. A repetition_penalty of 1 would cost time and change nothing.
    return _plain(model, question) | {"top_k": question.policy.top_k, "min_p": 0.0, "logprobs": True}


def _lm_studio(model: str, question: Question) -> dict[str, Any]:
    off = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return _plain(model, question) | off | {"top_k": question.policy.top_k}


def _other(model: str, question: Question) -> dict[str, Any]:
    body = _plain(model, question)
    if question.policy.top_k:  # OpenAI's own refuses it
        body["top_k"] = question.policy.top_k
    return body | {"logprobs": 1} if question.logprobs else body


def _sglang(model: str, question: Question) -> dict[str, Any]:
    policy = question.policy
    parameters = {
        "temperature": float(policy.temperature),
        "top_p": float(policy.top_p),
        "top_k": policy.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_new_tokens": question.max_tokens,
    }
    if question.seed is not None:
        parameters["sampling_seed"] = question.seed
    return {"input_ids": question.prompt.sent, "sampling_params": parameters, "return_logprob": True, "stream": False}


def _read_completion(found: Any) -> Answer:
    choices = _of(found, dict, "an object").get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise _malformed("choices of one element")
    choice = choices[0]
    usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
    ids, logprobs = choice.get("token_ids"), None
    given = choice.get("logprobs")
    if isinstance(given, dict) and isinstance(given.get("content"), list):
        content = [_of(entry, dict, "objects in logprobs.content") for entry in given["content"]]
        logprobs = [entry.get("logprob") for entry in content]
        if ids is None and content and all("id" in entry for entry in content):
            ids = [entry["id"] for entry in content]
    elif isinstance(given, dict) and isinstance(given.get("token_logprobs"), list):
        logprobs = given["token_logprobs"]
    told = [found.get(name) for name in ("model", "system_fingerprint") if isinstance(found.get(name), str)]
    return Answer(
        _ids(ids),
        _of(choice.get("text"), str, "a text in choices[0]"),
        _finish(choice.get("finish_reason")),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _numbers(logprobs),
        " ".join(told) or None,
    )


def _read_sglang(found: Any) -> Answer:
    found = _of(found, dict, "an object")
    meta = _of(found.get("meta_info"), dict, "meta_info")
    finish = _of(meta.get("finish_reason"), dict, "meta_info.finish_reason")
    drawn = _of(meta.get("output_token_logprobs"), list, "meta_info.output_token_logprobs")
    if not all(isinstance(entry, list) and len(entry) >= 2 for entry in drawn):
        raise _malformed("[log-probability, id, …] in meta_info.output_token_logprobs")
    return Answer(
        _ids([entry[1] for entry in drawn]),
        _of(found.get("text"), str, "a text"),
        _finish(finish.get("type")),
        _count(meta.get("prompt_tokens")),
        _count(meta.get("completion_tokens")),
        _numbers([entry[0] for entry in drawn]),
        str(meta["weight_version"]) if "weight_version" in meta else None,
    )


def _malformed(what: str) -> Fault:
    return Fault("malformed", f"the server's answer has no {what}; is that a server of this kind?")


def _of(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise _malformed(what)
    return value


def _ids(ids: Any) -> list[int] | None:
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
        raise _malformed("whole numbers as token ids")
    return ids


def _numbers(values: Any) -> list[float] | None:
    if values is None:
        return None
    good = all(isinstance(value, (int, float)) and math.isfinite(value) and value <= 1e-3 for value in values)
    return [float(value) for value in values] if good else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _finish(reason: Any) -> str:
    if reason == "tool_calls":  # mlx_lm.server's word where a turn ended in one
        return "stop"
    if reason not in ("stop", "length"):
        raise Fault("malformed", f"the server ended an answer by {str(reason)[:40]!r}, neither stop nor length")
    return reason


COMPLETIONS = "/v1/completions"
KINDS = {
    "vllm": Kind("vllm", "temperature_first", True, True, COMPLETIONS, _vllm, _read_completion),
    "sglang": Kind("sglang", "joint", True, False, "/generate", _sglang, _read_sglang),
    "mlx_lm": Kind("mlx_lm", "mlx_lm", False, True, COMPLETIONS, _mlx_lm, _read_completion),
    "lm_studio": Kind("lm_studio", None, False, True, COMPLETIONS, _lm_studio, _read_completion),
    "other": Kind("other", None, False, True, COMPLETIONS, _other, _read_completion),
}
