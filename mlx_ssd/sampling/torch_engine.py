"""The engine in PyTorch, for a machine with CUDA: Transformers' model and its cache, our draw.

Requests and completions are those of `engine`, and the tokens too: uniforms are a function of the sample and the
position, and equal logits are drawn from alike (`torch_ref.policy`). What differs are the last bits of the logits
(rule 3 in docs/method.md). Transformers' own `generate` draws from one generator for the whole batch.

No padding goes through the model: prompts of one length are run together, each once for all its rows that join, and
rows in decoding are filled up with zeros on the left, which are masked. Rows that end leave at once; others join when
an eighth of the places is free, because joining copies the cache. Where a model keeps anything but the keys and values
of every token (windows, recurrent states), a batch is prompts of one length; the next begins when all have ended.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mlx_ssd import heartbeat, models
from mlx_ssd.decoding.draw import NO_TOKEN
from mlx_ssd.decoding.rng import uniform_u32
from mlx_ssd.errors import OutOfMemory
from mlx_ssd.machine import working_set as machine_memory
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.requests import Completed, Request, Row, not_finite, too_large
from mlx_ssd.torch_ref import model as torch_model
from mlx_ssd.torch_ref.policy import draw
from mlx_ssd.torch_ref.weights import TorchWeights

RESERVE = 0.1  # of the memory: fragments, and the library's own
PREFILL_TOKENS = 2048  # of prompts in one forward pass, at the most; a longer prompt goes alone
PREFILL_SHARE = 0.1  # of the memory beside weights and one row
FREE_SHARE = 8  # rows join when one place in so many is free
DRAW_BYTES = 40  # of the draw for each token of the vocabulary: logits in float32, keys of 64 bits, and copies


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(source: models.ModelSource, dtype: str = "auto") -> tuple[Any, Any]:
    """(model, tokenizer) on the device: of quantized weights what their integers stand for.

    dtype "auto" means as stored on a GPU, but float32 of a quantized model, which 16 bits would change, and float32
    on a CPU. Raises BadInput when a file is missing or corrupt, or Transformers has no such model.
    """
    weights = TorchWeights(source.path)
    if dtype == "auto":
        whole = device().type == "cpu" or "quantization" in weights.config
        kinds = {"float32"} if whole else {weights.dtype(name) for name in weights.names}
        dtype = next((name for name in ("float16", "bfloat16") if name in kinds), "float32")
    try:
        model = torch_model.build(source.path, weights.names, weights.read, dtype).to(device())
    except torch.OutOfMemoryError:
        raise _out_of_memory() from None
    return model, models.load_generating_tokenizer(source)


def working_set() -> int:
    """Bytes that may be used here, those in use by this process included: of the GPU's memory, or of the machine's."""
    if device().type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return int((1 - RESERVE) * (free + torch.cuda.memory_reserved()))
    return machine_memory.working_set()


@dataclass
class _Batch:
    """Rows side by side. In the cache each begins after `pads` columns, which hold nothing."""

    rows: list[Row]
    cache: DynamicCache
    pads: np.ndarray  # int64 [rows]
    logits: Tensor  # [rows, vocabulary], before each row's next token

    @property
    def width(self) -> int:
        return self.cache.get_seq_length()

    def keep(self, places: Sequence[int]) -> None:
        """These rows alone stay."""
        chosen = torch.tensor(places, device=self.logits.device)
        self.cache.reorder_cache(chosen)
        self.logits = self.logits[chosen]
        self.pads = self.pads[np.asarray(places)]
        self.rows = [self.rows[place] for place in places]

    def trim(self) -> None:
        """Take away columns that hold nothing in any row."""
        empty = int(self.pads.min())
        if empty:
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, empty:], layer.values[:, :, empty:]
            self.pads = self.pads - empty

    def join(self, others: Sequence[_Batch]) -> None:
        """The others' rows are added; their caches are of no use afterwards."""
        batches = [self, *others]
        missing = [max(batch.width for batch in batches) - batch.width for batch in batches]
        for layers in zip(*(batch.cache.layers for batch in batches), strict=True):
            for name in ("keys", "values"):
                parts = [
                    F.pad(getattr(layer, name), (0, 0, columns, 0))
                    for layer, columns in zip(layers, missing, strict=True)
                ]
                setattr(layers[0], name, torch.cat(parts))
        self.pads = np.concatenate([batch.pads + columns for batch, columns in zip(batches, missing, strict=True)])
        self.logits = torch.cat([batch.logits for batch in batches])
        self.rows = [row for batch in batches for row in batch.rows]


class Decoding:
    """As `engine.Decoding`: the rows in decoding, those that will follow, and the loop over steps."""

    def __init__(
        self,
        model: Any,
        requests: Sequence[Request],
        stop_tokens: Iterable[int],
        rows: int,
        *,
        loops: LoopStop | None = None,
        memory: int | None = None,
    ):
        """As `engine.generate`, but for `memory`: so many rows are decoded as have room were all of them the longest.
        Raises BadInput as it does."""
        self._model = model
        self._device = next(model.parameters()).device
        renamed = "cache" in inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if renamed else "past_key_values"  # until Transformers 5.24
        self._stops = frozenset(stop_tokens)
        self._waiting = deque(Row(request, loops) for request in requests)
        self._batch: _Batch | None = None
        probe = self._new_cache()
        vocabulary = self._forward(torch.zeros((1, 1), dtype=torch.int64, device=self._device), probe).shape[-1]
        self._can_join = all(type(layer) is DynamicLayer for layer in probe.layers)
        self._most_rows = min(rows, len(self._waiting))
        self.expected_peak = 0.0
        self._make_room(_bytes(probe), vocabulary * DRAW_BYTES, memory)

    def _make_room(self, token_bytes: int, draw_bytes: int, memory: int | None) -> None:
        weights = sum(tensor.nbytes for tensor in self._model.parameters())
        size = max((row.size for row in self._waiting), key=lambda size: size[0] + size[2])
        row = token_bytes * (size[0] + size[2]) + draw_bytes
        prefill = _width(self._model.config.get_text_config()) * self._model.dtype.itemsize
        longest = max(len(row.request.prompt_ids) for row in self._waiting)
        self._prefill_tokens = max(PREFILL_TOKENS, longest)
        if memory is not None:
            least = weights + longest * prefill + row
            if least > memory:
                raise too_large(size, least, weights, memory)
            share = int(PREFILL_SHARE * (memory - weights - row) / prefill)
            self._prefill_tokens = max(longest, min(share, PREFILL_TOKENS))
            self._most_rows = min(self._most_rows, int((memory - weights - self._prefill_tokens * prefill) // row))
        self.expected_peak = weights + self._prefill_tokens * prefill + self._most_rows * row

    def run(self, on_tokens: Callable[[int], None] | None = None) -> Iterator[Completed]:
        """The completions, in the order they end. Raises WorkFailed when the model's output is not finite."""
        try:
            while self._waiting or self._batch:
                self._admit()
                ended = self._draw()
                if on_tokens:
                    on_tokens(len(self._batch.rows))
                for row, reason in ended:
                    yield Completed(row.request.key, row.tokens, reason)
                self._leave([row for row, _ in ended])
                if self._batch:
                    self._step()
        except torch.OutOfMemoryError:
            raise _out_of_memory() from None

    @torch.inference_mode()
    def _admit(self) -> None:
        """Fill places that are free, once there are enough of them."""
        free = self._most_rows - (len(self._batch.rows) if self._batch else 0)
        if not self._waiting or (self._batch and (not self._can_join or free * FREE_SHARE < self._most_rows)):
            return
        first = len(self._waiting[0].request.prompt_ids)
        fitting = [row for row in self._waiting if self._can_join or len(row.request.prompt_ids) == first][:free]
        admitted = set(map(id, fitting))
        self._waiting = deque(row for row in self._waiting if id(row) not in admitted)
        batches = [*([self._batch] if self._batch else []), *self._prefill(fitting)]
        if len(batches) > 1:
            batches[0].join(batches[1:])
        self._batch = batches[0]

    def _prefill(self, rows: Sequence[Row]) -> Iterator[_Batch]:
        """Prompts of one length together, each once for all its rows."""
        of_length: dict[int, dict[tuple[int, ...], list[Row]]] = {}
        for row in rows:
            prompt = tuple(row.request.prompt_ids)
            of_length.setdefault(len(prompt), {}).setdefault(prompt, []).append(row)
        for length, of_prompt in of_length.items():
            together = self._prefill_tokens // length if self._can_join else len(of_prompt)
            prompts = list(of_prompt)
            for start in range(0, len(prompts), together):
                part, cache = prompts[start : start + together], self._new_cache()
                logits = self._forward(torch.tensor(part, device=self._device), cache)
                heartbeat.alive()
                places = [place for place, prompt in enumerate(part) for _ in of_prompt[prompt]]
                chosen = torch.tensor(places, device=self._device)
                cache.reorder_cache(chosen)
                alike = [row for prompt in part for row in of_prompt[prompt]]
                yield _Batch(alike, cache, np.zeros(len(alike), np.int64), logits[chosen])

    @torch.inference_mode()
    def _draw(self) -> list[tuple[Row, str]]:
        """One token for every row; the rows that it ended, and how."""
        rows = self._batch.rows
        keys = tuple(np.array([row.request.random_key[i] for row in rows], np.uint32) for i in (0, 1))
        uniforms = uniform_u32(keys, np.array([len(row.tokens) for row in rows]))
        tokens = draw(self._batch.logits, [row.request.policy for row in rows], uniforms).tolist()
        ended = []
        for row, token in zip(rows, tokens, strict=True):
            if token == NO_TOKEN:
                raise not_finite(row.request.key)
            row.tokens.append(token)
            if token in self._stops:
                ended.append((row, "stop"))
            elif row.loop and row.loop.add(token):
                ended.append((row, "loop"))
            elif len(row.tokens) == row.request.max_tokens:
                ended.append((row, "length"))
        return ended

    @torch.inference_mode()
    def _leave(self, ended: list[Row]) -> None:
        if not ended:
            return
        gone = set(map(id, ended))
        staying = [place for place, row in enumerate(self._batch.rows) if id(row) not in gone]
        if not staying:
            self._batch = None
            return
        self._batch.keep(staying)
        self._batch.trim()

    @torch.inference_mode()
    def _step(self) -> None:
        """What the model says after the last token of every row."""
        batch = self._batch
        inputs = torch.tensor([[row.last] for row in batch.rows], device=self._device)
        options = {}
        if batch.pads.any():
            pads = torch.from_numpy(batch.pads).to(self._device)[:, None]
            options["attention_mask"] = torch.arange(batch.width + 1, device=self._device) >= pads
            options["position_ids"] = batch.width - pads
        batch.logits = self._forward(inputs, batch.cache, **options)

    @torch.inference_mode()
    def _forward(self, inputs: Tensor, cache: DynamicCache, **options: Tensor) -> Tensor:
        """Token ids [rows, tokens] -> logits [rows, vocabulary] after the last; the cache grows."""
        options = {self._cache_argument: cache, "use_cache": True, "logits_to_keep": 1, **options}
        return self._model(inputs, **options).logits[:, -1]

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._model.config)


def _bytes(cache: DynamicCache) -> int:
    tensors = (getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values"))
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _width(config: Any) -> int:
    """Numbers that a layer holds for a token of a prompt, at the most: as `memory.working_bytes` reckons."""
    hidden, mlp = config.hidden_size, getattr(config, "intermediate_size", None) or 0
    return 6 * hidden + 3 * mlp


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory("the GPU's memory ran out; lower rows or memory_gb, or take a smaller model")
