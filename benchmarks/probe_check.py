"""Does the probe's interval hold what training then gives? Three bases, two sampling policies each.

    python -m benchmarks.probe_check --work DIR

For each pre-training seed of the embedded model (0 is the embedded one; others are taken from DIR/base-SEED/model, and
built there by benchmarks.embedded_model.build, which needs PyTorch, where they are missing): a probe on validation
problems, which also freezes T_eval and the base's best decoding; then one soft-target student per policy, and one pass
over test problems. Resumable: what is done in DIR stays. Writes results/probe_check.{jsonl,md}.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx_ssd
from mlx_ssd import machine
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.probing import probe
from mlx_ssd.recipe import Recipe
from mlx_ssd.report.markdown import points
from mlx_ssd.storage import read_json, write_atomic

POLICIES = {"paper": DecodingPolicy(1.6, 20, 0.8), "mild": DecodingPolicy(1.3, 20, 0.8)}
STEPS = 1200  # of pre-training, as the embedded base had
RESULTS = Path(__file__).parent / "results"


def base_model(work: Path, seed: int) -> str:
    if seed == 0:
        return "embedded"
    folder = work / f"base-{seed}"
    if not (folder / "model" / "README.md").exists():  # the last file that the builder writes
        builder = [sys.executable, "-m", "benchmarks.embedded_model.build", "--seed", str(seed)]
        subprocess.run([*builder, "--steps", str(STEPS), "--out", str(folder)], check=True)
    return str(folder / "model")


def recipe_of(seed: int, model: str, options: argparse.Namespace) -> Recipe:
    return Recipe.load(
        "quickstart",
        {
            "name": f"probe-check-{seed}",
            "seed": seed,
            "model.path": model,
            "problems.train.limit": options.train_problems,
            "problems.test.limit": options.test_problems,
            "train.targets": "distribution",
            "train.epochs": options.epochs,
            "evaluate.curve": None,
            "evaluate.samples_per_problem": options.test_samples,
            "evaluate.pass_at": [k for k in (1, 5) if k <= options.test_samples],
            "arms": [],
        },
    )


def frozen(recipe: Recipe, facts: dict[str, Any]) -> Recipe:
    """The recipe with a student per policy, each at the T_eval that the probe chose, and the base's best."""

    def decoding(line: dict[str, Any]) -> dict[str, Any]:
        return {name: line[name] for name in ("temperature", "top_k", "top_p", "order")}

    of = {policy["train"]["temperature"]: policy for policy in facts["policies"]}
    settings = recipe.model_dump(mode="json")
    settings["evaluate"]["base_best"] = decoding(facts["base"]["best"])
    students = {name: of[policy.temperature] for name, policy in POLICIES.items()}
    main, *others = students.items()
    settings["sample"]["decoding"] = decoding(main[1]["train"])
    settings["evaluate"]["decoding"] = decoding(main[1]["best"])
    settings["arms"] = [
        {
            "name": name,
            "set": {f"sample.decoding.{key}": value for key, value in decoding(student["train"]).items()}
            | {f"evaluate.decoding.{key}": value for key, value in decoding(student["best"]).items()},
        }
        for name, student in others
    ]
    return Recipe.model_validate(settings)


def rows_of(seed: int, prompts: int, facts: dict[str, Any], scores: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a policy: what the probe said, what the test showed. Fractions of pass@1."""
    of = {policy["train"]["temperature"]: policy for policy in facts["policies"]}
    against = {(c["baseline"], c["arm"]): c["difference"]["1"] for c in scores["comparisons"]}
    rows = []
    for name, policy in POLICIES.items():
        arm = "student" if name == next(iter(POLICIES)) else name
        probed, trained = of[policy.temperature], against["base-best", arm]
        rows.append(
            {
                "base": seed,
                "policy": policy.name(),
                "prompts": prompts,
                "t_eval": probed["best"]["temperature"],
                "base_best": {name: facts["base"]["best"][name] for name in ("temperature", "top_k", "top_p")},
                "probe": {"problems": facts["problems"], "samples_per_problem": facts["samples_per_problem"]},
                "test": facts["test"],
                "room": probed["room"],
                "predicted": probed["measured"],
                "trained": trained,
                # What a perfect fit would have shown on the same test; against it a shortfall of training is told.
                "two_stage": trained["mean"] - against["two-stage", arm]["mean"],
                "versions": machine.versions(),
                "machine": machine.describe(),
            }
        )
    return rows


def inside(row: dict[str, Any]) -> bool:
    return row["predicted"]["low"] <= row["trained"]["mean"] <= row["predicted"]["high"]


def table(rows: list[dict[str, Any]]) -> str:
    probed, tested, prompts = (rows[0][name] for name in ("probe", "test", "prompts"))
    held = sum(inside(row) for row in rows)
    lines = [
        "# The probe's interval against what training gave",
        "",
        f"`python -m benchmarks.probe_check --work DIR --train-problems {prompts}`. Gains over the base at its best,",
        f"in points of pass@1. Room and prediction are from {probed['problems']} validation problems x",
        f"{probed['samples_per_problem']}, before any training; trained is a soft-target student of {prompts} prompts "
        f"on {tested['problems']} test problems x "
        f"{tested['samples_per_problem']}, with its own 95 % interval; ideal is two-stage decoding on that same test.",
        "",
        "| base | policy | T_eval | room | predicted for the test | trained | ideal | inside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['base']} | {row['policy']} | {row['t_eval']:g} | {points(row['room'])} | {points(row['predicted'])} "
        f"| {points(row['trained'])} | {100 * row['two_stage']:+.1f} | {'yes' if inside(row) else 'no'} |"
        for row in rows
    ]
    return (
        "\n".join([*lines, "", f"The trained gain lies inside the probe's interval in {held} of {len(rows)}."]) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for bases, probes and runs")
    parser.add_argument("--bases", type=int, nargs="+", default=[0, 1, 2], help="pre-training seeds")
    parser.add_argument("--problems", type=int, default=100, help="validation problems of the probe")
    parser.add_argument("--samples", type=int, default=5, help="samples of each in the probe")
    parser.add_argument("--train-problems", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test-problems", type=int, default=240)
    parser.add_argument("--test-samples", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for probe_check.{jsonl,md}")
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for seed in options.bases:
        recipe = recipe_of(seed, base_model(options.work, seed), options)
        facts = probe(
            recipe, options.work / f"probe-{seed}", options.problems, options.samples, list(POLICIES.values())
        )
        files = mlx_ssd.run(frozen(recipe, facts), options.work / f"probe-check-{seed}")
        rows += rows_of(seed, options.train_problems, facts, read_json(files.scores))
        print(table(rows), flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    write_atomic(options.results / "probe_check.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_atomic(options.results / "probe_check.md", table(rows))


if __name__ == "__main__":
    main()
