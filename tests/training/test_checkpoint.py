import mlx.core as mx
import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.training import checkpoint as checkpoints
from mlx_ssd.training.checkpoint import Checkpoint, Pace, load_latest, save
from mlx_ssd.training.validation import Best

A = {"train": {"rank": 8, "betas": (0.9, 0.95)}, "inputs": {"rows": "abc"}}
B = {"train": {"rank": 16, "betas": (0.9, 0.95)}, "inputs": {"rows": "abd"}}


def checkpoint(step, best=None):
    return Checkpoint(step, 100 * step, {"a": mx.full((3,), step)}, {"step": mx.array(step, mx.uint64)}, best, 1)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def directory(tmp_path):
    """Checkpoints of steps 4 and 6, after one of step 2."""
    for step in (2, 4, 6):
        save(tmp_path, checkpoint(step), A)
    return tmp_path


def test_the_last_two_are_kept_and_the_newest_is_read_back(directory):
    assert names(directory) == ["step-00000004", "step-00000006"]
    found, warnings = load_latest(directory, A)
    assert (found.step, found.log_bytes, warnings) == (6, 600, [])
    assert found.adapter["a"].tolist() == [6, 6, 6]
    assert found.best is None and found.skipped_in_a_row == 1
    assert (found.optimizer["step"].item(), found.optimizer["step"].dtype) == (6, mx.uint64)


def test_the_best_student_so_far_is_kept_with_it(tmp_path):
    earlier = Best(4, 1.25, 2, {"a": mx.full((3,), 4)})
    save(tmp_path, checkpoint(6, earlier), A)
    best = load_latest(tmp_path, A)[0].best
    assert (best.step, best.loss, best.worse_since, best.weights["a"].tolist()) == (4, 1.25, 2, [4, 4, 4])
    newest = Best(8, 1.0, 0, {"a": mx.full((3,), 8)})
    save(tmp_path, checkpoint(8, newest), A)
    assert not (tmp_path / "step-00000008" / "best.safetensors").exists(), "it is the adapter itself"
    assert load_latest(tmp_path, A)[0].best.weights["a"].tolist() == [8, 8, 8]


def test_an_empty_or_missing_directory_has_none(tmp_path):
    assert load_latest(tmp_path, A) == (None, [])
    assert load_latest(tmp_path / "missing", A) == (None, [])


def test_another_recipes_checkpoint_is_refused_naming_what_differs(directory):
    with pytest.raises(BadInput) as error:
        load_latest(directory, B)
    assert "train.rank is 8 there and 16 here, inputs.rows is abc there and abd here" in str(error.value)
    assert "betas" not in str(error.value), "a tuple is a list in JSON"


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "bit flipped": lambda folder: flip_a_bit(folder / "adapter.safetensors"),
    "cut short": lambda folder: (folder / "optimizer.safetensors").write_bytes(b"x"),
    "file missing": lambda folder: (folder / "adapter.safetensors").unlink(),
    "state torn": lambda folder: (folder / "state.json").write_text('{"step": 6, '),
    "state empty": lambda folder: (folder / "state.json").write_text("[]"),
    "state missing": lambda folder: (folder / "state.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_newest_one_falls_back_with_a_warning(directory, damage):
    damage(directory / "step-00000006")
    found, [warning] = load_latest(directory, A)
    assert found.step == 4
    assert "step-00000006 is damaged" in warning


def test_a_damaged_one_is_replaced_and_never_pushes_out_a_good_one(directory):
    flip_a_bit(directory / "step-00000006" / "adapter.safetensors")
    save(directory, checkpoint(5), A)
    assert names(directory) == ["step-00000004", "step-00000005"]
    save(directory, checkpoint(6), A)
    flip_a_bit(directory / "step-00000006" / "adapter.safetensors")
    save(directory, checkpoint(6), A)
    assert load_latest(directory, A)[0].step == 6
    assert names(directory) == ["step-00000005", "step-00000006"]


def test_a_full_disk_is_an_oserror_and_leaves_the_old_ones(directory, monkeypatch):
    class FullDisk:
        def __init__(self, *_):
            self.name = "full"

        def __enter__(self):
            self.file = open("/dev/full", "wb")
            return self.file

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr("mlx_ssd.training.arrays.open", FullDisk, raising=False)
    with pytest.raises(OSError, match="No space left"):
        save(directory, checkpoint(8), A)
    monkeypatch.undo()
    assert load_latest(directory, A)[0].step == 6


def test_one_is_due_five_minutes_after_the_last_or_later_where_saving_takes_long(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    pace = Pace()

    def due_after():
        """Seconds."""
        begun = clock[0]
        while not pace.is_due and clock[0] < begun + 3600:
            clock[0] += 10
        return clock[0] - begun

    for taken, seconds in ((1, 300), (30, 300), (0, 600)):
        assert due_after() == seconds
        with pace.saving():
            clock[0] += taken
    assert due_after() == 300
