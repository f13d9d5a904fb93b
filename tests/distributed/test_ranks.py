"""Two ranks on loopback: the samples of one rank, whichever of the two is killed or stopped, and never a hang.

The wheel's own BLAS (tests.faults.Forked), whose results do not depend on the batch: so the samples are equal to the
byte, where rule 3 would allow a draw on a boundary to differ.
"""

import contextlib
import os
import random
import signal
import time

import pytest

from mlx_ssd.records import Generation
from mlx_ssd.storage import Journal, read_json
from tests.distributed.ranks import PROBLEMS, follow, free_port, lead, make_adapter, targets
from tests.faults import Forked

KILLS = 3  # benchmarks/ranks.py does more, of both ranks
STUDENT = 6  # problems
LIMIT = 120.0  # seconds: far more than any of these takes


def lines(folder):
    found = [sorted(target.path.read_bytes().splitlines()) for target in targets(folder)]
    for target in targets(folder):
        keys = [record.key for record in Journal(target.path, Generation).read()]
        assert len(keys) == len(set(keys)), "a sample stands there twice"
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert Forked(lead, folder, None).wait() == 0
    return lines(folder)


@contextlib.contextmanager
def ranks(*processes):
    started = list(processes)
    try:
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()


def held(folder):
    return sum(target.path.stat().st_size for target in targets(folder) if target.path.exists())


def wait_for(folder, size, process):
    deadline = time.monotonic() + LIMIT
    while held(folder) < size and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process.poll() is None


def ended(process):
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process.poll()


def drawn_by_workers(folder):
    return sum(read_json(folder / "measured.json")["workers"].values())


def test_two_ranks_draw_what_one_draws(alone, tmp_path):
    port = free_port()
    with ranks(Forked(follow, port), Forked(lead, tmp_path, port, None, PROBLEMS, 8.0, 2)) as (_, leader):
        assert ended(leader) == 0
    assert lines(tmp_path) == alone
    assert 0 < drawn_by_workers(tmp_path) < 4 * PROBLEMS


def test_a_student_goes_over_the_line_and_draws_what_it_draws_here(alone, tmp_path):
    adapter, here, both = tmp_path / "adapter", tmp_path / "here", tmp_path / "both"
    assert Forked(make_adapter, adapter).wait() == 0
    assert Forked(lead, here, None, adapter, STUDENT).wait() == 0
    port = free_port()
    with ranks(Forked(follow, port), Forked(lead, both, port, adapter, STUDENT, 8.0, 1)) as (_, leader):
        assert ended(leader) == 0
    assert lines(both) == lines(here)
    assert drawn_by_workers(both) > 0
    of_base = {line for journal in alone for line in journal}
    assert sum(line not in of_base for journal in lines(here) for line in journal) > STUDENT, "it must differ to tell"


def test_a_worker_killed_at_random_points_costs_no_sample(alone, tmp_path):
    generator, port = random.Random(0), free_port()
    whole = sum(len(line) + 1 for journal in alone for line in journal)
    hit = 0
    with ranks(Forked(lead, tmp_path, port)) as started:
        leader = started[0]
        for moment in sorted(generator.uniform(0, 0.8) for _ in range(KILLS)):
            worker = Forked(follow, port)
            started.append(worker)
            if not wait_for(tmp_path, moment * whole, leader):
                break
            time.sleep(generator.uniform(0.2, 0.4))
            hit += leader.poll() is None
            worker.kill()
        started.append(Forked(follow, port))
        assert ended(leader) == 0
    assert hit >= KILLS and lines(tmp_path) == alone


def test_the_rank_that_keeps_the_journal_is_killed_and_its_worker_joins_the_next(alone, tmp_path):
    port = free_port()
    whole = sum(len(line) + 1 for journal in alone for line in journal)
    with ranks(Forked(follow, port), Forked(lead, tmp_path, port)) as started:
        assert wait_for(tmp_path, 0.3 * whole, started[1])
        started[1].kill()
        assert 0 < sum(map(len, lines(tmp_path))) < 4 * PROBLEMS
        started.append(Forked(lead, tmp_path, port))
        assert ended(started[-1]) == 0 and started[0].poll() is None
    assert lines(tmp_path) == alone


def test_a_worker_that_is_stopped_is_noticed_and_its_claims_drawn_elsewhere(alone, tmp_path):
    port = free_port()
    whole = sum(len(line) + 1 for journal in alone for line in journal)
    with ranks(Forked(follow, port), Forked(lead, tmp_path, port, None, PROBLEMS, 1.0)) as (worker, leader):
        assert wait_for(tmp_path, 0.3 * whole, leader)
        os.kill(worker.pid, signal.SIGSTOP)
        assert ended(leader) == 0
    assert lines(tmp_path) == alone
