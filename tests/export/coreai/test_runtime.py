"""What the runtime's plain form adds: caches, temporary files, and silence about nothing but known noise."""

import gc
import os
import tempfile
import warnings

import numpy as np
import pytest

pytest.importorskip("coreai")

from mlx_ssd.errors import BadInput  # noqa: E402
from mlx_ssd.export.coreai import bundle, runtime  # noqa: E402
from mlx_ssd.export.coreai.noise import without_noise  # noqa: E402
from mlx_ssd.export.texts import Text  # noqa: E402

IDS = tuple(int(token) for token in np.random.default_rng(0).integers(3, 700, 12))


@pytest.fixture
def asset(source, exported):
    asset = runtime.Asset(bundle.asset_path(source, exported("float32")))
    yield asset
    asset.close()


def test_how_many_tokens_come_in_a_call_does_not_matter(asset):
    reader = runtime.CoreAiReader(asset, "main", 256)
    whole = reader.logits(Text(IDS[:10], IDS[10:], False))
    single = reader.logits(Text(IDS[:1], IDS[1:], False))
    assert np.abs(single[-2:] - whole).max() < 1e-4 < np.abs(whole).max()


def test_caches_begin_empty_and_their_room_does_not_matter(asset, monkeypatch):
    reader = runtime.CoreAiReader(asset, "main", 256)
    text = Text(IDS[:8], IDS[8:], False)
    first = reader.logits(text)
    reader.logits(Text(IDS[::-1], IDS[:3], False))
    assert np.array_equal(reader.logits(text), first)
    monkeypatch.setattr(runtime, "CACHE_STEP", 1)
    assert np.abs(reader.logits(text) - first).max() < 1e-4


def test_a_text_may_fill_the_context_and_not_pass_it(asset, source):
    context = bundle.context_length(source.config)
    reader = runtime.CoreAiReader(asset, "main", context)
    ids = tuple(int(token) for token in np.random.default_rng(1).integers(3, 700, context + 1))
    assert np.isfinite(reader.logits(Text(ids[:-1], ids[-1:], False))).all()
    with pytest.raises(BadInput, match=f"a text of {context + 1} tokens does not fit"):
        reader.logits(Text(ids, (3,), False))


def test_the_compiled_copy_is_removed(source, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = bundle.asset_path(source, exported("float32"))
    asset = runtime.Asset(path)
    assert len(list(tmp_path.glob("*.aimodelx"))) == 1
    asset.close()
    assert list(tmp_path.iterdir()) == []
    runtime.Asset(path)  # of which nobody keeps hold
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match="has no main.mlirb"):
        runtime.Asset(path / "nowhere.aimodel")
    assert list(tmp_path.iterdir()) == []


def test_known_noise_is_left_out_and_nothing_else(capfd):
    with warnings.catch_warnings(record=True) as caught, without_noise():
        warnings.simplefilter("always", append=True)
        said = "coreai-torch has only been validated with torch<=2.13.0; found torch"
        for message in (f"{said} 2.13.0+cpu", f"{said} 2.14.0", "something new"):
            warnings.warn(message, stacklevel=1)
        os.write(2, b"\nODIE [default]: Loading function 'main'\nODIE [default]: out of memory\n")
        print("converting 1 program(s)")
    assert [str(one.message) for one in caught] == [f"{said} 2.14.0", "something new"]
    out, err = capfd.readouterr()
    assert out == "" and "Loading function" not in err
    assert "ODIE [default]: out of memory\n" in err


def test_the_conversion_and_the_runtime_are_silent(asset, capfd):
    runtime.CoreAiReader(asset, "main", 256)
    assert capfd.readouterr() == ("", "")
