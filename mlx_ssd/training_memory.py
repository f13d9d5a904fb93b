"""How the work of a training step is cut so that it fits into memory: computed, from the model's config.json.

With L the trained layers, H the hidden size, a the bytes of activations that one layer keeps of a token, R the tokens
of the row in hand, and 16-bit activations:

    trained      = float32 weights, their gradient twice (a sum and what is added to it) and AdamW's two moments
    kept         = L a R; with gradient checkpointing (2 L H + RECOMPUTED a) R, the inputs and one layer at a time
    attention    = where it is not fused (on a CPU), heads x n^2 for the longest sample, in each layer that is kept
    peak         = weights + trained + kept + attention + a chunk of logits
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_ssd.errors import BadInput
from mlx_ssd.model_size import ModelSize
from mlx_ssd.recipe import Training

TRAINED_BYTES = 20  # a trained parameter
CHUNK_BYTES = 64 * 2**20  # of one float32 copy of a chunk's logits (training/loss.py)
CHUNK_COPIES = 2.5
RECOMPUTED = 1.2  # a layer that is recomputed has its activations, and their gradients
SQUARE_BYTES = 12  # a head and pair of positions: scores, probabilities, and a gradient
LEAST_ROW, MOST_ROW = 1024, 4096  # tokens: below, kernels have little to do at once; above, nothing is gained


@dataclass(frozen=True)
class TrainingPlan:
    """How a step is cut. `peak_bytes` is what is expected of it, weights included."""

    row_tokens: int
    gradient_checkpointing: bool
    peak_bytes: float


@dataclass(frozen=True)
class TrainingMemory:
    """What a training of `model` takes. weight_bytes: the model's own, where it is loaded; None: by its config.json."""

    model: ModelSize
    train: Training
    weight_bytes: float | None = None
    fused_attention: bool = True

    def peak(self, row: int, sample: int, recomputed: bool) -> float:
        """Bytes for a row of so many tokens with a sample of so many in it."""
        return self._fixed + self._row(row, recomputed) + self._square(sample, recomputed)

    def longest(self, memory: float, recomputed: bool) -> int:
        """Tokens of the longest sample that fits into so many bytes, in a row of its own; 0 for none."""
        low, high = 0, 2**24
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.peak(middle, middle, recomputed) <= memory else (low, middle)
        return low

    def plan(self, memory: float, longest: int) -> TrainingPlan:
        """The cut for samples of up to `longest` tokens, as the recipe says it or as so many bytes allow.

        Raises BadInput where the longest sample does not fit.
        """
        train = self.train
        chosen = train.gradient_checkpointing
        ways = (False, True) if chosen is None else (chosen,)
        wanted = max(longest, train.row_tokens or LEAST_ROW)
        recomputed = next((way for way in ways if self.peak(wanted, longest, way) <= memory), ways[-1])
        if self.peak(longest, longest, recomputed) > memory:
            raise BadInput(self._refusal(memory, longest, recomputed))
        row = train.row_tokens
        if row is None:
            row = MOST_ROW
            while row > 1 and self.peak(max(row, longest), longest, recomputed) > memory:
                row = max(row // 2, 1)
        return TrainingPlan(row, recomputed, self.peak(max(row, longest), longest, recomputed))

    @property
    def _share(self) -> float:
        return self.model.trained_share(self.train.num_layers)

    @property
    def _fixed(self) -> float:
        model, train = self.model, self.train
        weights = model.weight_bytes if self.weight_bytes is None else self.weight_bytes
        if train.method == "full":
            trained = model.parameters * self._share
            copies = 4 if train.targets == "distribution" else 0  # the base that the targets come from
            weights -= weights * self._share  # held in float32 instead
        else:
            each = model.adapter_parameters + train.experts * model.expert_adapter_parameters
            trained, copies = train.rank * each * self._share, 0
        return weights + trained * (TRAINED_BYTES + copies) + CHUNK_COPIES * CHUNK_BYTES

    def _row(self, tokens: int, recomputed: bool) -> float:
        layers = self.model.layers * self._share
        one = self.model.activation_bytes
        if self.train.method == "full":
            one *= 2  # float32
        if recomputed:
            return tokens * (2 * self.model.hidden * layers + RECOMPUTED * one)
        return tokens * layers * one

    def _square(self, sample: int, recomputed: bool) -> float:
        if self.fused_attention:
            return 0
        layers = 1 if recomputed else self.model.layers * self._share
        return SQUARE_BYTES * self.model.heads * layers * sample**2

    def _refusal(self, memory: float, longest: int, recomputed: bool) -> str:
        train = self.train
        mends = ["train.num_layers"]
        fits = self.longest(memory, recomputed)
        if fits > 1:
            mends.append(f"train.max_length (to {fits:,}, with train.too_long drop or cut)")
        if train.method == "full":
            mends.append("train.method (to lora)")
        if not recomputed:
            mends.append("train.gradient_checkpointing (to true or null)")
        return (
            f"training on a sample of {longest:,} tokens takes {self.peak(longest, longest, recomputed) / 1e9:.3g} GB "
            f"(computed), and {memory / 1e9:.3g} GB may be used; change {', '.join(mends[:-1])} or {mends[-1]}"
            if len(mends) > 1
            else f"training takes {self.peak(longest, longest, recomputed) / 1e9:.3g} GB (computed), and "
            f"{memory / 1e9:.3g} GB may be used; change {mends[0]}, or take a smaller model"
        )
