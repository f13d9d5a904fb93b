"""A finished run without a run: report.json, manifest, recipe and an analysis, made of seeded numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd.analysis import store
from mlx_ssd.analysis.store import Text
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.records import Problem
from mlx_ssd.report.page import material, samples
from mlx_ssd.report.page.material import Material
from mlx_ssd.storage import write_json

WORDS = ["def", " solve", "(", "s", ")", ":", "\n", "    ", "return", " sum", " for", " x", " in", " if", "==", "\t"]
VOCABULARY = 64
RULE = {
    "name": "test",
    "words": "lock: at least 0.9; fork: the second at least 0.1",
    "lock_top1": 0.9,
    "fork_second": 0.1,
}
VERDICTS = ("pass", "wrong", "error")


class Pieces:
    """A tokenizer's stand-in: token 0 is the end of turn."""

    def __init__(self, words: list[str] | None = None):
        self.words = ["<|im_end|>", *(words or WORDS)]

    def of(self, ids: Any) -> list[str]:
        return [self.words[i] if i < len(self.words) else f" w{i}" for i in ids]

    def is_special(self, token: int) -> bool:
        return token == 0


def texts(count: int, length: int = 40, per_problem: int = 2, seed: int = 0) -> list[Text]:
    draw = np.random.default_rng(seed)
    return [
        Text(
            problem_id=f"test-{n // per_problem:04}",
            sample_index=n % per_problem,
            prompt_ids=[1, 2, 3],
            completion_ids=[*draw.integers(1, len(WORDS) + 1, length - 1).tolist(), 0],
            finish_reason="stop",
            verdict=VERDICTS[n % 3],
            difficulty=("easy", "hard")[n // per_problem % 2],
        )
        for n in range(count)
    ]


def columns(of: list[Text], first: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Logits are drawn, the rest follows from them as far as the page looks at it."""
    draw = np.random.default_rng(seed)
    tokens = np.concatenate([text.completion_ids for text in of])
    n, lengths = len(tokens), [len(text.completion_ids) for text in of]
    found = {name: np.zeros((n, *shape), dtype) for name, (dtype, shape) in store.COLUMNS.items()}
    found |= {name: np.zeros((len(of), *shape), dtype) for name, (dtype, shape) in store.SUMS.items()}
    found["text"] = np.repeat(np.arange(first, first + len(of)), lengths)
    found["position"] = np.concatenate([np.arange(length) for length in lengths])
    found["token"], found["text.index"], found["text.tokens"] = tokens, np.arange(first, first + len(of)), lengths
    size = max(VOCABULARY, int(tokens.max()) + 1)
    sharp = np.where(draw.random(n) < 0.7, 9.0, 1.2)[:, None]
    logits = sharp * draw.standard_normal((n, size))
    logits[np.arange(n), tokens] += sharp[:, 0] * draw.uniform(0, 3.5, n)
    base = np.exp(logits - logits.max(1, keepdims=True))
    base /= base.sum(1, keepdims=True)
    order = np.argsort(-base, axis=1, kind="stable")
    support = np.minimum(1 + (np.cumsum(-np.sort(-base, axis=1), axis=1) < 0.9).sum(1), 20)
    kept = np.zeros_like(base, bool)
    np.put_along_axis(kept, order, np.arange(size) < support[:, None], axis=1)
    student = base * np.where(kept, 1.0, 0.2)
    student /= student.sum(1, keepdims=True)
    found["support"] = support
    for side, p in (("base", base), ("student", student)):
        ranked = np.argsort(-p, axis=1, kind="stable")
        found[f"{side}.top_ids"] = ranked[:, :10]
        found[f"{side}.top_probabilities"] = np.take_along_axis(p, ranked[:, :10], axis=1)
        found[f"{side}.kept_mass"] = (p * kept).sum(1)
        found[f"{side}.entropy"] = -(p * np.log(np.maximum(p, 1e-30))).sum(1)
        found[f"{side}.probability"] = p[np.arange(n), tokens]
        found[f"{side}.rank"] = (ranked == tokens[:, None]).argmax(1)
    return found


def summary(arm: str) -> dict[str, Any]:
    def facts(tokens: int, tail: float) -> dict[str, Any]:
        change = {"mean": -tail / 2, "low": -0.6 * tail, "high": -0.4 * tail}
        return {
            "tokens": tokens, "share": tokens / 1000, "base": {"tail_mass": tail, "top1": 0.9, "head": 0.3},
            "student": {"tail_mass": tail / 2, "top1": 0.95, "head": 0.3}, "difference": {"tail_mass": change},
        }  # fmt: skip

    return {
        "v": 1,
        "arm": arm,
        "texts": {"source": "the base's answers to the test problems", "texts": 9, "problems": 3, "tokens": 1000},
        "rule": dict(RULE),
        "labels": {"lock": facts(800, 0.01), "between": facts(50, 0.1), "fork": facts(150, 0.2)},
        "all": facts(1000, 0.05),
        "sensitivity": [{"rule": "lock: at least 0.95", "lock_share": 0.7, "fork_share": 0.2}],
        "gain": {"lock": {"compression": 0.01, "reshaping": 0.02, "ideal": 0.03, "student": 0.02}},
        "residuals": {"loss": 1e-6},
        "finding": ["At locks the student removed half of the tail mass."],
    }


def _interval(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def report() -> dict[str, Any]:
    """As report.json holds it, of a run with two students and three controls."""
    suite, arm = "embedded-test", "student"
    own, best, two = "t0.9-k20-p0.8", "t1.35-k20-p0.8", "two-stage-t1.6-k20-p0.8-then-t0.9-k20-p0.8"
    lines = [("base", own, 0.55), ("base-best", best, 0.62), ("two-stage", two, 0.63), (arm, own, 0.65)]
    lines += [("tokens", own, 0.61)]
    scores = [
        {
            "v": 1, "arm": name, "suite": suite, "decoding": decoding, "problems": 200, "graded_problems": 200,
            "samples_per_problem": 8, "pass_at": {"1": _interval(value, 0.05), "5": _interval(value + 0.1, 0.04)},
            "pass_at_by_difficulty": {"easy": {"1": value + 0.1}, "hard": {"1": value - 0.1}},
            "verdicts": {"pass": 900, "wrong": 700}, "finish_reasons": {"stop": 1600}, "extractable_code": 1.0,
            "completion_tokens": 40.0,
        }
        for name, decoding, value in lines
    ]  # fmt: skip
    pairs = [(3, 0, 0.03), (3, 1, 0.02), (3, 2, 0.01), (4, 0, 0.03), (3, 4, 0.05)]
    comparisons = [
        {
            "v": 1, "arm": lines[a][0], "decoding": lines[a][1], "baseline": lines[b][0],
            "baseline_decoding": lines[b][1], "suite": suite, "minimum_detectable_effect": {"1": 0.05, "5": 0.06},
            "difference": {k: _interval(lines[a][2] - lines[b][2], half) for k in ("1", "5")},
        }
        for a, b, half in pairs
    ]  # fmt: skip
    made = {
        "sample_decoding": Recipe().sample.decoding.model_dump(),
        "selection": {"kept": 1200},
        "curation": {"kept": 1200, "samples": 1200, "dropped": {"stub": 0}, "finish_reasons": {"stop": 1200}},
    }
    return {
        "v": 2,
        "recipe": "quickstart",
        "model": {"path": "embedded", "revision": "fe4c4625f694823c"},
        "evaluate_decoding": Recipe().evaluate.decoding.model_dump(),
        "arms": [
            {"name": name, **made, "training": {"targets": targets, "steps": 225}}
            for name, targets in ((arm, "distribution"), ("tokens", "tokens"))
        ],
        "scores": scores,
        "comparisons": comparisons,
        "curve": [],
        "base_best": None,
        "seconds": {"sample": 53.0, "train": 336.0, "evaluate": 355.0},
        "peak_rss_bytes": 1.8e9,
        "verdict": [f"pass@1: {arm} beats base at the same decoding (+10.0 [+7.0, +13.0])."],
        "warnings": [],
        "not_measured": ["Other training and sampling seeds: the intervals cover the choice of problems only."],
        "next": "mlx-ssd try runs/quickstart 'Take a word.'",
    }


def problems(of: list[Text]) -> dict[str, Problem]:
    tests, prompt = [{"args": ["aa b"], "expected": 3}], "Take a word.\n\ndef solve(s):"
    ids = dict.fromkeys(text.problem_id for text in of)
    return {name: Problem(id=name, prompt=prompt, entry_point="solve", tests=tests) for name in ids}


def of_texts(found: list[Text]) -> list[samples.Sample]:
    return [
        samples.Sample(
            t.problem_id, t.sample_index, "base", t.completion_ids, t.finish_reason, t.verdict, t.difficulty, "", n
        )
        for n, t in enumerate(found)
    ]


def page_material(count: int = 200, words: list[str] | None = None, budget: int = samples.BYTES) -> Material:
    """With an analysis of the main student."""
    of, made = texts(count), report() | {"analysis": {"student": summary("student")}}
    part = store.Part(0, count, columns(of))
    packed = samples.pack(
        of_texts(of), problems(of), Pieces(words), {"student": lambda: [part]}, {"student": RULE}, budget
    )
    recipe = Recipe()
    return Material("runs/quickstart", made, manifest(), recipe.model_dump(), recipe.to_yaml(), packed=packed)


def manifest() -> dict[str, Any]:
    measured = {"seconds": 53.0, "peak_rss_bytes": 1.8e9}
    return {
        "v": 1,
        "versions": {"python": "3.11.7", "mlx": "0.32.4"},
        "machine": {"system": "Linux", "chip": "a chip", "cores": 2, "memory_bytes": 25e9},
        "stages": {
            "sample": {
                "made_of": {"inputs": {"problems.test": "0"}}, "measured": measured,
                "outputs": {"round-1/samples.jsonl": "5e82f06562cda57082db7d28a31b428b9cde10a9"},
            },
            "score": {"made_of": {"inputs": {"problems.test": "sha-of-the-problems"}}, "measured": {"seconds": 2.0}},
        },
    }  # fmt: skip


def write_run(directory: Path, recipe: Recipe | None = None, **changes: Any) -> RunFiles:
    """A folder that `material.read` takes."""
    files = RunFiles(directory)
    write_json(files.report_json, report() | changes)
    write_json(files.manifest, manifest())
    files.recipe.write_text((recipe or Recipe()).to_yaml())
    return files


def read_back(directory: Path) -> Material:
    return material.read(RunFiles(directory))


def write_analysis(folder: Path, of: list[Text], arms: tuple[str, ...] = ("student",), seed: int = 0) -> None:
    store.write_texts(folder, of)
    for arm in arms:
        store.write_part(store.part_file(folder, arm, 0), 0, len(of), columns(of, seed=seed))
        store.write_summary(folder, arm, json.loads(json.dumps(summary(arm))))
