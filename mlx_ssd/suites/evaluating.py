"""`mlx-ssd eval`: a run's base and students, or a model, on a problem set -> DIR/suites/SUITE.json.

Journals stand in DIR/suites/ARM, apart from those of the run's own stages, whose fingerprints know nothing of them.
Beside them SUITE.question.json holds what they were made of; another model or decoding is refused, not mixed in.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_ssd import __version__, arms, machine, models
from mlx_ssd.comparisons import compared, outcome
from mlx_ssd.controls import BASE_BEST, Entry, test_entries
from mlx_ssd.decoding.policy import StagedPolicy
from mlx_ssd.errors import BadInput, Interrupted, WorkFailed
from mlx_ssd.layout import BASE, RunFiles
from mlx_ssd.pipeline import changed_setting
from mlx_ssd.recipe import Recipe
from mlx_ssd.sections import Limits, ProblemSource
from mlx_ssd.stages.evaluate import check_output
from mlx_ssd.storage import hash_path, read_json, remove, run_lock, write_json
from mlx_ssd.suites import WITHOUT_CODE, Suite, pass_at
from mlx_ssd.supervision import supervise

OF_A_RUN = ("evaluate.",)  # what may be set, by the key's beginning
OF_A_MODEL = ("evaluate.", "prompt.", "model.", "seed")


@dataclass(frozen=True)
class SuiteFiles(RunFiles):
    """A run's files, but for where completions and grades stand."""

    @property
    def evaluation(self) -> Path:
        return self.directory / "suites" / self.arm


@dataclass(frozen=True)
class Question:
    """Who is asked, what, and how. `recipe` says how; the suite's problems are not in it."""

    directory: Path
    suite: Suite
    recipe: Recipe
    students: bool  # the directory is a run's, and its students are asked too
    controls: bool  # and the base at its best and under two-stage decoding

    def entries(self) -> list[Entry]:
        """Everything that is scored, base first; students as far as they are trained."""
        found = []
        for entry in test_entries(self.recipe, self.directory):
            control = entry.label == BASE_BEST or isinstance(entry.policy, StagedPolicy)
            student = entry.files.arm != BASE
            if (control and not self.controls) or (student and entry.label not in self.trained()):
                continue
            files = SuiteFiles(self.directory, entry.files.arm, entry.files.samples_of, entry.files.rows_of)
            found.append(replace(entry, files=files, suite=self.suite.file_name))
        return found

    def trained(self) -> dict[str, Path]:
        """The adapters that there are, by arm."""
        students = arms.students(self.recipe, self.directory) if self.students else []
        return {arm.name: arm.files.adapter for arm in students if arm.files.adapter.exists()}

    @property
    def file(self) -> Path:
        return self.directory / "suites" / f"{self.suite.file_name}.question.json"

    @property
    def scores(self) -> Path:
        return self.directory / "suites" / f"{self.suite.file_name}.json"

    def with_limits(self, limits: Limits) -> Question:
        evaluation = self.recipe.evaluate.model_copy(update={"limits": limits})
        return replace(self, recipe=self.recipe.model_copy(update={"evaluate": evaluation}))

    def pinned(self) -> Question:
        """With a hub model's commit written in: the one that was begun with, or else the newest."""
        model = self.recipe.model
        if model.revision or not models.is_hub_name(model.path):
            return self
        begun = (read_json(file)["recipe"]["model"] for file in self._questions())
        same = (of["revision"] for of in begun if of["path"] == model.path and of["revision"])
        pin = {"revision": next(same, None) or models.locate(model).revision}
        return replace(self, recipe=self.recipe.model_copy(update={"model": model.model_copy(update=pin)}))

    def made_of(self) -> dict[str, Any]:
        evaluation = self.recipe.evaluate
        loops = evaluation.stop_loops
        made: dict[str, Any] = {
            "model": models.locate(self.recipe.model).revision,
            "problems": self.suite.identity(),
            "seed": self.recipe.seed,
            "prompt": self.recipe.prompt.settings(),
            "evaluate": {
                "max_tokens": evaluation.max_tokens,
                "stop_loops": loops and loops.model_dump(),
                "limits": evaluation.limits.model_dump(),
            },
        }
        if not self.students:  # in a run, a decoding has files of its own
            made["evaluate"]["decoding"] = evaluation.decoding.model_dump()
        return made | {"adapters": {name: hash_path(path) for name, path in self.trained().items()}}

    def save(self, redo: bool) -> None:
        """Write it down for the process that computes. Raises BadInput where there are answers to another question,
        unless `redo`, which throws them away; where only the limits differ, the grades alone."""
        made_of = self.made_of()
        self._refuse_another_model(made_of)
        before = read_json(self.file)["made_of"] if self.file.exists() else made_of
        journals = sorted((self.directory / "suites").glob(f"*/{self.suite.file_name}-*.jsonl"))
        if before != made_of and journals:
            if not redo:
                another = "" if self.students else ", or choose another --out"
                raise BadInput(
                    f"{self.directory}: {self.suite.name} was made with {changed_setting(before, made_of)}; "
                    f"give --redo to throw those results away{another}"
                )
            only_limits = _without_limits(before) == _without_limits(made_of)
            for path in journals:
                if path.name.endswith(".grades.jsonl") or not only_limits:
                    remove(path)
        write_json(
            self.file,
            {
                "v": 1,
                "made_of": made_of,
                "recipe": self.recipe.model_dump(mode="json"),
                "suite": {"name": self.suite.name, "role": self.suite.role, "source": self.suite.source.model_dump()},
                "students": self.students,
                "controls": self.controls,
            },
        )

    def _refuse_another_model(self, made_of: dict[str, Any]) -> None:
        """A model's folder is of one model, whatever the suite; a run's is so by its recipe."""
        if self.students:
            return
        for file in self._questions():
            saved = read_json(file)
            if file != self.file and saved["made_of"]["model"] != made_of["model"]:
                raise BadInput(
                    f"{self.directory} holds what another model, {saved['recipe']['model']['path']}, "
                    f"was asked on {saved['suite']['name']}; choose another --out"
                )

    def _questions(self) -> list[Path]:
        """Of every suite that was asked here."""
        return sorted(self.file.parent.glob("*.question.json"))

    @classmethod
    def load(cls, file: Path) -> Question:
        saved = read_json(file)
        of = saved["suite"]
        suite = Suite(of["name"], ProblemSource.model_validate(of["source"]), of["role"])
        recipe = Recipe.model_validate(saved["recipe"])
        return cls(file.parent.parent, suite, recipe, saved["students"], saved["controls"])


def question_of(
    what: str,
    suite: Suite,
    settings: dict[str, Any],
    samples: int | None = None,
    out: Path | None = None,
    controls: bool = False,
) -> Question:
    """what: a run directory, or a model: a folder, a hub name or "embedded". settings: {"evaluate.max_tokens": 512}
    over the run's recipe, or over the defaults. Raises BadInput for what is neither, or does not go with it."""
    if (Path(what) / "recipe.yaml").exists() and (Path(what) / "manifest.json").exists():
        directory, students, allowed = Path(what), True, OF_A_RUN
        if out:
            raise BadInput(f"--out is for a MODEL; what is made of a run stands in {what}/suites")
        if decoding := next((key for key in settings if key.startswith("evaluate.decoding.")), None):
            raise BadInput(f"{decoding}: the arms of a run keep their decodings; evaluate a MODEL instead")
    else:
        directory, students, allowed = out or Path("runs") / f"eval-{_short(what)}", False, OF_A_MODEL
        if controls:
            raise BadInput(f"--controls: {what} is no run directory, and only a run has controls")
    if key := next((key for key in settings if not key.startswith(allowed)), None):
        raise BadInput(f"--set {key}: only what starts with {', '.join(allowed)} can be set here")
    if suite.source.source in WITHOUT_CODE:
        settings = {"prompt.system": ""} | settings
    if samples:
        settings = settings | {"evaluate.samples_per_problem": samples, "evaluate.pass_at": [1]}
    if students:
        recipe = Recipe.load(directory / "recipe.yaml", settings)
    else:
        recipe = _recipe_of_model(what, settings)
        if recipe.evaluate.decoding.temperature == 0 and not samples:
            samples = 1  # all would be the same
    evaluation = recipe.evaluate
    number = samples or evaluation.samples_per_problem
    ks = pass_at(number, evaluation.pass_at)
    evaluation = evaluation.model_copy(update={"samples_per_problem": number, "pass_at": ks})
    question = Question(directory, suite, recipe.model_copy(update={"evaluate": evaluation}), students, controls)
    if students and not question.trained():
        raise BadInput(f"{what} has no trained adapter; run `mlx-ssd run --out {what}` first")
    return question


def evaluate_suite(question: Question, redo: bool = False) -> dict[str, Any]:
    """Draw and grade what is missing, in a process of its own, and score all; the facts of SUITE.json.

    Raises BadInput (exit 2), WorkFailed (exit 1) or Interrupted (exit 130).
    """
    directory = question.directory
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"{directory} is a file, not a folder; choose another --out")
    machine.keep_awake()  # before anything is downloaded
    problems = question.suite.problems()
    if not any(problem.tests for problem in problems):
        raise BadInput(f"--suite {question.suite.name}: its problems have no tests, so nothing can be graded")
    check_output(problems, question.recipe.evaluate.limits.output_kb, "--output-kb")
    question = question.pinned()
    directory.mkdir(parents=True, exist_ok=True)
    with run_lock(directory) as lock:
        question.save(redo)
        _complete(question, lock)
        outcomes = [outcome(entry, problems, question.recipe) for entry in question.entries()]
        facts = {
            "v": 1,
            "suite": question.suite.name,
            "suite_identity": question.suite.identity(),
            "model": question.recipe.model.path,
            "revision": models.locate(question.recipe.model).revision,
            **compared(question.recipe, directory, outcomes),
            "limits": question.recipe.evaluate.limits.model_dump(),
            "max_tokens": question.recipe.evaluate.max_tokens,
            "version": __version__,
        }
        write_json(question.scores, facts)
    return facts


def _complete(question: Question, lock: int) -> None:
    # -P: no module of the user's current folder may stand in for one of Python's.
    command = [sys.executable, "-P", "-m", "mlx_ssd.suites", str(question.file)]
    again = "the same command goes on where it stopped, with --set evaluate.memory_gb=… in less memory"
    code = supervise(command, lock, name="the evaluation", directory=question.directory, again=again)
    if code == 130:
        raise Interrupted("interrupted; the same command goes on from there")
    if code:  # it has said why
        raise WorkFailed("") if code == 1 else BadInput("")


def _recipe_of_model(what: str, settings: dict[str, Any]) -> Recipe:
    """The defaults with that model, without arms; for the embedded one those of quickstart, which are small."""
    if what.startswith("runs/") and not Path(what).exists():
        raise BadInput(f"{what} does not exist; give a run directory, a folder with a model, a hub name or 'embedded'")
    if Path(what).is_file():
        raise BadInput(f"{what} is a file; give a run directory, a folder with a model, a hub name or 'embedded'")
    base = Recipe.load("quickstart") if what == "embedded" else Recipe()
    usual = {"name": f"eval-{_short(what)}", "arms": (), "model": base.model.model_copy(update={"path": what})}
    text = base.model_copy(update=usual).to_yaml()
    return Recipe.parse(text, f"the settings for {what}", settings)


def _short(what: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(what).expanduser().resolve().name if what != "embedded" else what)


def _without_limits(made_of: dict[str, Any]) -> dict[str, Any]:
    return made_of | {"evaluate": {k: v for k, v in made_of["evaluate"].items() if k != "limits"}}
