"""Seconds of a training step with soft targets against one with tokens, interleaved in one process.

python -m benchmarks.training [--rows 16] [--rows-per-micro-batch 16] [--steps 12]

Rows are samples of the embedded model, quickstart's settings. On Linux preload OpenBLAS, as mlx-ssd itself does.
"""

import argparse
import json
import os
import statistics
import time

import mlx.core as mx
from mlx.optimizers import AdamW, clip_grad_norm

from mlx_ssd import models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.decoding.rng import sample_key
from mlx_ssd.machine import versions
from mlx_ssd.problems import read_problems
from mlx_ssd.prompts import render
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import TrainingRow
from mlx_ssd.sampling.engine import Request, generate
from mlx_ssd.training.batches import BatchPlan
from mlx_ssd.training.forward import output_head
from mlx_ssd.training.lora import attach_lora
from mlx_ssd.training.loss import step_gradient

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, default=16, help="a step")
parser.add_argument("--rows-per-micro-batch", type=int, default=16)
parser.add_argument("--steps", type=int, default=12, help="of each kind, after two to warm up")
options = parser.parse_args()

recipe = Recipe.load("quickstart")
policy = DecodingPolicy(**recipe.sample.decoding.model_dump())
model, tokenizer = models.load(models.locate(recipe.model))
problems = read_problems(recipe.problems.train, "train")[: options.rows * (options.steps + 2)]
requests = [
    Request(p.id, render(tokenizer, p.prompt, recipe.prompt), policy, sample_key(0, "benchmark", p.id, 0), 128)
    for p in problems
]
prompts = {request.key: request.prompt_ids for request in requests}
completed = generate(model, requests, tokenizer.eos_token_ids, rows=64)
rows = [
    TrainingRow(problem_id=c.key, sample_index=0, prompt_ids=prompts[c.key], completion_ids=c.completion_ids)
    for c in completed
]
plan = BatchPlan(
    rows,
    rows_per_step=options.rows,
    rows_per_micro_batch=options.rows_per_micro_batch,
    max_length=recipe.train.max_length,
    seed=0,
)

settings = recipe.train
attach_lora(model, argparse.Namespace(**settings.model_dump(), seed=0))
head = output_head(model)
model.train()
optimizer = AdamW(settings.learning_rate, list(settings.betas), weight_decay=settings.weight_decay)
optimizer.init(model.trainable_parameters())


def step(number: int, target_policy: DecodingPolicy | None) -> float:
    """Seconds of one step of the loop: batches, gradient, clipping, update."""
    started = time.perf_counter()
    _, gradient, _ = step_gradient(model, head, plan.batches(0, number), target_policy)
    gradient, norm = clip_grad_norm(gradient, settings.clip_norm)
    norm.item()
    optimizer.update(model, gradient)
    mx.eval(model.trainable_parameters(), optimizer.state)
    return time.perf_counter() - started


for number in range(2):
    step(number, None)
    step(number, policy)
tokens_seconds, soft_seconds = [], []
for number in range(2, options.steps + 2):
    tokens_seconds.append(step(number, None))
    soft_seconds.append(step(number, policy))
trained = sum(len(batch.targets) for number in range(2, options.steps + 2) for batch in plan.batches(0, number))
print(
    json.dumps(
        {
            "rows": options.rows,
            "rows_per_micro_batch": options.rows_per_micro_batch,
            "tokens_seconds_a_step": round(statistics.median(tokens_seconds), 4),
            "distribution_seconds_a_step": round(statistics.median(soft_seconds), 4),
            "ratio": round(statistics.median(b / a for a, b in zip(tokens_seconds, soft_seconds, strict=True)), 3),
            "completion_tokens_per_second": round(trained / sum(tokens_seconds)),
            "load_before": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
            **versions(),
        }
    )
)
