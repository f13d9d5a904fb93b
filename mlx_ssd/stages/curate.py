"""Curate: syntactic filters with their account -> round-1/rows.jsonl, round-1/curation.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mlx_ssd import models
from mlx_ssd.errors import WorkFailed
from mlx_ssd.filters import curate
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Sample, TrainingRow
from mlx_ssd.storage import Journal, hash_path, write_json, write_records

VERSION = 1


def settings(recipe: Recipe) -> dict:
    return {"curate": recipe.curate.model_dump()}


def check(recipe: Recipe) -> None:
    """Nothing but the recipe itself can be wrong beforehand."""


def inputs(recipe: Recipe, files: RunFiles) -> dict[str, str]:
    return {"samples": hash_path(files.samples)}


def outputs(recipe: Recipe, files: RunFiles) -> list[Path]:
    return [files.rows, files.curation]


def run(recipe: Recipe, files: RunFiles) -> dict:
    tokenizer = models.load_tokenizer(models.locate(recipe.model))
    samples = Journal(files.samples, Sample).read()
    tokens = sum(len(s.completion_ids) for s in samples)
    if recipe.curate.unfinished == "cut":
        samples = [_without_copies(s) if s.finish_reason == "loop" else s for s in samples]
    texts = tokenizer.batch_decode([s.completion_ids for s in samples], skip_special_tokens=True)
    kept, dropped = curate(samples, texts, recipe.curate)
    account = {
        "samples": len(samples),
        "kept": len(kept),
        "dropped": dropped,
        "tokens_cut": tokens - sum(len(s.completion_ids) for s in samples),
        "finish_reasons": dict(Counter(s.finish_reason for s in samples)),
        "kept_finish_reasons": dict(Counter(s.finish_reason for s in kept)),
        "completion_tokens": sum(len(s.completion_ids) for s in kept),
    }
    if not kept:
        raise WorkFailed(f"no sample is left to train on: of {len(samples)} were dropped {dropped}")
    rows = [
        TrainingRow(
            problem_id=s.problem_id,
            sample_index=s.sample_index,
            prompt_ids=s.prompt_ids,
            completion_ids=s.completion_ids,
        )
        for s in kept
    ]
    write_records(files.rows, rows)
    write_json(files.curation, account)
    return {"samples": len(samples), "kept": len(kept)}


def _without_copies(sample: Sample) -> Sample:
    from mlx_ssd.sampling.loops import end_of_first_copy

    ids = sample.completion_ids
    return sample.model_copy(update={"completion_ids": ids[: end_of_first_copy(ids)]})
