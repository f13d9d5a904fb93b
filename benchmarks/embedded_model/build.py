"""Builds the embedded model and its problems from nothing but a seed: corpus, tokenizer, pre-training, files.

    python -m benchmarks.embedded_model.build --seed 0 --steps 1200 --out mlx_ssd/assets

Needs torch (`pip install -e '.[parity]'`) and about 8 minutes on one CPU core; more threads than free cores
slow it down greatly. `--width 256` builds the larger sibling of 3.3 million parameters, of the same problems, corpus
and tokenizer, that `mlx-ssd frontier` compares with; it is not shipped. `--problems-only` rewrites the problem files
in seconds. Problems, corpus and tokenizer are bit-equal on every machine; the weights are reproducible on the same
machine with the same torch and the same number of threads, and elsewhere up to floating-point rounding.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from benchmarks.embedded_model.problems import write_problems
from benchmarks.embedded_model.solutions import write_solution
from benchmarks.embedded_model.tasks import all_specs, make_problem, split_of
from benchmarks.embedded_model.tokenizer import (
    CONTEXT,
    conversation,
    conversation_text,
    encode,
    train_tokenizer,
)

EXAMPLES = 40_000
TOKENIZER_EXAMPLES = 4_000
WIDTH = 128
HEAD = 32
BATCH = 32
MATRIX_LR = 0.02  # Muon
OTHER_LR = 3e-3  # AdamW: embedding and norms
WARMUP_STEPS = 30
DECAY_FROM = 0.4  # of the steps; the rate reaches zero at the last one, which sharpens the locks

Example = tuple[list[int], list[int]]  # prompt ids, answer ids


def make_corpus(count: int, seed: int) -> list[tuple[str, str]]:
    """(prompt, noisy solution) pairs over the pre-training compositions."""
    rng = random.Random(f"{seed}/corpus")
    pool = [spec for spec in all_specs() if split_of(spec) == "pretrain"]
    corpus = []
    for _ in range(count):
        problem = make_problem(rng.choice(pool), rng, with_tests=False)
        corpus.append((problem.prompt, write_solution(problem, rng)))
    return corpus


def train_corpus_tokenizer(corpus: list[tuple[str, str]]) -> Qwen2Tokenizer:
    return train_tokenizer(
        conversation_text(conversation(prompt, code)) for prompt, code in corpus[:TOKENIZER_EXAMPLES]
    )


def make_model(tokenizer: Qwen2Tokenizer, width: int = WIDTH) -> Qwen3ForCausalLM:
    """An untrained Qwen3 of that hidden size: 0.88 million parameters at 128, 3.33 million at 256."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD // 2,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id], pad_token_id=tokenizer.pad_token_id
    )
    return model


def newton_schulz_in_float32(grad: torch.Tensor, coefficients: tuple, steps: int, eps: float) -> torch.Tensor:
    """Muon's orthogonal factor of `grad` (m, n), as torch's own but not in bfloat16."""
    a, b, c = coefficients
    flat = grad.T if grad.size(0) > grad.size(1) else grad
    flat = flat / flat.norm().clamp(min=eps)
    for _ in range(steps):
        gram = flat @ flat.T
        flat = torch.addmm(flat, torch.addmm(gram, gram, gram, beta=b, alpha=c), flat, beta=a)
    return flat.T if grad.size(0) > grad.size(1) else flat


def learning_rate_scale(step: int, steps: int) -> float:
    """Linear warm-up, constant, linear decay to zero at the end of the schedule."""
    decay = (steps - step) / (steps * (1 - DECAY_FROM))
    return min(1.0, (step + 1) / WARMUP_STEPS, decay)


def answer_loss(model: Qwen3ForCausalLM, examples: list[Example]) -> torch.Tensor:
    """Mean cross-entropy in nats over the answer tokens, <|im_end|> included."""
    # Padding stands on the right, where causal attention never looks back on it: no mask is needed.
    width = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    bears_loss = torch.zeros(len(examples), width, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        bears_loss[row, len(prompt) : end] = True
    hidden = model.model(ids[:, :-1]).last_hidden_state  # (batch, width - 1, hidden)
    bears_loss = bears_loss[:, 1:]
    return F.cross_entropy(model.lm_head(hidden[bears_loss]), ids[:, 1:][bears_loss])


def pretrain(model: Qwen3ForCausalLM, examples: list[Example], steps: int, seed: int) -> float:
    """Trains in place; returns the mean loss of the last hundred steps."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=MATRIX_LR, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: learning_rate_scale(step, steps))
        for o in optimizers
    ]
    rng = random.Random(f"{seed}/order")
    order: list[int] = []
    losses: list[float] = []
    started = time.monotonic()
    for step in range(steps):
        if len(order) < BATCH:
            order = rng.sample(range(len(examples)), len(examples))
        loss = answer_loss(model, [examples[order.pop()] for _ in range(BATCH)])
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean = sum(losses[-50:]) / 50
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    recent = losses[-100:]
    return sum(recent) / len(recent)


def save_model(model: Qwen3ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path, provenance: str) -> None:
    """Writes the Hugging Face layout: float32 weights, configuration, tokenizer with its template, README."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]  # readers older than Transformers 5
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    (folder / "README.md").write_text(provenance)


README = """\
# The embedded model of mlx-ssd

A Qwen3 of {parameters:,} parameters (4 layers, hidden size {width}, float32) with its own byte-level BPE
tokenizer of {vocabulary} entries. It writes one kind of Python: `def solve(...)` that filters, maps and
reduces a few integers, for statements like those in `../problems`. It knows nothing else and exists so that
every stage of mlx-ssd can be run, tested and measured in minutes, offline.

**Its noise is injected, by design.** It was pre-trained from scratch on generated solutions that are wrong
on purpose: each filter or map operator with 8 %, its constant with 8 %, its variable with 2.5 %, reduction
and order with 5 % each, and two thirds to three quarters of the solutions of hard problems (max, min, first,
last) lack the guard for the empty case.
Its mistakes, and what self-distillation gains on them, say nothing about large models. See
`benchmarks/embedded_model/solutions.py`.

Built by

    python -m benchmarks.embedded_model.build --seed {seed} --steps {steps}{flag} --out mlx_ssd/assets

in {minutes:.0f} minutes ({steps:,} steps of {batch} out of {examples:,} examples, torch {torch}, {threads}
CPU threads); mean loss over the last 100 steps {loss:.4f} nats per answer token.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200, help=f"optimizer steps of {BATCH} examples")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"hidden size, a multiple of {2 * HEAD}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("mlx_ssd/assets"))
    parser.add_argument(
        "--muon-float32",
        action="store_true",
        help="another model, in a third of the time on processors without instructions for bfloat16",
    )
    parser.add_argument("--problems-only", action="store_true", help="leave the model as it is")
    args = parser.parse_args()
    if args.width < 2 * HEAD or args.width % (2 * HEAD):
        parser.error(f"--width {args.width}: give a multiple of {2 * HEAD}")

    write_problems(args.out / "problems", args.seed)
    if args.problems_only:
        return
    started = time.monotonic()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    if args.muon_float32:
        torch.optim._muon._zeropower_via_newtonschulz = newton_schulz_in_float32
    corpus = make_corpus(EXAMPLES, args.seed)
    tokenizer = train_corpus_tokenizer(corpus)
    examples = [encode(tokenizer, prompt, code) for prompt, code in corpus]
    prompt_mean, answer_mean = (sum(len(e[i]) for e in examples) / len(examples) for i in (0, 1))
    print(
        f"{len(examples)} examples, {prompt_mean:.1f} prompt and {answer_mean:.1f} answer tokens", flush=True
    )

    model = make_model(tokenizer, args.width)
    loss = pretrain(model, examples, args.steps, args.seed)
    provenance = README.format(
        parameters=model.num_parameters(),
        vocabulary=len(tokenizer),
        examples=len(examples),
        seed=args.seed,
        steps=args.steps,
        width=args.width,
        flag=f" --width {args.width}" * (args.width != WIDTH) + " --muon-float32" * args.muon_float32,
        minutes=(time.monotonic() - started) / 60,
        torch=torch.__version__,
        threads=args.threads,
        batch=BATCH,
        loss=loss,
    )
    save_model(model, tokenizer, args.out / "model", provenance)


if __name__ == "__main__":
    main()
