"""The engine whose samples a server draws (docs/servers.md): found out, checked, then asked for every request once.

Rule 3 does not hold for it: the server's draw is its own. Where it takes a seed, that is a function of the sample, and
what it draws again is the same as far as its kernels are. Every sample says who drew it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlx_ssd import heartbeat, models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.requests import Completed, Request, Row
from mlx_ssd.sampling.server import checks, kinds
from mlx_ssd.sampling.server.asking import Asking
from mlx_ssd.sampling.server.checks import Drawn, Own
from mlx_ssd.sampling.server.client import Client, Fault
from mlx_ssd.sampling.server.kinds import Answer, Asked, Question
from mlx_ssd.sections import Server
from mlx_ssd.storage import read_json

ANSWER_BYTES, TOKEN_BYTES = 1 << 20, 1 << 10  # an answer may have so many, and so many a token


@dataclass(frozen=True)
class Served:
    """In place of a model: what the server should have, and its tokenizer."""

    settings: Server
    source: models.ModelSource
    dtype: str
    tokenizer: Any
    config: dict[str, Any]

    @property
    def args(self) -> SimpleNamespace:
        """As `models.context_length` asks for it."""
        return SimpleNamespace(max_position_embeddings=self.config.get("max_position_embeddings"))


def load(settings: Server, source: models.ModelSource, dtype: str) -> tuple[Served, Any]:
    """(what stands for the model, tokenizer). The model itself is loaded for the checks alone."""
    config = read_json(Path(source.path) / "config.json")
    tokenizer = models.load_generating_tokenizer(source)
    return Served(settings, source, dtype, tokenizer, config.get("text_config", {}) | config), tokenizer


class Decoding:
    """As `engine.Decoding`, by a server. Checks it when it is made."""

    expected_peak = 0.0  # what the checks load is gone before the first sample

    def __init__(
        self,
        model: Served,
        requests: Sequence[Request],
        stop_tokens: Iterable[int],
        rows: int,
        *,
        loops: LoopStop | None = None,
        memory: int | None = None,
    ):
        """rows, memory: the server's own affair. Raises BadInput where the server cannot serve this recipe, WorkFailed
        where there is none."""
        self._served, self._requests, self._stops, self._loops = model, requests, frozenset(stop_tokens), loops
        settings = model.settings
        self._client = Client(settings.url, settings.timeout_seconds)
        self._asking = Asking(self._client, settings.concurrency, settings.retries)
        self._told: str | None = None  # what the server calls its model
        try:
            self._peer = kinds.detect(self._client, settings, self._answered)
            order = kinds.order_of(self._peer, settings)
            self._policy = _policy_of(requests)
            kinds.check_order(self._policy, self._peer.name, order)
            self._seeds = self._peer.kind.seeds if settings.seeds is None else settings.seeds
            self._prompts = {tuple(r.prompt_ids): self._prompt(r) for r in requests}
            self._retokenized = False
            checked = self._check()
        except BaseException:
            self._asking.stop()
            raise
        self._server = {
            "kind": self._peer.kind.name,
            "version": self._peer.version,
            "model": self._peer.model,
            "order": order,
            "seeded": self._seeds,
            "token_ids": "RE-TOKENIZED from text: not surely those that were drawn" if self._retokenized else "given",
            "checked": checked,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"server": {**self._server, "faults": dict(sorted(self._asking.faults.items()))}}

    def run(self, on_tokens: Callable[[int], None] | None = None) -> Iterator[Completed]:
        """The completions, in the order they end. Raises BadInput where an answer does not fit what was asked,
        WorkFailed where a question was in vain too often."""
        said = on_tokens or (lambda drawn: None)
        calls = [(request, lambda request=request: self._completed(request)) for request in self._requests]
        for _, completed in self._asking.each(calls, lambda: said(0)):
            said(len(completed.completion_ids))
            yield completed
        self._asking.stop()

    def _completed(self, request: Request) -> Completed:
        seed = seed_of(request) if self._seeds else None
        prompt = self._prompts[tuple(request.prompt_ids)]
        answer = self._answer(Question(prompt, request.policy, request.max_tokens, seed))
        ids, ended = self._tokens(answer, request.max_tokens)
        row = Row(request, self._loops)
        reason = "stop" if ended else "length"
        for place, token in enumerate(ids if row.loop else (), start=1):
            if row.loop.add(token) and place < len(ids):
                ids, reason = ids[:place], "loop"
                break
        about = {"drawn_by": self._peer.name, "seeded": self._seeds, "retokenized": answer.ids is None}
        return Completed(request.key, ids, reason, about)

    def _answer(self, question: Question) -> Answer:
        """One try. Raises Fault, or BadInput where another prompt was read, or another model answers."""
        kind = self._peer.kind
        limit = ANSWER_BYTES + TOKEN_BYTES * question.max_tokens
        answer = kind.read(self._client.post(kind.path, kind.body(self._peer.model, question), limit))
        if answer.prompt_tokens not in (None, len(question.prompt.ids)):
            raise BadInput(
                f"the server made {answer.prompt_tokens} tokens of a prompt of {len(question.prompt.ids)}: it has "
                "another tokenizer, or adds a template of its own; serve model.path itself"
            )
        if answer.ids is None and self._served.settings.retokenize == "refuse":
            raise BadInput(
                f"{self._peer.name} gives text without token ids, and the text's own tokens need not be those that it "
                "drew; take a server that gives them, or set sample.server.retokenize to allow"
            )
        self._retokenized |= answer.ids is None
        if self._told is None:
            self._told = answer.model
        if answer.model != self._told:
            raise BadInput(
                f"the server now answers as {answer.model!r}, before as {self._told!r}; let it serve one model, and "
                "run the same command again"
            )
        return answer

    def _tokens(self, answer: Answer, max_tokens: int) -> tuple[list[int], bool]:
        """(the answer's tokens, with the end of turn where it came to one; whether it did)."""
        ids = answer.ids
        if ids is None:
            return self._of_text(answer)
        if len(ids) > max_tokens:
            raise BadInput(f"the server ignores max_tokens: asked for {max_tokens}, it gave {len(ids)}")
        if any(token >= self._served.config["vocab_size"] for token in ids):
            raise BadInput(f"the server drew token {max(ids)}, which the model does not have; serve model.path itself")
        end = next((place for place, token in enumerate(ids, start=1) if token in self._stops), None)
        if end:
            return ids[:end], True
        if answer.finish == "stop":
            raise BadInput(
                f"the server ended an answer at token {ids[-1] if ids else None}, which ends no turn of model.path; "
                "serve model.path itself, without stop words"
            )
        if len(ids) < max_tokens:
            raise BadInput(
                f"the server cuts answers at {len(ids)} tokens, sample.max_tokens is {max_tokens}: raise its limit, or "
                "lower sample.max_tokens"
            )
        return ids, False

    def _of_text(self, answer: Answer) -> tuple[list[int], bool]:
        tokenizer = self._served.tokenizer
        ids = list(tokenizer.encode(answer.text, add_special_tokens=False))
        ended = answer.finish == "stop"
        if ended:  # it was drawn, and left out of the text
            ids.append(tokenizer.eos_token_id)
        if not ids:
            raise Fault("malformed", "the server's answer is empty, and yet not at an end")
        return ids, ended

    def _prompt(self, request: Request) -> Asked:
        """As the kind takes it."""
        if self._peer.kind.takes_ids:
            return Asked(tuple(request.prompt_ids))
        tokenizer, ids = self._served.tokenizer, request.prompt_ids
        for some in (ids, ids[1:]):  # a server may put the beginning of text before it by itself
            text = tokenizer.decode(some)
            if list(tokenizer.encode(text)) == ids:
                return Asked(tuple(ids), text)
        raise BadInput(
            f"{self._peer.name} takes prompts as text alone, and that of {request.key} does not come back as the same "
            "tokens; take vLLM or SGLang, which take token ids"
        )

    def _check(self) -> dict[str, Any]:
        settings, policy = self._served.settings, self._policy
        prompts = list(self._prompts.values())
        checks.check_settings(self._ask, prompts, policy, self._seeds)
        if settings.tolerance is None:
            return {"model": "not looked at"}
        own = Own(models.load(self._served.source, self._served.dtype)[0])
        try:
            root = self._drawn(prompts, checks.ROOT, checks.MODEL_PROMPTS, checks.MODEL_TOKENS, logprobs=True)
            found: dict[str, Any] = {}
            if told := [drawn for drawn in root if drawn.logprobs and len(drawn.logprobs) == len(drawn.ids)]:
                found = checks.check_model(own, told, settings.tolerance)
            else:
                found = {"log-probabilities": "none given: the model was judged by its draws alone"}
                checks.check_decoding(own, root, checks.ROOT)
            drawn = self._drawn(prompts, policy, checks.DECODING_PROMPTS, checks.DECODING_TOKENS)
            return found | checks.check_decoding(own, drawn, policy)
        finally:
            del own
            _free()

    def _drawn(
        self, prompts: Sequence[Asked], policy: DecodingPolicy, count: int, tokens: int, logprobs: bool = False
    ) -> list[Drawn]:
        """`count` answers, to different prompts as far as there are so many, of at most so many tokens."""
        most = min(tokens, min(request.max_tokens for request in self._requests))
        questions = [
            Question(prompts[i % len(prompts)], policy, most, 1000 + i if self._seeds else None, logprobs)
            for i in range(count)
        ]
        found = []
        for question, answer in zip(questions, self._ask(questions), strict=True):
            drawn, _ = self._tokens(answer, most)
            if answer.ids is not None or answer.completion_tokens in (None, len(drawn), len(drawn) - 1):
                found.append(Drawn(list(question.prompt.ids), drawn, answer.logprobs))
        if not found:
            raise BadInput("no answer's text becomes as many tokens as the server drew; take one that gives token ids")
        return found

    def _ask(self, questions: Sequence[Question]) -> list[Answer]:
        return self._all_answered([lambda asked=question: self._answer(asked) for question in questions])

    def _answered(self, call: Callable[[], Any]) -> Any:
        return self._all_answered([call])[0]

    def _all_answered(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The answers in order. While a server is silent there are signs of life: its time-out alone ends the wait."""
        answers = self._asking.each(list(enumerate(calls)), lambda: heartbeat.beat("check the server", 0, 1))
        return [answer for _, answer in sorted(answers, key=lambda pair: pair[0])]


def seed_of(request: Request) -> int:
    """31 bits, which every server takes, of the sample's key: a function of (seed, stream, problem, sample)."""
    return request.random_key[0] & 0x7FFFFFFF


def _policy_of(requests: Sequence[Request]) -> DecodingPolicy:
    policies = {request.policy for request in requests}
    policy = policies.pop()
    if policies or not isinstance(policy, DecodingPolicy):
        raise BadInput("a server draws by one temperature, top-k and top-p; take engine mlx or torch")
    return policy


def _free() -> None:
    import gc

    import mlx.core as mx

    gc.collect()
    mx.clear_cache()
