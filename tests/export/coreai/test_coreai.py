"""Exports of every precision, executed from their own files; and what is damaged in them is found."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("coreai_torch")

from mlx_ssd import export  # noqa: E402
from mlx_ssd.export.coreai import rounding  # noqa: E402
from mlx_ssd.export.verify import verify  # noqa: E402
from mlx_ssd.weights import AdaptedWeights  # noqa: E402
from tests.export.coreai.conftest import ARM  # noqa: E402

TARGET = export.get("coreai")


def verified(source, folder, precision, reference):
    return verify(source, TARGET, "coreai", folder, precision, reference)


def bytecode(folder: Path) -> Path:
    return next(folder.glob("*.aimodel")) / "main.mlirb"


def changed(folder: Path, change) -> None:
    """The weights' file with other bytes, and a hash that fits them: only its logits can tell."""
    file = bytecode(folder)
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)
    file.with_name("main.hash").write_bytes(hashlib.sha256(data).digest())


@pytest.mark.parametrize("precision", TARGET.PRECISIONS)
def test_a_file_computes_what_the_student_does(precision, source, reference, exported):
    facts = verified(source, exported(precision), precision, reference)
    assert facts["failures"] == [] and facts["verdict"] == "pass"
    bound = {"float32": 1e-4}.get(precision, 0.05)
    assert 0 < facts["conversion"]["max_abs"] < bound
    assert facts["conversion"]["positions"] == sum(len(text.completion_ids) for text in reference.texts)
    lost = facts["kept"]["kl_exported"] / facts["kept"]["kl_base"]
    assert facts["kept"]["kl_base"] > 0.1 and lost < (0.5 if precision == "int4" else 1e-3)
    assert np.ptp(next(iter(reference.logits("student")))) > 5


def test_what_four_bits_lose_is_told_from_what_the_conversion_does(source, reference, exported):
    facts = verified(source, exported("int4"), "int4", reference)
    assert facts["compression"]["max_abs"] > 10 * facts["conversion"]["max_abs"]
    shares = [row["share"] for row in facts["kept"]["layers"]]
    assert len(shares) == 2 and all(0.9 < share < 1.1 for share in shares)
    sizes = {precision: bytecode(exported(precision)).stat().st_size for precision in ("float32", "float16", "int4")}
    assert sizes["float32"] - sizes["float16"] > 2 * 100_000 - 2_000 > 0
    assert sizes["float16"] - sizes["int4"] > 2 * 100_000 * (1 - 4.5 / 16) - 20_000


def test_other_functions_share_the_bases_weights(source, reference, exported):
    facts = verified(source, exported("adapters"), "adapters", reference)
    assert set(facts["others"]) == {"base", ARM}
    assert all(measured["max_abs"] < 0.05 for measured in facts["others"].values())
    data = bytecode(exported("adapters")).read_bytes()
    weights = AdaptedWeights(source.base.path, source.adapter)
    matrices = [name for name in weights.names if len(weights.shape(name)) == 2]
    assert len(matrices) == 15
    for name in matrices:
        assert data.count(weights.read_base(name).astype(np.float16).tobytes()) == 1, name


def test_another_model_behind_a_function_is_found(source, reference, exported, monkeypatch):
    student = rounding.reader(source, "adapters")
    monkeypatch.setattr(rounding, "base_reader", lambda source: student)
    monkeypatch.setattr(rounding, "reader", lambda source, precision: student)
    failures = verified(source, exported("adapters"), "adapters", reference)["failures"]
    for name in ("base", ARM):
        assert any(failure.startswith(f"{name}: its logits are up to") for failure in failures)


def test_a_function_that_is_not_there_is_named(source, reference, exported, monkeypatch):
    from mlx_ssd.export.coreai import functions

    folder = exported("adapters")
    monkeypatch.setattr(functions, "others", lambda source: {"third": source.adapter})
    failures = verified(source, folder, "adapters", reference)["failures"]
    assert len(failures) == 1 and "has no function third, but main" in failures[0]


def one_weight(data, source):
    array = AdaptedWeights(source.base.path, source.adapter).read("model.layers.1.mlp.down_proj.weight")
    at = data.index(array.tobytes()) + 4 * 17
    data[at : at + 4] = np.float32(25).tobytes()


def swapped_layers(data, source):
    weights = AdaptedWeights(source.base.path, source.adapter)
    parts = [weights.read(f"model.layers.{layer}.mlp.up_proj.weight").tobytes() for layer in (0, 1)]
    places = [data.index(part) for part in parts]
    for place, part in zip(places, reversed(parts), strict=True):
        data[place : place + len(part)] = part


@pytest.mark.parametrize("defect", [one_weight, swapped_layers])
def test_wrong_weights_are_found(defect, source, reference, copied):
    folder = copied("float32")
    changed(folder, lambda data: defect(data, source))
    failures = verified(source, folder, "float32", reference)["failures"]
    assert any("logits are up to" in failure for failure in failures)


def test_wrong_scales_are_found(source, reference, copied):
    blocks = np.abs(rounding.half(AdaptedWeights(source.base.path, source.adapter).read(NAME))).reshape(64, -1, 32)
    scales = (blocks.max(-1) / 7).astype(np.float16)

    def double(data):
        at = data.index(scales.tobytes())
        data[at : at + scales.nbytes] = (2 * scales).tobytes()

    folder = copied("int4")
    changed(folder, double)
    assert any("logits are up to" in one for one in verified(source, folder, "int4", reference)["failures"])


NAME = "model.layers.0.self_attn.o_proj.weight"


def flipped(data):
    data[len(data) // 2] ^= 1


def cut(data):
    del data[len(data) // 2 :]


@pytest.mark.parametrize("damage", [flipped, cut])
def test_damaged_bytes_are_found_before_they_are_read(damage, source, reference, copied):
    """The runtime's own reader ends the process on some."""
    folder = copied("float32")
    data = bytearray(bytecode(folder).read_bytes())
    damage(data)
    bytecode(folder).write_bytes(data)
    (failure,) = verified(source, folder, "float32", reference)["failures"]
    assert "main.mlirb is damaged" in failure and failure.endswith("export again with --force")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{}"), "is not the base's"),
        (lambda folder: (folder / "metadata.json").write_text("{"), "is not valid JSON"),
        (lambda folder: edit(folder, lambda facts: facts.update(name="x")), "name is 'x', not"),
        (lambda folder: edit(folder, lambda facts: facts["language"].update(vocab_size=703)), "vocab_size is 703, not"),
        (lambda folder: edit(folder, lambda facts: facts.pop("kind")), "kind is None, not 'llm'"),
        (lambda folder: (next(folder.glob("*.aimodel")) / "main.hash").unlink(), "has no main.hash"),
    ],
)  # fmt: skip
def test_a_damaged_bundle_is_named(change, words, source, reference, copied):
    folder = copied("float32")
    change(folder)
    (failure,) = verified(source, folder, "float32", reference)["failures"]
    assert words in failure


def edit(folder: Path, change) -> None:
    facts = json.loads((folder / "metadata.json").read_text())
    change(facts)
    (folder / "metadata.json").write_text(json.dumps(facts))
