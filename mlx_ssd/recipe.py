"""Every setting there is, one section a stage, each with its default; strict YAML.

This module is the only place with defaults. A recipe file overrides them, `--set section.key=value`
overrides the file. Unknown keys, wrong types and contradictions are refused with the key's path.
"""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlx_ssd.errors import BadInput
from mlx_ssd.strict_yaml import read_yaml

# The system message of the paper's prompts, in our words; the embedded model was trained with it.
SYSTEM_MESSAGE = "Solve this in Python, in one fenced code block."


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Model(Section):
    path: str = "embedded"  # "embedded", a folder in Hugging Face layout, or a hub name
    revision: str | None = None  # commit of a hub model; None takes the newest and records it
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"  # auto: float32 on a CPU, as stored on Metal


class Prompt(Section):
    format: Literal["chat", "raw"] = "chat"  # raw: the problem's text as it is, no template
    system: str = SYSTEM_MESSAGE  # "" for none
    enable_thinking: bool = False  # passed to the chat template
    # Passed to it too, where it is set: gpt-oss takes low, medium (its template's own) and high.
    reasoning_effort: Literal["low", "medium", "high"] | None = None

    def settings(self) -> dict[str, Any]:
        """What fingerprints have of it: a setting that came later counts where it is set."""
        return self.model_dump(exclude={"reasoning_effort"} if self.reasoning_effort is None else None)


class ProblemSource(Section):
    source: Literal["embedded", "jsonl", "rstar_coder", "livecodebench", "humaneval", "mbpp", "gsm8k"] = "embedded"
    path: str | None = None  # jsonl: the file; others, but embedded: a local copy of the data set
    revision: str | None = None  # of a data set on the hub: its commit; None takes the one known to problems/
    release: Literal["v6", "v5"] = "v6"  # livecodebench: contests of 2025-02 to 2025-05, or of 2024-08 to 2025-02
    select: Literal["text", "passed"] = "text"  # rstar_coder: `passed` peeks at which problems were solved
    decontaminate: int = Field(13, ge=0)  # rstar_coder: drops what shares so many words in a row with a test; 0: off
    difficulty: Literal["easy", "medium", "hard"] | None = None  # only these; for sources that know it
    skip: int = Field(0, ge=0)  # leaves out the first so many, so that two sets can be parts of one
    limit: int | None = Field(None, ge=1)  # then takes so many

    @model_validator(mode="after")
    def _settings_fit_source(self) -> ProblemSource:
        if self.source == "jsonl" and self.path is None or self.source == "embedded" and self.path is not None:
            raise ValueError("source jsonl needs a path, and source embedded takes none")
        if self.source in ("rstar_coder", "humaneval", "mbpp", "gsm8k") and self.difficulty is not None:
            raise ValueError(f"source {self.source} does not say how difficult a problem is; leave difficulty at null")
        return self


class Problems(Section):
    train: ProblemSource = ProblemSource()
    validation: ProblemSource | None = None  # where decoding is chosen and curves are drawn; None: neither
    test: ProblemSource = ProblemSource()

    @model_validator(mode="after")
    def _validated_on_other_problems(self) -> Problems:
        sources = [source for source in (self.validation, self.test) if source and source.source == "livecodebench"]
        if len({source.release for source in sources}) > 1:
            raise ValueError(
                "the releases of LiveCodeBench share the contests of February 2025; take validation and test problems "
                "from one release, parted with skip and limit"
            )
        return self


class Decoding(Section):
    temperature: float = Field(ge=0, le=100)
    top_k: int = Field(20, ge=0, le=1_000_000)  # 0: no top-k
    top_p: float = Field(0.8, gt=0, le=1)  # 1: no top-p
    order: Literal["temperature_first", "mlx_lm", "llama_cpp"] = "temperature_first"


class LoopStop(Section):
    """Ends an answer that repeats one cycle of tokens without change; its finish reason is `loop`.

    The defaults are meant never to end an answer that would have come to something (sampling/loops.py).
    """

    period: int = Field(256, ge=1, le=4096)  # longest cycle, in tokens; each token is compared with so many before it
    repeats: int = Field(8, ge=2)  # copies of the cycle
    min_tokens: int = Field(512, ge=1)  # of the copies together: a list of 200 zeros is no loop


class Sampling(Section):
    decoding: Decoding = Decoding(temperature=1.6)
    samples_per_problem: int = Field(1, ge=1)
    max_tokens: int = Field(4096, ge=1)
    stop_loops: LoopStop | None = LoopStop()  # None: a loop runs on to max_tokens, as far as the paper says
    # torch: PyTorch, on CUDA where there is one; the same samples but for rounding (docs/method.md, rule 3)
    engine: Literal["mlx", "torch"] = "mlx"
    rows: int = Field(32, ge=1)  # sequences decoded side by side, at most
    memory_gb: float | None = Field(None, gt=0)  # that weights and caches may take; null: what the machine can give


class Curation(Section):
    drop_empty: bool = True
    drop_stubs: bool = True  # one-line answers
    drop_shortest_percent: float = Field(0.0, ge=0, lt=100)  # 10 in the released script, 0 in the paper
    # Samples that ended by length or loop; the paper keeps them. cut: of a loop only the first copy of its cycle is
    # kept, without an end of turn; what ended by length is kept as it is.
    unfinished: Literal["keep", "drop", "cut"] = "keep"


class Validation(Section):
    """Samples that are held out of training, on which the loss is measured; the best student by it is the result."""

    percent: float = Field(5.0, gt=0, lt=100)  # of the problems
    every_steps: int = Field(25, ge=1)
    patience: int | None = Field(None, ge=1)  # measurements without a better loss that end the training; None: never


class Training(Section):
    method: Literal["lora", "full"] = "lora"  # full: every weight, as in the paper; not of a quantized model
    # tokens: the sampled tokens, as in the paper; distribution: the truncated, tempered base distribution that each
    # of them was drawn from
    targets: Literal["tokens", "distribution"] = "tokens"
    rank: int = Field(16, ge=1)
    scale: float = Field(2.0, gt=0)  # y += scale * x A B
    dropout: float = Field(0.0, ge=0, lt=1)
    keys: Literal["all"] | list[str] = "all"  # modules that wear an adapter, such as self_attn.q_proj
    experts: bool = False  # whether `all` takes in the experts of a mixture, each with an adapter of its own
    num_layers: int = Field(-1, ge=-1)  # the last so many layers are trained; -1: all
    learning_rate: float = Field(1e-4, gt=0)
    final_fraction: float = Field(0.2, ge=0, le=1)  # of the peak, at the cosine's end
    warmup_fraction: float = Field(0.1, ge=0, le=1)  # of the steps
    betas: tuple[float, float] = Field((0.9, 0.95), strict=False)
    weight_decay: float = Field(0.1, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)  # optimizer steps, in place of `epochs`; rows are taken again as needed
    rows_per_step: int = Field(16, ge=1)  # samples an optimizer step sees
    max_length: int = Field(8192, ge=2)  # tokens of prompt and completion
    # A longer sample: error refuses it; drop leaves it out; cut keeps what fits, without an end of turn. Counted.
    too_long: Literal["error", "drop", "cut"] = "error"
    validation: Validation | None = None
    checkpoint_every_steps: int = Field(25, ge=1)
    # How the work of a step is cut; the result is the same but for rounding. null: by the memory there is.
    row_tokens: int | None = Field(None, ge=1)  # tokens in memory at a time, of whole samples behind one another
    gradient_checkpointing: bool | None = None  # less memory, about a third more time
    memory_gb: float | None = Field(None, gt=0)  # that weights, adapter and activations may take; null: what is there


class Limits(Section):
    """What a program under test may use."""

    wall_seconds: float = Field(4.0, gt=0)  # a test
    cpu_seconds: float = Field(4.0, gt=0)  # a test
    memory_mb: int = Field(512, ge=64)
    output_kb: int = Field(256, ge=1)
    processes: int = Field(8, ge=0)  # besides its own


class Curve(Section):
    """Decoding settings tried on the validation problems, for every arm; the base's best one becomes a control."""

    temperatures: tuple[float, ...] = Field((0.6, 0.9, 1.2), strict=False, min_length=1)
    base_top_p: tuple[float, ...] = Field((), strict=False)  # for the base, beside the evaluation's own
    samples_per_problem: int = Field(4, ge=1)


class Evaluation(Section):
    decoding: Decoding = Decoding(temperature=0.9)  # of base and student alike
    base_best: Decoding | None = None  # control: the base's own best decoding, where it is known (`mlx-ssd probe`)
    two_stage: bool = True  # control: the base under two-stage decoding, an ideal student without training
    curve: Curve | None = None  # needs problems.validation
    samples_per_problem: int = Field(8, ge=1)
    pass_at: tuple[int, ...] = Field((1, 5), strict=False, min_length=1)
    max_tokens: int = Field(4096, ge=1)
    # None: answers are judged under the decoding alone. One may leave its loop and be right after all, and base and
    # students need not loop equally often: a stop would be part of their difference.
    stop_loops: LoopStop | None = None
    rows: int = Field(32, ge=1)
    memory_gb: float | None = Field(None, gt=0)
    limits: Limits = Limits()
    workers: int = Field(2, ge=1)  # programs graded side by side
    # How programs must be shut in, at least, for grading to begin (docs/sandbox.md); any: as well as the machine can.
    sandbox: Literal["any", "landlock", "namespaces"] = "any"
    reuse_grades: bool = True  # of the same program, tests and limits in other runs on this machine
    bootstrap_resamples: int = Field(10_000, ge=100)


class Analysis(Section):
    """Locks and forks: base and students read the same answers, and every token of them is measured."""

    texts: str = "base"  # whose answers to the test problems: base, student, or the name of an arm
    samples_per_problem: int = Field(1, ge=1)  # the first so many answers to each
    max_tokens: int = Field(200_000, ge=1)  # of all these answers; whole ones, in the order of the problems


ARM_SETTINGS = ("problems.train.", "sample.", "curate.", "train.", "evaluate.decoding.")
RESERVED_ARMS = ("base", "base-best", "two-stage", "student")


class Arm(Section):
    """A further student: the recipe with some settings changed, written as for --set."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    set: dict[str, Any]

    @model_validator(mode="after")
    def _only_what_makes_a_student(self) -> Arm:
        if self.name in RESERVED_ARMS:
            raise ValueError(f"an arm cannot be called {self.name}; that name is taken")
        for key in self.set:
            if not key.startswith(ARM_SETTINGS):
                allowed = ", ".join(ARM_SETTINGS)
                raise ValueError(f"arm {self.name} cannot change {key}, only what starts with {allowed}")
        return self


class Recipe(Section):
    """The whole run. `Recipe.load("quickstart")` or `Recipe.load("my.yaml", {"train.rank": 8})`."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**32)
    model: Model = Model()
    prompt: Prompt = Prompt()
    problems: Problems = Problems()
    sample: Sampling = Sampling()
    curate: Curation = Curation()
    train: Training = Training()
    evaluate: Evaluation = Evaluation()
    analyze: Analysis | None = Analysis()  # None: left out
    arms: tuple[Arm, ...] = Field((), strict=False)  # students beside the main one

    @model_validator(mode="after")
    def _no_contradictions(self) -> Recipe:
        if self.evaluate.curve and self.evaluate.base_best:
            raise ValueError("evaluate.curve chooses the base's best decoding; set one of it and evaluate.base_best")
        if self.evaluate.curve and not self.problems.validation:
            raise ValueError("evaluate.curve needs problems.validation: settings are not chosen on test problems")
        names = [arm.name for arm in self.arms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two arms are called {twice}")
        for name in names:
            self.of_arm(name)  # its settings must make a recipe too
        if self.analyze:
            if self.analyze.texts not in (known := ["base", "student", *names]):
                raise ValueError(f"analyze.texts is {self.analyze.texts!r}; give one of {', '.join(known)}")
            if self.analyze.samples_per_problem > self.evaluate.samples_per_problem:
                raise ValueError(
                    f"analyze.samples_per_problem {self.analyze.samples_per_problem} is more than the "
                    f"{self.evaluate.samples_per_problem} of evaluate.samples_per_problem"
                )
        if max(self.evaluate.pass_at) > self.evaluate.samples_per_problem:
            raise ValueError(
                f"evaluate.pass_at {max(self.evaluate.pass_at)} needs at least as many samples, "
                f"but evaluate.samples_per_problem is {self.evaluate.samples_per_problem}"
            )
        if min(self.evaluate.pass_at) < 1:
            raise ValueError(f"evaluate.pass_at {min(self.evaluate.pass_at)} means nothing; give numbers from 1")
        if not all(0 <= beta < 1 for beta in self.train.betas):
            raise ValueError(f"train.betas {list(self.train.betas)} must each be from 0 to below 1")
        if not self.train.keys or self.train.num_layers == 0:
            raise ValueError("train.keys and train.num_layers leave nothing to train; 'all' and -1 train every layer")
        if self.train.method == "full" and self.train.keys != "all":
            raise ValueError("train.method full trains every weight of a layer; leave train.keys at all")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
        """A recipe by name (`mlx-ssd recipes`) or from a YAML file, with `{"section.key": value}` on top.

        Raises BadInput with one sentence: the file or --set, the key's path, and how to mend it.
        """
        path = find(name_or_path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a text file in UTF-8") from None
        return cls.parse(text, str(path), overrides)

    @classmethod
    def parse(cls, text: str, where: str, overrides: dict[str, Any] | None = None) -> Recipe:
        settings = read_yaml(text, where)
        for key, value in (overrides or {}).items():
            _put(settings, key, value)
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise BadInput(_sentence(error, where, set(overrides or {}))) from None

    def of_arm(self, name: str) -> Recipe:
        """The recipe of one arm alone: its settings over these. "student" is this recipe itself."""
        # Which texts are analysed concerns all arms together; it may be another arm's.
        settings = self.model_dump(mode="json", exclude={"arms", "analyze"})
        if name != "student":
            arm = next(arm for arm in self.arms if arm.name == name)
            for key, value in arm.set.items():
                _put(settings, key, value)
        try:
            return Recipe.model_validate(settings)
        except ValidationError as error:
            raise ValueError(f"arm {name}: {_sentence(error, '', set()).removeprefix(': ')}") from None

    def to_yaml(self) -> str:
        """Every setting written out; reading it back gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_override(text: str) -> tuple[str, Any]:
    """`section.key=value` of --set; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: write it as section.key=value, for example --set train.rank=8")
    return key.strip(), read_yaml(value, f"--set {key}", mapping=False)


def recipe_folder() -> Path:
    """Inside the wheel as mlx_ssd/_recipes; beside the package in a checkout."""
    package = Path(str(files("mlx_ssd")))
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def find(name_or_path: str | Path) -> Path:
    named = recipe_folder() / f"{name_or_path}.yaml"
    if str(name_or_path) in names():
        return named
    path = Path(name_or_path)
    if path.is_file():
        return path
    near = difflib.get_close_matches(str(name_or_path), names(), n=1)
    mend = f"did you mean {near[0]}?" if near else f"recipes are: {', '.join(names())}"
    raise BadInput(f"no recipe or recipe file {str(name_or_path)!r}; {mend}")


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = settings.get(section)
        inner = dict(inner) if isinstance(inner, dict) else {}
        settings[section] = inner
        settings = inner
    settings[last] = value


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        kind = field.annotation
        inner = [kind, *get_args(kind)]
        keys += [
            key
            for part in inner
            if isinstance(part, type) and issubclass(part, BaseModel)
            for key in _known_keys(part, f"{prefix}{name}.")
        ]
    return keys


def _sentence(error: ValidationError, where: str, overridden: set[str]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    source = "--set" if any(key == o or key.startswith(f"{o}.") for o in overridden) else where
    if first["type"] == "extra_forbidden":
        known = _known_keys(Recipe)
        # The same word in another section is a likelier slip than another word in the same one.
        last = key.rsplit(".", 1)[-1]
        near = [k for k in known if k.rsplit(".", 1)[-1] == last] or difflib.get_close_matches(key, known, n=1)
        mend = f"did you mean {near[0]}?" if near else "see `mlx-ssd recipes show quickstart`"
        return f"{source}: {key} is not a setting; {mend}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = first.get("input")
    if not isinstance(given, (dict, BaseModel)):
        message += f", not {given!r}"
    return f"{source}: {key}: {message}" if key else f"{where}: {message}"
