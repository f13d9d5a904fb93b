"""Every setting there is, one section a stage, each with its default. This module is the only place with defaults."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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

    @property
    def plain(self) -> bool:
        """Whether it leaves the model's distribution as it is."""
        return self.temperature == 1 and not self.top_k and self.top_p == 1


class LoopStop(Section):
    """Ends an answer that repeats one cycle of tokens without change; its finish reason is `loop`.

    The defaults are meant never to end an answer that would have come to something (sampling/loops.py).
    """

    period: int = Field(256, ge=1, le=4096)  # longest cycle, in tokens; each token is compared with so many before it
    repeats: int = Field(8, ge=2)  # copies of the cycle
    min_tokens: int = Field(512, ge=1)  # of the copies together: a list of 200 zeros is no loop


class Server(Section):
    """A server that draws the samples (docs/servers.md). Its key, if it wants one: the variable MLX_SSD_SERVER_KEY."""

    url: str  # http://HOST:PORT, of a server with /v1/completions; SGLang: with /generate
    kind: Literal["auto", "vllm", "sglang", "mlx_lm", "lm_studio", "other"] = "auto"
    # In which it decodes, where its kind does not tell; what it draws is held against it.
    order: Literal["temperature_first", "mlx_lm", "llama_cpp"] | None = None
    model: str | None = None  # as the server calls it; null: the one that it names first
    # Its draw a function of the sample, where it takes a seed; mlx_lm.server then answers one at a time. null: by kind.
    seeds: bool | None = None
    retokenize: Literal["refuse", "allow"] = "refuse"  # text without token ids; allow: its own tokens, marked as such
    # Nats between its log-probabilities and the model's own, on average over tokens; null: not looked at.
    tolerance: float | None = Field(0.05, gt=0)
    concurrency: int = Field(16, ge=1, le=1024)  # questions at a time
    timeout_seconds: float = Field(600.0, gt=0)  # of one answer, in whole; longer than the longest takes
    retries: int = Field(8, ge=0, le=100)  # of one question

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("give it as http://HOST:PORT")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a name or password in it would be written into the run; set MLX_SSD_SERVER_KEY instead")
        return url

    def settings(self) -> dict[str, Any]:
        """What the samples depend on."""
        return self.model_dump(include={"kind", "order", "model", "seeds", "retokenize"})


class Sampling(Section):
    decoding: Decoding = Decoding(temperature=1.6)
    samples_per_problem: int = Field(1, ge=1)
    max_tokens: int = Field(4096, ge=1)
    stop_loops: LoopStop | None = LoopStop()  # None: a loop runs on to max_tokens, as far as the paper says
    # torch: PyTorch, on CUDA where there is one; the same samples but for rounding (docs/method.md, rule 3)
    # server: another process or machine, which draws for itself; only samples, evaluation is always done here
    engine: Literal["mlx", "torch", "server"] = "mlx"
    server: Server | None = None  # for engine server
    rows: int = Field(32, ge=1)  # sequences decoded side by side, at most
    memory_gb: float | None = Field(None, gt=0)  # that weights and caches may take; null: what the machine can give

    @model_validator(mode="after")
    def _server_is_named(self) -> Sampling:
        if self.engine == "server" and self.server is None:
            raise ValueError("engine server needs server.url, the address of the server")
        return self

    def settings(self) -> dict[str, Any]:
        """What the samples depend on: not how fast, nor by which library (rule 3 in docs/method.md)."""
        found = self.model_dump(exclude={"engine", "server", "rows", "memory_gb"})
        return found | {"server": self.server.settings()} if self.engine == "server" else found


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


class Floors(Section):
    """Shares of the base's own diversity below which a round is not kept, and `auto` ends; 0: no floor."""

    pass_gap: float = Field(0.25, ge=0)  # pass@n - pass@1, of the n samples of the curve
    distinct: float = Field(0.5, ge=0)  # different answers among a problem's samples
    fork_entropy: float = Field(0.5, ge=0)  # entropy at the base's forks, along the base's answers


class Rounds(Section):
    """Distilling more than once (docs/rounds.md). `rounds: 3` in place of the section sets its count."""

    count: int | Literal["auto"] = 1  # auto: until nothing is gained any more
    most: int = Field(6, ge=1)  # of auto
    teacher: Literal["previous", "base"] = "previous"  # who draws the samples after the first round
    adapter: Literal["fresh", "continue"] = "fresh"  # continue: from the weights of the round before
    prompts: Literal["same", "fresh"] = "same"  # fresh: each round takes the next problems.train.limit problems
    temperatures: tuple[float, ...] = Field((), strict=False)  # of sampling, by round, the last for all later ones
    floors: Floors = Floors()

    @field_validator("count", mode="before")
    @classmethod
    def _a_number_or_auto(cls, value: Any) -> Any:
        if value != "auto" and not (type(value) is int and value >= 1):
            raise ValueError("must be a whole number from 1 on, or auto")
        return value

    @property
    def last(self) -> int:
        """The number of the last round there may be."""
        return self.most if self.count == "auto" else self.count


ARM_SETTINGS = ("problems.train.", "sample.", "curate.", "train.", "rounds.", "evaluate.decoding.")
STAGED = re.compile(r"two-stage|\d+-stage")  # `StagedPolicy.kind`, by which that control is called
RESERVED_ARMS = ("base", "base-best", "student")


class Arm(Section):
    """A further student: the recipe with some settings changed, written as for --set."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    set: dict[str, Any]

    @model_validator(mode="after")
    def _only_what_makes_a_student(self) -> Arm:
        folder = self.name.casefold()  # macOS's file system tells no case
        if folder in RESERVED_ARMS or STAGED.fullmatch(folder) or re.fullmatch(r"round-\d+", folder):
            raise ValueError(f"an arm cannot be called {self.name}; that name is taken")
        for key in self.set:
            if not key.startswith(ARM_SETTINGS):
                allowed = ", ".join(ARM_SETTINGS)
                raise ValueError(f"arm {self.name} cannot change {key}, only what starts with {allowed}")
        return self
