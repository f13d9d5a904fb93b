"""`python -m mlx_ssd.bench SUBJECT LOAD PARENT`: a model, loaded, that answers its parent's requests one by one.

In a process of its own, so that its memory is its own, that on Linux the BLAS library is in place, and that a Metal
out-of-memory abort ends no other. A line on standard input is a request, a line of JSON on standard output its answer.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this one

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.bench.configurations import Load, Subject
from mlx_ssd.child import end_with
from mlx_ssd.errors import SsdError
from mlx_ssd.storage import read_json


def answers(subject: Subject, load: Load, requests: Iterator[str]) -> Iterator[dict[str, Any]]:
    import mlx.core as mx

    from mlx_ssd.bench import bandwidth, footprint, generating
    from mlx_ssd.bench import subject as subjects
    from mlx_ssd.budget import ModelSize

    model: Any = None
    for request in requests:
        if request == "bandwidth":
            yield bandwidth.measured()
        elif request.startswith("load"):
            model, tokenizer, seconds = subjects.timed_loads(subject, int(request.split()[1]))
            tokenizer.eos_token_ids = []  # nothing ends an answer early
            config = read_json(Path(subject.folder) / "config.json")
            prompts = generating.prompts_of(load, (config.get("text_config") or config)["vocab_size"])
            mx.reset_peak_memory()
            facts = subjects.facts_of(model, Path(subject.folder)) | {"seconds": seconds}
            yield facts | {"expert_share": ModelSize.of(config).expert_share if facts["expert_bytes"] else 1.0}
        elif request == "repeat":
            yield asdict(generating.generate(model, tokenizer, prompts, load.generated))
        elif request == "memory":
            footprints = footprint.now_and_peak()
            memory = {"mlx_peak_bytes": mx.get_peak_memory()}
            names = ("footprint_bytes", "footprint_peak_bytes")
            yield memory | (dict(zip(names, footprints, strict=True)) if footprints else {})


def main() -> int:
    subject, load = Subject(**json.loads(sys.argv[1])), Load(**json.loads(sys.argv[2]))
    end_with(int(sys.argv[3]))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    models.without_pytorch()
    try:
        for answer in answers(subject, load, (line.strip() for line in sys.stdin)):
            print(json.dumps(answer), file=out, flush=True)
    except SsdError as error:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}), file=out, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
