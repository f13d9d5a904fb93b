import mlx.core as mx
import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.training.checkpoint import Checkpoint, load_latest, save


def checkpoint(step):
    return Checkpoint(step, 100 * step, {"a": mx.full((3,), step)}, {"step": mx.array(step, mx.uint64)})


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def directory(tmp_path):
    """Checkpoints of steps 4 and 6, after one of step 2."""
    for step in (2, 4, 6):
        save(tmp_path, checkpoint(step), "recipe-a")
    return tmp_path


def test_the_last_two_are_kept_and_the_newest_is_read_back(directory):
    assert names(directory) == ["step-00000004", "step-00000006"]
    found, warnings = load_latest(directory, "recipe-a")
    assert (found.step, found.log_bytes, warnings) == (6, 600, [])
    assert found.adapter["a"].tolist() == [6, 6, 6]
    assert (found.optimizer["step"].item(), found.optimizer["step"].dtype) == (6, mx.uint64)


def test_an_empty_or_missing_directory_has_none(tmp_path):
    assert load_latest(tmp_path, "x") == (None, [])
    assert load_latest(tmp_path / "missing", "x") == (None, [])


def test_another_recipes_checkpoint_is_refused_naming_both(directory):
    with pytest.raises(BadInput) as error:
        load_latest(directory, "recipe-b")
    assert "recipe-a" in str(error.value) and "recipe-b" in str(error.value)


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
    found, [warning] = load_latest(directory, "recipe-a")
    assert found.step == 4
    assert "step-00000006 is damaged" in warning


def test_a_damaged_one_is_replaced_and_never_pushes_out_a_good_one(directory):
    flip_a_bit(directory / "step-00000006" / "adapter.safetensors")
    save(directory, checkpoint(5), "recipe-a")
    assert names(directory) == ["step-00000004", "step-00000005"]
    save(directory, checkpoint(6), "recipe-a")
    flip_a_bit(directory / "step-00000006" / "adapter.safetensors")
    save(directory, checkpoint(6), "recipe-a")
    assert load_latest(directory, "recipe-a")[0].step == 6
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
        save(directory, checkpoint(8), "recipe-a")
    monkeypatch.undo()
    assert load_latest(directory, "recipe-a")[0].step == 6
