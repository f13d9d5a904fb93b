"""The rule that tells locks from forks, beside what the embedded model's generator knows to be one; and what training
did to wrong tokens at either.

    mlx-ssd run quickstart
    python -m benchmarks.labels runs/quickstart

For each test problem solutions are written without noise. Those that begin as an answer does tell which tokens are
right at its next position: one, a *true lock*; several, a *true fork*. Where an answer has left what any of them begins
with, no token is right any more; where fewer than FEWEST of them are left, nothing is known. Masses are of the ten
likeliest tokens that an analysis keeps, at temperature 1 and as the run's evaluation decodes them; intervals are over
problems. Writes results/labels.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import journal
from benchmarks.embedded_model.problems import COUNTS
from benchmarks.embedded_model.solutions import CLEAN, write_solution
from benchmarks.embedded_model.tasks import Problem, make_split
from benchmarks.embedded_model.tokenizer import encode
from benchmarks.journal import RESULTS
from benchmarks.rounds import table_row
from mlx_ssd import models
from mlx_ssd.analysis import store
from mlx_ssd.analysis.labels import ALTERNATIVES, FORK, LOCK, RULE
from mlx_ssd.analysis.summary import ratio
from mlx_ssd.controls import policy_of
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.errors import BadInput, SsdError
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Model
from mlx_ssd.storage import write_atomic

SOLUTIONS = 40_000  # a problem
FEWEST = 50  # of them that must be left to say what is right
TRUE_LOCK, TRUE_FORK = "one right token", "several right tokens"
AS_LOCK, AS_FORK = (f"{TRUE_LOCK}, called {name}" for name in ("lock", "fork"))
GONE, TOO_FEW = "none: the answer has gone wrong", "not known: too few solutions begin so"
NOT_KNOWN = -1  # how many tokens are right
QUANTITIES = ("wrong", "entropy", "decoded_wrong", "decoded_entropy")
SEED = 0  # of the shipped problems
RULES = (RULE, *ALTERNATIVES)
RESAMPLES = 2000
Measures = dict[str, np.ndarray]


@dataclass
class Node:
    """Solutions that begin alike, by their next token."""

    count: int = 0
    after: dict[int, Node] = field(default_factory=dict)


def beginnings(solutions: Iterable[tuple[Sequence[int], int]]) -> Node:
    """solutions: each with how often it was written."""
    root = Node()
    for tokens, count in solutions:
        node = root
        node.count += count
        for token in tokens:
            node = node.after.setdefault(token, Node())
            node.count += count
    return root


def right_tokens(root: Node, answer: Sequence[int]) -> Iterator[set[int] | None]:
    """At each position of an answer; None where that is not known."""
    node = root
    for token in answer:
        yield set(node.after) if node.count >= FEWEST or not node.count else None
        node = node.after.get(token, Node()) if node.count >= FEWEST or not node.count else node


def solutions_of(problem: Problem, tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    """Token ids as the model was trained on them, the end of turn included, and how often each was written."""
    rng = random.Random(problem.prompt)
    for code, count in Counter(write_solution(problem, rng, CLEAN) for _ in range(SOLUTIONS)).items():
        yield list(encode(tokenizer, problem.prompt, code)[1]), count


def at_token(right: set[int], ids: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """(mass of wrong tokens, entropy among the right ones in nats), of the likeliest tokens of a model."""
    good = np.array([token in right for token in ids])
    among = probabilities[good] / max(probabilities[good].sum(), 1e-30)
    entropy = -(among * np.log(np.maximum(among, 1e-30))).sum()
    return float(probabilities[~good].sum()), float(entropy)


def known_right(
    texts: Sequence[store.Text], problems: Mapping[str, Problem], tokenizer: Any
) -> list[list[set[int] | None]]:
    """Of every text, at each position of its answer."""
    roots = {
        problem_id: beginnings(solutions_of(problems[problem_id], tokenizer))
        for problem_id in dict.fromkeys(text.problem_id for text in texts)
    }
    return [list(right_tokens(roots[text.problem_id], text.completion_ids)) for text in texts]


def measure(
    folder: Path, arm: str, rights: Sequence[Sequence[set[int] | None]], evaluation: DecodingPolicy
) -> Measures:
    """Of every analysed token a row: its text, how many tokens are right there, its label by each rule, and of base and
    student QUANTITIES."""
    found: dict[str, list[Any]] = {name: [] for name in ("text", "right", *QUANTITIES)}
    labels = {rule.words: [] for rule in RULES}
    for part in store.parts(folder, arm):
        of = part.columns
        for rule in RULES:
            labels[rule.words].append(rule.labels(of))
        for row in range(part.tokens):
            right = rights[of["text"][row]][of["position"][row]]
            found["text"].append(of["text"][row])
            found["right"].append(NOT_KNOWN if right is None else len(right))
            sides = []
            for side in store.SIDES:
                ids, masses = of[f"{side}.top_ids"][row], of[f"{side}.top_probabilities"][row].astype(np.float64)
                with np.errstate(divide="ignore"):
                    decoded = evaluation.reference_probabilities(np.log(masses))
                sides.append((*at_token(right or set(), ids, masses), *at_token(right or set(), ids, decoded)))
            for name, of_sides in zip(QUANTITIES, zip(*sides, strict=True), strict=True):
                found[name].append(of_sides)
    return {name: np.array(values) for name, values in found.items()} | {
        words: np.concatenate(parts) for words, parts in labels.items()
    }


def agreement(measures: Measures, words: str) -> dict[str, float]:
    """How far a rule's labels are the truth, where that is known."""
    right, label = measures["right"], measures[words]
    lock, fork = right == 1, right > 1
    known = lock | fork
    return {
        "true locks called lock": float((label[lock] == LOCK).mean()),
        "true forks called fork": float((label[fork] == FORK).mean()),
        "called lock, true": float(lock[known & (label == LOCK)].mean()),
        "called fork, true": float(fork[known & (label == FORK)].mean()),
    }


def changes(measures: Measures, problem_of: np.ndarray) -> dict[str, dict[str, Any]]:
    """At true locks and forks, of base and student. problem_of: the number of each text's problem."""
    found = {}
    problems = int(problem_of.max()) + 1
    lock, label = measures["right"] == 1, measures[RULE.words]
    # A lock that is called a fork: the base holds one wrong token or several for likely.
    places = {TRUE_LOCK: lock, AS_LOCK: lock & (label == LOCK), AS_FORK: lock & (label == FORK)}
    for name, here in {**places, TRUE_FORK: measures["right"] > 1}.items():
        if not here.any():
            continue
        of = problem_of[measures["text"][here]]
        counts = np.bincount(of, minlength=problems).astype(float)
        found[name] = {"tokens": int(here.sum())}
        for quantity in QUANTITIES:
            before, after = measures[quantity][here].T
            found[name][quantity] = {
                "base": float(before.mean()),
                "student": float(after.mean()),
                "difference": ratio(np.bincount(of, after - before, minlength=problems), counts, RESAMPLES),
            }
    return found


def run(options: argparse.Namespace) -> None:
    files = RunFiles(options.run)
    recipe, folder = Recipe.load(files.recipe), files.analysis
    if recipe.model.path != "embedded" or recipe.problems.test.source != "embedded":
        raise BadInput(f"{options.run}: what is right is known of the embedded model's own problems alone")
    arms = store.arms(folder)
    if not arms:
        raise BadInput(f"{folder} holds no analysis; make one with mlx-ssd analyze {options.run}")
    tokenizer = models.load_tokenizer(models.locate(Model()))
    problems = {f"test-{n:04d}": problem for n, problem in enumerate(make_split("test", COUNTS["test"], SEED))}
    texts = store.texts(folder)
    rights = known_right(texts, problems, tokenizer)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(text.problem_id for text in texts))}
    problem_of = np.array([numbers[text.problem_id] for text in texts])
    facts: dict[str, Any] = journal.provenance("labels") | {"solutions": SOLUTIONS, "fewest": FEWEST, "arms": {}}
    facts |= {"texts": len(texts), "decoding": policy_of(recipe.evaluate.decoding).name()}
    for arm in arms:
        measures = measure(folder, arm, rights, policy_of(recipe.evaluate.decoding))
        facts["labels"] = counted(measures)
        facts["rules"] = {rule.words: agreement(measures, rule.words) for rule in RULES}
        facts["arms"][arm] = changes(measures, problem_of)
    write_atomic(options.out / "labels.json", json.dumps(facts, indent=1) + "\n")
    write_atomic(options.out / "labels.md", render(facts))
    print(render(facts))


def counted(measures: Measures) -> dict[str, dict[str, int]]:
    """Tokens by what is true and by the rule's label."""
    right, label = measures["right"], measures[RULE.words]
    truths = {TRUE_LOCK: right == 1, TRUE_FORK: right > 1, GONE: right == 0, TOO_FEW: right == NOT_KNOWN}
    return {
        truth: {name: int((label[here] == number).sum()) for number, name in enumerate(store.LABELS)}
        for truth, here in truths.items()
    }


def label_table(facts: Mapping[str, Any]) -> str:
    lines = [table_row(("what the generator knows", "tokens", *(f"called {name}" for name in store.LABELS)))]
    lines.append("|---" * 5 + "|")
    for truth, counts in facts["labels"].items():
        tokens = sum(counts.values())
        shares = (f"{count / max(tokens, 1):.1%}" for count in counts.values())
        lines.append(table_row((truth, f"{tokens:,}", *shares)))
    return "\n".join(lines)


def rule_table(facts: Mapping[str, Any]) -> str:
    names = list(next(iter(facts["rules"].values())))
    lines = [table_row(("rule", *names)), "|---" * (1 + len(names)) + "|"]
    for words, found in facts["rules"].items():
        lines.append(table_row((words.replace("|", "\\|"), *(f"{found[name]:.1%}" for name in names))))
    return "\n".join(lines)


def change_table(facts: Mapping[str, Any], arms: Sequence[str]) -> str:
    head = ("arm", "where", "decoded", "mass of wrong tokens, %", "change", "entropy among right ones, nats", "change")
    lines = [table_row(head), "|---" * len(head) + "|"]
    for arm in arms:
        for truth, of in facts["arms"][arm].items():
            for how, prefix in (("T 1", ""), (facts["decoding"], "decoded_")):
                wrong, entropy = of[f"{prefix}wrong"], of[f"{prefix}entropy"]
                cells = [f"{100 * wrong['base']:.2f} → {100 * wrong['student']:.2f}"]
                cells.append(_signed(wrong["difference"], 100, 2))
                if truth == TRUE_FORK:
                    cells += [f"{entropy['base']:.3f} → {entropy['student']:.3f}", _signed(entropy["difference"], 1, 3)]
                lines.append(table_row((arm, truth, how, *cells, *([""] * (4 - len(cells))))))
    return "\n".join(lines)


def _signed(interval: Mapping[str, float] | None, scale: float, digits: int) -> str:
    if interval is None:  # of one problem alone
        return ""
    mean, low, high = (f"{scale * interval[name]:+.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def render(facts: Mapping[str, Any]) -> str:
    return f"""# Labels beside the truth

`{facts["command"]}`: {facts["texts"]} answers of the base; {facts["solutions"]:,} solutions a problem without noise,
of which at least {facts["fewest"]} must begin as the answer does. Then the rules that `mlx-ssd analyze` knows, the one
in use first, and what training did to wrong tokens.

{label_table(facts)}

{rule_table(facts)}

{change_table(facts, [*facts["arms"]])}

{facts["machine"]["chip"]}, {facts["started"]}, commit {facts["commit"]}.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run of the embedded model, analysed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for labels.{json,md}")
    options = parser.parse_args()
    try:
        run(options)
    except SsdError as error:
        print(f"labels: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
