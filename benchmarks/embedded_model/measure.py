"""How much room the embedded model leaves for self-distillation: base decoding against two-stage decoding.

    python -m benchmarks.embedded_model.measure --problems 100 --samples 4

Two-stage decoding is what an ideally fitted student would do, without training: the support comes from the
training policy (T 1.6, top-k 20, top-p 0.8), on it p0^(1/(1.6 T)), then top-p 0.8 again. Sampled in torch
and graded in this process: the code is our own model's and runs with an alarm and few builtins, which is no
sandbox.
"""

import argparse
import builtins
import json
import signal
from pathlib import Path

import torch
from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList, Qwen3ForCausalLM

from benchmarks.embedded_model.tokenizer import conversation
from mlx_ssd.assets import model_path, problems_path

TRAIN_TEMPERATURE, TOP_K, TOP_P = 1.6, 20, 0.8
BASE_TEMPERATURES = (0.6, 0.9, 1.05, 1.2, 1.35, 1.5)
TWO_STAGE_TEMPERATURES = (0.75, 0.9, 1.05)
MAX_NEW_TOKENS = 96
SECONDS = 0.3
ALLOWED = (
    "abs all any bool dict enumerate filter float int iter len list map max min next range reversed set "
    "sorted str sum tuple zip"
).split()


def truncate(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Temperature first, then top-k, then top-p: (batch, vocabulary) logits, -inf outside of the support."""
    values, order = (logits / temperature).topk(TOP_K, dim=-1)
    probabilities = values.softmax(-1)
    values = values.masked_fill(probabilities.cumsum(-1) - probabilities >= TOP_P, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter(-1, order, values)


class Policy(LogitsProcessor):
    """One-stage or two-stage decoding at an evaluation temperature."""

    def __init__(self, temperature: float, two_stage: bool):
        self.temperature, self.two_stage = temperature, two_stage

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.two_stage:
            scores = truncate(scores, TRAIN_TEMPERATURE)
        return truncate(scores, self.temperature)


class _TooSlow(Exception):
    pass


def _alarm(*_) -> None:
    raise _TooSlow


def passes(text: str, tests: list[dict]) -> bool:
    """Whether the first fenced block of an answer passes every test."""
    code = text.partition("```python\n")[2].partition("```")[0]
    scope = {"__builtins__": {name: getattr(builtins, name) for name in ALLOWED}}
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        exec(code, scope)
        for test in tests:
            got = scope["solve"](*json.loads(json.dumps(test["args"])))
            if isinstance(got, bool) or got != test["expected"]:
                return False
        return True
    except Exception:  # whatever the model's code raises, an alarm included, is a failed test
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@torch.inference_mode()
def sample(model, tokenizer, prompts: list[str], samples: int, policy: Policy, seed: int) -> list[str]:
    """`samples` answers a prompt, prompt by prompt."""
    torch.manual_seed(seed)
    batch = tokenizer.apply_chat_template(
        [conversation(prompt) for prompt in prompts],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(
        **batch,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=samples,
        max_new_tokens=MAX_NEW_TOKENS,
        logits_processor=LogitsProcessorList([policy]),
    )
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    lines = problems_path("validation").read_text(encoding="utf-8").splitlines()[: args.problems]
    problems = [json.loads(line) for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    model = Qwen3ForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    settings = [(t, False) for t in BASE_TEMPERATURES] + [(t, True) for t in TWO_STAGE_TEMPERATURES]
    print(f"{len(problems)} validation problems, {args.samples} samples each; pass@1 in %")
    for temperature, two_stage in settings:
        prompts = [problem["prompt"] for problem in problems]
        answers = sample(model, tokenizer, prompts, args.samples, Policy(temperature, two_stage), args.seed)
        right = {"easy": [], "hard": []}
        for number, answer in enumerate(answers):
            problem = problems[number // args.samples]
            right[problem["difficulty"]].append(passes(answer, problem["tests"]))
        everything = right["easy"] + right["hard"]
        easy, hard, both = (100 * sum(r) / len(r) for r in (right["easy"], right["hard"], everything))
        name = "two-stage" if two_stage else "base"
        print(f"{name:9s} T {temperature:<4}  {both:5.1f}  (easy {easy:5.1f}, hard {hard:5.1f})", flush=True)


if __name__ == "__main__":
    main()
