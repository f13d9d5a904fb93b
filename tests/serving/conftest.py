"""A real mlx_lm.server on the embedded model, and what draws by any server into a journal."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from mlx_ssd import assets, models
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.problems import read_problems
from mlx_ssd.records import Sample
from mlx_ssd.sampling.collect import Target, collect
from mlx_ssd.sampling.engines import SERVER, engine_of
from mlx_ssd.sections import Model, ProblemSource, Prompt, Server
from mlx_ssd.storage import Journal
from tests import faults

PAPER = DecodingPolicy(1.6, 20, 0.8)


@contextlib.contextmanager
def started(*command):
    """A process that serves at --port, until the context ends; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)],
        env=faults.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def mlx_lm_server(folder):
    return started("mlx_lm", "server", "--model", str(folder), "--host", "127.0.0.1")


@pytest.fixture(scope="session")
def real():
    with mlx_lm_server(assets.model_path()) as url:
        yield url


def settings(url, **changes):
    return Server(url=url, **{"timeout_seconds": 300.0, "retries": 8, "concurrency": 8, **changes})


def draw(server, path, policy=PAPER, problems=8, samples=1, max_tokens=64, **changes):
    """What `collect` measures, after drawing by the server into the journal at `path`."""
    source = models.locate(Model())
    engine = engine_of(SERVER, server)
    model, tokenizer = engine.load(source, "float32")
    options = {
        "prompt": Prompt(),
        "samples_per_problem": samples,
        "max_tokens": max_tokens,
        "rows": 8,
        "memory_gb": None,
        "loops": None,
        "seed": 0,
        "stream": "train/round-1",
        "revision": source.revision,
        "label": "test",
        "engine": engine,
    }
    asked = read_problems(ProblemSource(limit=problems), "train")
    return collect([Target(path, policy)], Sample, asked, model, tokenizer, **options | changes)


def samples(path):
    found = Journal(path, Sample).read()
    assert len(found) == len({sample.key for sample in found})
    return found
