"""What training holds in memory, and how the work of a step is cut so that it fits.

With P the trained parameters, T the tokens of the largest row in memory and L those of its longest sample:

    peak     = weights + states + step
    weights  = what is frozen as it is, what is trained in float32
    states   = 4 P x (gradient of the rows before, two moments of AdamW,
                      the best student so far where there is validation, the base where full training asks it)
    step     = max(kept, gradient) + working
    kept     = by trained layer, T activations, and the scores of every head on all pairs of a sample's tokens, unless
               the sample is long; where layers are recomputed their inputs alone
    gradient = 4 P, of this row: it grows as what is kept for it shrinks
    working  = what comes and goes: a layer's backward pass and the scores of a block of a long sample's queries, or
               the logits there are at a time (training/loss.py)

The coefficients were measured on Linux (`python -m benchmarks.training_memory`), on a Mac nothing has been.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from mlx_ssd.budget.model_size import ModelSize
from mlx_ssd.errors import BadInput
from mlx_ssd.sections import Training

ROWS = (8192, 6144, 4096, 3072, 2048, 1536, 1024)  # tokens: fewer leave the machine waiting, more gain nothing
AT_LEISURE = 0.5  # of the memory: beyond the longest sample, rows grow no further than this
BLOCK = 256  # queries of a sample whose scores exist at a time, if it is longer (training/blockwise.py)
CHUNK_BYTES = 64 * 2**20  # of one float32 copy of a chunk's logits (training/loss.py)


@dataclass(frozen=True)
class LayerBytes:
    """Of one layer: bytes a token and unit of each width, and bytes a head and pair of tokens."""

    hidden: float
    mlp: float
    heads: float  # query and key-value width together
    scores: float  # of samples of up to BLOCK tokens

    def of(self, size: ModelSize, tokens: int, longest: int, pairs: float | None = None) -> float:
        """Of a row of `tokens`, none of whose samples has more than `longest`.

        pairs: of tokens whose scores are kept, where that is known; None: as many as there can be.
        """
        widths = self.hidden * size.hidden + self.mlp * size.mlp + self.heads * (size.query + size.key_value)
        if pairs is None:
            pairs = tokens * longest if longest <= BLOCK else (tokens - longest) * BLOCK
        return tokens * widths + self.scores * size.heads * pairs


@dataclass(frozen=True)
class Coefficients:
    kept: LayerBytes  # for the backward pass
    working: LayerBytes  # where layers are recomputed: the forward and backward pass of one
    block: float  # of a longer sample, bytes a head and pair of a block's queries and all of its tokens
    input: int  # of a layer, bytes a token and unit of hidden size
    logits: float  # bytes a position and vocabulary entry of a chunk
    all_logits: float  # the same of a row, where a model has no plain head and all of its logits exist


# LoRA, by what the base computes in, quantized or not; of float16 with a float32 copy of what an adapter reads.
BFLOAT16 = Coefficients(LayerBytes(14, 10, 7, 2.4), LayerBytes(27, 20, 33, 6), 5, 2, 14, 6)
FLOAT16 = Coefficients(LayerBytes(30, 13, 8, 2.2), LayerBytes(72, 46, 31, 6), 5, 2, 14, 6)
FLOAT32 = Coefficients(LayerBytes(16, 20, 13, 4.2), LayerBytes(32, 52, 41, 13), 12, 4, 11, 16)
# Full training: all in float32, for the weights are.
FULL = Coefficients(LayerBytes(25, 20, 17, 4.1), LayerBytes(74, 45, 67, 14), 14, 4, 11, 16)
LORA = {"bfloat16": BFLOAT16, "float16": FLOAT16, "float32": FLOAT32}
WORKING_LAYERS = 1.25  # where nothing is recomputed: in layers of what is kept


@dataclass(frozen=True)
class TrainingPlan:
    """How a step's work is cut, and the memory that takes (computed)."""

    row_tokens: int
    gradient_checkpointing: bool
    peak_bytes: float | None  # None for a model whose config.json does not say enough


def training_plan(
    size: ModelSize,
    train: Training,
    weight_bytes: float,
    memory_bytes: float,
    longest_row: int,
    step_tokens: int,
    *,
    dtype: str = "bfloat16",
    plain_head: bool = True,
) -> TrainingPlan:
    """Choose `train.row_tokens` and `train.gradient_checkpointing` where the recipe leaves them to the memory.

    Nothing is recomputed where the longest sample and a row of useful length fit so. Rows are as long as the longest
    sample; longer ones, up to the tokens of a step, only while half of the memory is enough.

    weight_bytes: of the model as it is loaded. longest_row, step_tokens: tokens of the longest sample, and of all
    samples of a step. dtype: what the model computes in. plain_head: its logits are a plain map of hidden states.
    Raises BadInput where not even the longest sample alone fits.
    """

    def peak(row_tokens: int, recompute: bool, longest: int = longest_row) -> float:
        step = step_bytes(size, train, max(row_tokens, longest), longest, recompute, dtype=dtype, plain_head=plain_head)
        return resident_bytes(size, train, weight_bytes) + step

    chosen = train.gradient_checkpointing
    for recompute in (False, True) if chosen is None else (chosen,):
        useful = longest_row if recompute else max(longest_row, ROWS[-1])
        least = train.row_tokens or min(useful, step_tokens, ROWS[0])
        if peak(least, recompute) > memory_bytes:
            continue
        longer = [tokens for tokens in ROWS if least < tokens <= step_tokens and not train.row_tokens]
        tokens = next((t for t in longer if peak(t, recompute) <= AT_LEISURE * memory_bytes), least)
        return TrainingPlan(tokens, recompute, peak(tokens, recompute))

    recompute, tokens = chosen is not False, max(train.row_tokens or 0, longest_row)
    fits = bisect_right(range(longest_row), memory_bytes, key=lambda longest: peak(0, recompute, longest)) - 1
    lower = ["train.num_layers"]
    if tokens > longest_row:
        lower.append("train.row_tokens")
    if fits > 1:
        lower.append(f"train.max_length (to {fits}, with train.too_long cut or drop)")
    others = ["raise train.memory_gb", *["take train.method lora"] * (train.method == "full")]
    others += ["set train.gradient_checkpointing to true"] * (not recompute)
    raise BadInput(
        f"training on a row of {tokens:,} tokens takes {peak(tokens, recompute) / 1e9:.3g} GB (computed), and "
        f"{memory_bytes / 1e9:.3g} GB may be used; lower {' or '.join(lower)}, or {' or '.join(others)}"
    )


def resident_bytes(size: ModelSize, train: Training, weight_bytes: float) -> float:
    """What is there all through a training: weights and states."""
    return sum(resident_parts(size, train, weight_bytes).values())


def resident_parts(size: ModelSize, train: Training, weight_bytes: float) -> dict[str, float]:
    """The same by part: what is frozen, what is trained, and its gradient, moments and copies."""
    trained = trained_parameters(size, train)
    copies = 3 + (train.validation is not None)
    if train.method == "lora":
        return {"weights": weight_bytes, "adapter": 4 * trained, "optimizer": 4 * trained * copies}
    copies += train.targets == "distribution"
    frozen = weight_bytes * (1 - trained / size.parameters)
    return {"weights": frozen, "trained": 4 * trained, "optimizer": 4 * trained * copies}


def step_bytes(
    size: ModelSize,
    train: Training,
    tokens: int,
    longest: int,
    recompute: bool,
    *,
    dtype: str = "bfloat16",
    plain_head: bool = True,
) -> float:
    """What a row of `tokens`, none of whose samples has more than `longest`, takes beside that."""
    return sum(step_parts(size, train, tokens, longest, recompute, dtype=dtype, plain_head=plain_head).values())


def step_parts(
    size: ModelSize,
    train: Training,
    tokens: int,
    longest: int,
    recompute: bool,
    *,
    dtype: str = "bfloat16",
    plain_head: bool = True,
    positions: float | None = None,
    pairs: float | None = None,
) -> dict[str, float]:
    """The same by part: what is kept for the backward pass, and the larger of what comes and goes.

    positions: of the row's completion tokens, the only ones that have logits; None: as if all of it were completion.
    pairs: as in LayerBytes.of.
    """
    cost = FULL if train.method == "full" else LORA[dtype]
    layers = size.layers * size.trained_share(train.num_layers)
    layer = cost.kept.of(size, tokens, longest, pairs)
    kept, working = layers * layer, WORKING_LAYERS * layer
    if recompute:
        kept, working = layers * tokens * cost.input * size.hidden, cost.working.of(size, tokens, longest)
    if longest > BLOCK:
        working += cost.block * size.heads * BLOCK * longest
    logits = cost.logits * min((positions or tokens) * size.vocabulary, CHUNK_BYTES / 4)
    if train.method == "full" and train.num_layers < 0:
        logits += 2 * 4 * size.hidden * size.vocabulary  # the head's own gradient, and a chunk's part of it
    if not plain_head:
        logits += cost.all_logits * tokens * size.vocabulary
    kept = max(kept, 4 * trained_parameters(size, train))
    return {"activations": kept, **({"logits": logits} if logits > working else {"working": working})}


def trained_parameters(size: ModelSize, train: Training) -> float:
    share = size.trained_share(train.num_layers)
    if train.method == "lora":
        return train.rank * share * (size.adapter_parameters + train.experts * size.expert_adapter_parameters)
    return size.parameters if train.num_layers < 0 else share * size.layer_parameters
