"""`python -m mlx_ssd.analysis RUN --texts FILE --out FOLDER`: a student analysed on a user's own texts.

In a process of its own: on Linux the BLAS library must be in place before one starts, and a Metal out-of-memory abort
ends one.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it can be caught; the parent sends it again

import argparse
import sys
from pathlib import Path

from mlx_ssd import models
from mlx_ssd.analysis.owning import arm_of
from mlx_ssd.child import exit_code


def measure(directory: Path, arm: str, texts: Path, out: Path) -> None:
    models.without_pytorch()
    from mlx_ssd.analysis.analysing import analyse, subject_of
    from mlx_ssd.analysis.texts import own

    chosen = arm_of(directory, arm)
    subject = subject_of(chosen)
    config = models.read_config(chosen.recipe.model)
    tokenizer = models.load_generating_tokenizer(subject.base)
    found, source = own(texts, tokenizer, chosen.recipe.prompt, config.get("max_position_embeddings"))
    analyse(out, subject, found, source, chosen.recipe.evaluate.bootstrap_resamples)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    return exit_code(lambda: measure(asked.run, asked.arm, asked.texts, asked.out))


if __name__ == "__main__":
    sys.exit(main())
