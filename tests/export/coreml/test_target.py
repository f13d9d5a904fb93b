"""What the Core ML target writes, and that what is wrong with it is found in its own files."""

import shutil

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from mlx_ssd import export, machine  # noqa: E402
from mlx_ssd.errors import BadInput, WorkFailed  # noqa: E402
from mlx_ssd.export import coreml, source  # noqa: E402
from mlx_ssd.export.coreml import convert, reader, rounding, writing  # noqa: E402
from mlx_ssd.export.coreml.contract import weight_name  # noqa: E402
from mlx_ssd.export.coreml.interpreter import Interpreter  # noqa: E402
from mlx_ssd.export.coreml.tools import coremltools  # noqa: E402
from mlx_ssd.export.reference import reference_of  # noqa: E402
from mlx_ssd.export.verify import verify  # noqa: E402
from mlx_ssd.weights import AdaptedWeights  # noqa: E402
from tests.export.coreml.conftest import LAYERS, arm_of, ignore  # noqa: E402

MATRICES = 1 + 7 * LAYERS  # the embedding, which is the head too, and seven a layer


def verified(found, folder, precision, texts=1):
    reference = reference_of(found)
    reference.texts = reference.texts[:texts]
    return verify(found, coreml, "coreml", folder, precision, reference)


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("precision", coreml.PRECISIONS)
def test_the_packages_logits_are_the_students_in_that_precision(made, precision):
    found, folder = made(precision)
    facts = verified(found, folder, precision, texts=4)
    assert facts["conversion"]["max_abs"] < 0.05
    assert facts["conversion"]["kl_mean"] < 1e-4
    assert facts["conversion"]["clear_top1"] >= 0.99
    assert facts["failures"] == []
    shares = [row["share"] for row in facts["kept"].get("layers", [])]
    assert len(shares) == (0 if precision == "adapters" else LAYERS)
    assert all(abs(share - 1) < {"float16": 1e-3, "int8": 0.02, "int4": 0.1}[precision] for share in shares)
    worse = {"int8": 3, "int4": 30}.get(precision)
    assert worse is None or facts["compression"]["mean_abs"] > worse * facts["conversion"]["mean_abs"]


@pytest.mark.parametrize(("precision", "share"), [("int8", 0.53), ("int4", 0.33)])
def test_fewer_bits_are_fewer_bytes(made, precision, share):
    half, fewer = (convert.weight_bytes(made(p)[1] / "student.mlpackage") for p in ("float16", precision))
    assert fewer < share * half


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_every_matrix_is_quantized_as_computed_without_the_exporter(made, precision):
    """And nothing else is: neither norms nor the tables of the rotary embedding."""
    found, folder = made(precision)
    model = Interpreter(folder / "student.mlpackage")
    assert sum(op.op_type == "constexpr_blockwise_shift_scale" for op in model._function.operations) == MATRICES
    weights = AdaptedWeights(found.base.path, found.adapter)
    for name in weights.names:
        stored, expected = model.weight(weight_name(name)), rounding.rounded(weights.read(name), precision)
        assert np.array_equal(stored, expected.astype(np.float16)), name  # the product is stored in float16


def test_functions_share_the_bases_weights(made):
    found, folder = made("adapters")
    package = folder / "student.mlpackage"
    base = int(coremltools().utils.load_spec(str(package)).description.metadata.userDefined["base_weight_bytes"])
    weights = AdaptedWeights(found.base.path, found.adapter)
    factors = sum(2 * (a.size + b.size) for a, b, _ in map(weights.factors, weights.adapted))  # bytes of one arm's
    around = 128 * 2 * len(weights.adapted)  # each tensor's place in the file is aligned, and described
    assert factors < convert.weight_bytes(package) - base < 2 * (factors + around) < base / 10
    assert sorted(Interpreter(package).functions) == ["arm_other", "base", "student"]
    spec = coremltools().utils.load_spec(str(package))
    assert spec.description.defaultFunctionName == "student"


def test_metadata_and_tokenizer_are_there(made):
    found, folder = made("float16")
    metadata = coremltools().utils.load_spec(str(folder / "student.mlpackage")).description.metadata
    assert metadata.userDefined["context"] == "256" and metadata.userDefined["vocabulary"] == "704"
    assert metadata.userDefined["states"] == "keyCache, valueCache"
    assert metadata.userDefined["state_bytes"] == str(2 * 2 * LAYERS * 2 * 256 * 32)
    assert metadata.userDefined["base_revision"] == found.base.revision
    assert metadata.author == "" and "self-distilled" in metadata.shortDescription
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (folder / "tokenizer" / name).read_bytes() == (found.base.path / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["student.mlpackage", "tokenizer"]


@pytest.mark.parametrize("precision", ["float16", "int4"])
def test_a_corrupted_weight_is_found(made, precision, tmp_path):
    found, folder = made(precision)
    broken = copied(folder, tmp_path)
    file = broken / "student.mlpackage" / convert.WEIGHTS
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 256] = b"\x7a" * 256
    file.write_bytes(data)
    assert verified(found, broken, precision)["verdict"] == "fail"


def test_a_missing_tokenizer_file_is_found(made, tmp_path):
    found, folder = made("float16")
    broken = copied(folder, tmp_path)
    (broken / "tokenizer" / "tokenizer.json").unlink()
    assert verified(found, broken, "float16")["failures"] == [f"{broken} has no tokenizer/tokenizer.json"]


def test_a_package_cut_short_cannot_be_read(made, tmp_path):
    found, folder = made("float16")
    broken = copied(folder, tmp_path)
    file = broken / "student.mlpackage" / convert.SPEC
    file.write_bytes(file.read_bytes()[:5000])
    [failure] = verified(found, broken, "float16")["failures"]
    assert "student.mlpackage cannot be read" in failure


class Swapped(AdaptedWeights):
    """The up projections of the first two layers in each other's place."""

    def read(self, name):
        other = {"layers.0.mlp.up": "layers.1.mlp.up", "layers.1.mlp.up": "layers.0.mlp.up"}
        for one, another in other.items():
            if one in name:
                return super().read(name.replace(one, another))
        return super().read(name)


class Scaled(AdaptedWeights):
    """An update twice as large as it should be."""

    def factors(self, module):
        a, b, scale = super().factors(module)
        return a, b, 2 * scale


@pytest.mark.parametrize("fault", [Swapped, Scaled])
def test_a_wrong_conversion_is_found(made, fault, monkeypatch, tmp_path):
    found, _ = made("float16")
    monkeypatch.setattr(writing, "AdaptedWeights", fault)
    coreml.write(found, tmp_path, "float16", ignore)
    assert verified(found, tmp_path, "float16")["verdict"] == "fail"


def test_a_base_that_is_not_the_base_is_found(made, monkeypatch, tmp_path):
    """A package whose functions are in each other's place: the student's answers would pass for the base's."""
    found, folder = made("adapters")
    monkeypatch.setattr(reader, "BASE", "student")
    with pytest.raises(WorkFailed, match="function student are up to .* off the base's"):
        coreml.load(found, folder, "adapters")


def test_functions_of_other_arms_are_those_arms(made):
    found, folder = made("adapters")
    text, package = reference_of(found).texts[0], folder / "student.mlpackage"
    student, other = (
        reader.CoreMLReader(Interpreter(package, function), 256).logits(text) for function in ("student", "arm_other")
    )
    assert np.abs(student - other).max() > 0.1
    weights = AdaptedWeights(found.base.path, arm_of(found))
    expected = reader.reader_of(weights, lambda name: rounding.with_branches(weights, name)).logits(text)
    assert np.abs(other - expected).max() < 0.05


def test_a_text_that_is_longer_than_the_context_is_refused(made):
    _, folder = made("float16")
    package = reader.CoreMLReader(Interpreter(folder / "student.mlpackage"), 256)
    with pytest.raises(BadInput, match="257 tokens is longer than the package's context of 256"):
        package.logits(source_text(200, 58))
    assert package.logits(source_text(254, 3)).shape == (3, 704)  # the last slot of the cache too


def source_text(prompt, completion):
    from mlx_ssd.export.texts import Text

    return Text(tuple(range(3, 3 + prompt)), tuple(range(5, 5 + completion)), False)


def test_what_cannot_be_written_is_said_before_anything_is(made, tmp_path, monkeypatch):
    found, _ = made("float16")
    assert "this is llama" in coreml.refuse({**found.config, "model_type": "llama"}, {})
    monkeypatch.setattr(writing, "BLOCK", 100)
    with pytest.raises(BadInput, match="no multiples"):
        coreml.write(found, tmp_path, "int4", ignore)
    monkeypatch.setattr(machine.memory, "limit_bytes", lambda: 4_000_000_000)
    with pytest.raises(BadInput, match="memory"):
        coreml.write(found, tmp_path, "float16", ignore)
    assert list(tmp_path.iterdir()) == []


def test_without_its_packages_the_target_names_the_extra(monkeypatch):
    find = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "coremltools" else find(name))
    with pytest.raises(BadInput, match=r"needs coremltools: pip install -e '\.\[coreml\]'"):
        export.get("coreml")


def test_a_student_trained_in_full_is_no_function(run_dir, tmp_path):
    full = source.source_of(run_dir(method="full"))
    with pytest.raises(BadInput, match="trained in full and has no adapter"):
        coreml.write(full, tmp_path, "adapters", ignore)
