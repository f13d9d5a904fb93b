"""Two ranks train what one trains, up to rounding; a lost rank is noticed at once, and the checkpoint goes on alone."""

import json
import shutil
import socket
import threading

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd.distributed import address, wire
from mlx_ssd.distributed import training as distributed_training
from mlx_ssd.errors import BadInput
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import write_atomic
from mlx_ssd.training.ranks import Ranks
from mlx_ssd.training.rows import length
from tests.distributed.ranks import SECRET, free_port
from tests.distributed.training_ranks import train_rank
from tests.faults import Forked
from tests.training.tiny import Held, Settings, make_rows

STEPS = Settings(epochs=3, rows_per_step=3, checkpoint_every_steps=3)
WAYS = {
    "tokens": STEPS,
    "distribution": STEPS.but(targets="distribution", row_tokens=20),
    "validation": STEPS.but(validation=Held(every_steps=2, patience=1), learning_rate=0.3),
    "single": STEPS.but(rows_per_step=1, epochs=1),  # one rank has nothing to compute
    "full": STEPS.but(method="full", learning_rate=1e-3),
}


def adapter(folder):
    return {name: np.array(array) for name, array in mx.load(str(folder / "adapter/adapters.safetensors")).items()}


def log(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def same(expected, found):
    assert expected.keys() == found.keys()
    for name in expected:
        size = np.abs(expected[name]).max()
        assert np.abs(expected[name] - found[name]).max() < 2e-3 * size + 1e-6, name


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which NAME-None was trained by one rank, NAME-0 and NAME-1 by two. Rank 0 saves every step, which the
    other knows nothing of."""
    folder, ports = tmp_path_factory.mktemp("trained"), [free_port(), free_port()]
    assert Forked(train_rank, folder, None, [], WAYS).wait() == 0
    both = [Forked(train_rank, folder, rank, ports, WAYS, 0, rank == 0) for rank in (0, 1)]
    assert [process.wait() for process in both] == [0, 0]
    saved = [path.name for path in (folder / "tokens-0" / "checkpoints").iterdir()]
    assert sorted(saved) == ["step-00000011", "step-00000012"]
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_train_what_one_trains(trained, way):
    alone, first, second = (trained / f"{way}-{rank}" for rank in (None, 0, 1))
    for a, b in zip(log(alone), log(first), strict=True):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        for name in {"loss", "gradient_norm", "completion_tokens", "loss_kept_mass"} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=2e-3, abs=1e-5), name
    same(adapter(alone), adapter(first))
    assert not (second / "adapter").exists() and not (second / "checkpoints").exists(), "rank 0 alone writes"


def test_with_validation_all_ranks_end_early_together(trained):
    assert max(entry["step"] for entry in log(trained / "validation-0")) < 12
    assert [e["step"] for e in log(trained / "validation-0")] == [e["step"] for e in log(trained / "validation-1")]


def test_a_lost_rank_is_noticed_and_one_or_two_ranks_go_on_from_the_checkpoint(trained, tmp_path):
    ports, tokens = [free_port(), free_port()], {"tokens": STEPS}
    first, second = (Forked(train_rank, tmp_path, rank, ports, tokens, 8) for rank in (0, 1))
    assert second.wait() == 9 and first.wait() != 0
    assert not (tmp_path / "tokens-0" / "adapter").exists()
    kept = sorted(path.name for path in (tmp_path / "tokens-0" / "checkpoints").iterdir())
    assert kept[-1] == "step-00000006"
    again, ports = tmp_path / "again", [free_port(), free_port()]
    for name in ("tokens-0", "tokens-None"):
        shutil.copytree(tmp_path / "tokens-0", again / name)
    both = [Forked(train_rank, again, rank, ports, tokens) for rank in (0, 1)]  # rank 1 knows of no checkpoint
    assert [process.wait() for process in both] == [0, 0]
    assert Forked(train_rank, again, None, [], tokens).wait() == 0
    for name in ("tokens-0", "tokens-None"):
        same(adapter(trained / "tokens-None"), adapter(again / name))
        assert [entry["step"] for entry in log(again / name)] == list(range(1, 13))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_row_is_one_ranks_and_all_have_about_as_many_tokens(size):
    rows = make_rows(20)
    parts = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        parts.append(ranks.part(rows))
    assert sorted(row.problem_id for part in parts for row in part) == sorted(row.problem_id for row in rows)
    sizes = [sum(map(length, part)) for part in parts]
    assert max(sizes) - min(sizes) <= max(map(length, rows))


def test_a_worker_over_ipv6_is_not_trained_with(tmp_path, monkeypatch, capsys):
    """MLX's ring cannot parse its address, and the training would fail three times and be given up."""
    monkeypatch.setenv(address.SECRET, SECRET)
    monkeypatch.setattr(distributed_training, "JOIN_SECONDS", 1.0)
    monkeypatch.setattr(distributed_training, "READY_SECONDS", 1.0)
    files = RunFiles(tmp_path)
    write_atomic(files.recipe, Recipe.parse("", "r", {}).to_yaml())
    files.rows.parent.mkdir(parents=True)
    files.rows.write_text("")
    try:
        lead = distributed_training._Lead(("::1", 0), files)
    except BadInput:
        pytest.skip("this machine has no IPv6")

    def ask():
        """As a worker does, again and again."""
        for _ in range(2):
            line = wire.Line(socket.create_connection(("::1", lead._listener.port)), wire.WORKER, wire.COORDINATOR)
            with pytest.raises(wire.Lost):
                wire.join(line, SECRET.encode(), "peer")
            line.close()
            asked.append(1)

    asked = []
    worker = threading.Thread(target=ask)
    worker.start()
    assert lead.gather() == []
    worker.join(10)
    lead.close()
    assert len(asked) == 2
    assert capsys.readouterr().err.count("note: worker peer came over IPv6, over which MLX cannot train") == 1
