import numpy as np
import pytest

from mlx_ssd.analysis import store
from mlx_ssd.errors import BadInput
from tests.analysis.made import columns, text


def written(folder, identity="x"):
    file = store.part_file(folder, "student", 0)
    store.write_part(file, 0, 2, columns(0, [3, 2]), identity)
    return file


def test_a_part_comes_back_as_it_was(tmp_path):
    wanted = columns(0, [3, 2])
    written(tmp_path)
    (part,) = store.parts(tmp_path, "student")
    assert (part.first_text, part.texts, part.tokens) == (0, 2, 5)
    assert part.columns.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(part.columns[name], values)


@pytest.mark.parametrize("other", [(1, 2, "x"), (0, 3, "x"), (0, 2, "y")])
def test_only_the_very_part_is_whole(tmp_path, other):
    file = written(tmp_path)
    assert store.is_whole(file, 0, 2, "x")
    assert not store.is_whole(file, *other)


def test_a_damaged_part_is_not_whole_and_is_told(tmp_path):
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    assert not store.is_whole(file, 0, 2, "x")
    with pytest.raises(BadInput, match=r"damaged.*analyse again"):
        store.read_part(file)


@pytest.mark.parametrize("name", ["base.entropy", "text.tokens", "student.top_ids"])
def test_columns_are_checked(tmp_path, name):
    whole = columns(0, [3, 2])
    for wrong in ({k: v for k, v in whole.items() if k != name}, whole | {name: whole[name][:1]}, whole | {"new": 1}):
        with pytest.raises(ValueError, match="column"):
            store.write_part(tmp_path / "part.safetensors", 0, 2, wrong)


def test_texts_and_arms(tmp_path):
    with pytest.raises(BadInput, match="no analysis"):
        store.texts(tmp_path)
    store.write_texts(tmp_path, [text("a\u2028", 3), text("b", 2)])
    assert [found.problem_id for found in store.texts(tmp_path)] == ["a\u2028", "b"]
    for arm in ("a", "student"):
        store.write_summary(tmp_path, arm, {"arm": arm})
    assert store.arms(tmp_path) == ["student", "a"]
    assert store.summary(tmp_path, "a") == {"v": 1, "arm": "a"}
