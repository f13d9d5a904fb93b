"""What passes between stages: one JSON object a line, versioned, unknown keys refused.

problems -> Problem -> Sample -> TrainingRow -> (adapter) -> Generation -> Grade -> Score
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlx_ssd.errors import BadInput

FinishReason = Literal["stop", "length", "loop"]
VerdictName = Literal["pass", "wrong", "error", "timeout", "memory", "no_code", "harness_error", "ungraded"]


class Record(BaseModel):
    """A line of a journal. `v` is the format's version; a newer one is refused, not guessed at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    v: Literal[1] = 1

    def line(self) -> str:
        return self.model_dump_json() + "\n"


class Problem(Record):
    """A programming task, or a question. A functional test is {"args": [...], "expected": value}, called on
    `entry_point`; a check is {"check": source}, assertions that call `entry_point`; a stdin test is {"stdin": text,
    "stdout": text}; {"answer": text} is a number that the answer must come to. Without tests it can be sampled and
    trained on, not graded. `preamble` is code that every program is graded behind, such as imports that its judge has
    at hand; `stem` is code that an answer without a fenced block goes on from."""

    id: str
    prompt: str
    entry_point: str | None = None
    tests: list[dict[str, Any]] = Field(default_factory=list)
    difficulty: str | None = None
    preamble: str | None = None
    stem: str | None = None

    @model_validator(mode="after")
    def _tests_of_one_kind(self) -> Problem:
        functional = all(isinstance(t.get("args"), list) and "expected" in t for t in self.tests)
        texts = (("stdin", "stdout"), ("check",), ("answer",))
        of_texts = any(all(isinstance(t.get(key), str) for t in self.tests for key in keys) for keys in texts)
        if self.tests and not functional and not of_texts:
            raise ValueError(
                'tests must all be {"args": [...], "expected": value}, all {"check": ""}, all {"stdin": "", "stdout": '
                '""} or all {"answer": ""}'
            )
        if self.tests and (functional or "check" in self.tests[0]) and not self.entry_point:
            raise ValueError("functional tests and checks need entry_point, the name of the function to call")
        return self


class Completion(Record):
    """What a model answered, as the token ids it really produced, and how it was drawn."""

    problem_id: str
    sample_index: int
    prompt_ids: list[int]
    completion_ids: list[int]  # includes the end-of-turn token when the model produced one
    finish_reason: FinishReason
    policy: str  # DecodingPolicy.name()
    seed: int
    stream: str  # random stream: the uniforms are a function of (seed, stream, problem, sample, position)
    model: str  # revision of the weights, adapter included
    template: str  # hash of the chat template and the prompt settings

    @property
    def key(self) -> tuple[str, int]:
        return self.problem_id, self.sample_index

    @property
    def tokens(self) -> int:
        return len(self.completion_ids)


class Sample(Completion):
    """A completion drawn from the frozen model for training; by a server, where `drawn_by` names one."""

    drawn_by: str | None = None  # kind and version; the uniforms are then the server's own
    seeded: bool | None = None  # whether it was given a seed, by which it draws the same again
    retokenized: bool | None = None  # the ids are those of the text, which need not be the ones that were drawn

    def line(self) -> str:
        return self.model_dump_json(exclude_none=True) + "\n"  # as before there were servers


class Generation(Completion):
    """A completion drawn for evaluation."""


class TrainingRow(Record):
    """Token ids to train on. Loss falls on `completion_ids` only."""

    problem_id: str
    sample_index: int
    prompt_ids: list[int]
    completion_ids: list[int]


class Grade(Record):
    """The outcome of one generation's tests. `harness_error` is never a failure of the program; `ungraded` is a
    program whose problem has no tests."""

    problem_id: str
    sample_index: int
    verdict: VerdictName
    failed_test: int | None = None
    detail: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.problem_id, self.sample_index


class Interval(BaseModel):
    """A mean over problems with its bootstrap interval; a fraction, not per cent."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: float
    low: float
    high: float


class Score(Record):
    """One arm on one suite at one decoding. Absent metrics are absent, never 0."""

    arm: str
    suite: str
    decoding: str
    problems: int
    graded_problems: int  # those with tests, over which pass@k is taken
    samples_per_problem: int
    pass_at: dict[int, Interval]
    pass_at_by_difficulty: dict[str, dict[int, float]]
    verdicts: dict[str, int]
    finish_reasons: dict[str, int]
    extractable_code: float
    completion_tokens: float


class McNemar(BaseModel):
    """McNemar's exact test: the problems that only one of the two arms passed, and the two-sided p-value."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    only_baseline: int
    only_arm: int
    p: float


class LengthControlled(BaseModel):
    """The difference in pass@1 at equal length of the answers, and their mean completion tokens, over problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    difference: Interval
    baseline_tokens: float
    arm_tokens: float


class Comparison(Record):
    """arm - baseline in pass@k, in fractions, paired over the suite's problems. What does not apply is absent."""

    baseline: str
    baseline_decoding: str
    arm: str
    decoding: str
    suite: str
    difference: dict[int, Interval]
    minimum_detectable_effect: dict[int, float] | None = None  # with 80 % power, two-sided 5 %; a size, without sign
    mcnemar: McNemar | None = None  # only where both arms have one sample a problem
    length_controlled: LengthControlled | None = None  # only where length can be told from the rest


class CurvePoint(Record):
    """One arm on the validation problems at one temperature of the curve."""

    arm: str
    suite: str
    decoding: str
    temperature: float
    top_p: float
    pass_at: dict[int, Interval]


def parse_line(kind: type[Record], line: str, where: str) -> Any:
    """Read one line as a `kind`. Raises BadInput naming `where` and the first thing that is wrong."""
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        at = f" ({path})" if path else ""
        message = first["msg"].removesuffix(".")
        raise BadInput(f"{where}: not a valid {kind.__name__.lower()}{at}: {message}") from None
