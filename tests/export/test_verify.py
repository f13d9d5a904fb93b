"""What verify makes of an artefact that reads back as this or that; what is left of an update; files in shards."""

import json
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_ssd import assets
from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.export import Tolerance, model_folder, texts
from mlx_ssd.export.compare import CLEAR_MARGIN
from mlx_ssd.export.reference import BASE, STUDENT, reference_of
from mlx_ssd.export.source import source_of
from mlx_ssd.export.survival import survival
from mlx_ssd.export.verify import verify
from mlx_ssd.storage import hash_path
from mlx_ssd.weights import AdaptedWeights

STRICT = Tolerance(1e-3, 1e-6, 1.0, "why")


class Reader:
    """Gives the logits it was made with, text after text."""

    def __init__(self, logits):
        self.waiting = iter(logits)

    def logits(self, text):
        return np.array(next(self.waiting))


@pytest.fixture
def case(run_dir):
    source = source_of(run_dir())
    return source, reference_of(source)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "artefact").mkdir()
    return tmp_path / "artefact"


def verified(case, logits, folder, rounded=None, layers=None, files=(), tolerance=STRICT):
    source, reference = case
    target = SimpleNamespace(
        CHECKED_BY="nobody",
        FILES=files,
        TOLERANCES={"float32": tolerance},
        load=lambda *_: Reader(logits),
        rounded=lambda *_: None if rounded is None else Reader(rounded),
        survival=lambda *_: layers,
    )
    return verify(source, target, "t", folder, "float32", reference)


def students(case):
    return [np.array(logits) for logits in case[1].logits(STUDENT)]


class TestVerify:
    def test_the_student_itself_passes(self, case, folder):
        (folder / "file").write_bytes(b"12345")
        facts = verified(case, students(case), folder, files=("fi*",))
        assert facts["verdict"] == "pass" and facts["failures"] == [] and facts["bytes"] == {"file": 5}
        assert facts["conversion"]["max_abs"] == 0 and "compression" not in facts
        assert facts["kept"]["kl_exported"] == 0 < facts["kept"]["kl_base"]
        assert facts["texts"] == {"count": 4, "from": "the student's answers to test problems"}
        assert facts["tolerance"]["max_abs"] == 1e-3

    def test_the_base_has_lost_the_update(self, case, folder):
        base = [np.array(logits) for logits in case[1].logits(BASE)]
        layers = [{"share": 0.031, "noise": 0.5}, {"share": 0.2, "noise": 0.75}]
        facts = verified(case, base, folder, rounded=base, layers=layers)
        [said] = facts["failures"]
        assert facts["verdict"] == "fail" and facts["kept"]["kl_exported"] == facts["kept"]["kl_base"]
        assert "3 to 20 % of it is left in the layers, beside noise that is 0.5 to 0.75 times as large" in said
        assert facts["conversion"]["max_abs"] == 0 < facts["compression"]["max_abs"]

    def test_each_bound_fails_by_itself(self, case, folder):
        student = students(case)
        off = [logits + 0.002 for logits in student]
        [said] = verified(case, off, folder)["failures"]
        assert said.startswith("its logits are up to 0.00") and "0.001 are allowed (why)" in said
        swapped = [logits.copy() for logits in student]
        two = np.sort(swapped[0], -1)[:, -2:]
        margins = two[:, 1] - two[:, 0]
        row = swapped[0][np.where(margins > CLEAR_MARGIN, margins, np.inf).argmin()]
        first, second = row.argsort()[-2:]
        row[[first, second]] = row[[second, first]]
        loose = Tolerance(100, 100, 1.0, "why")
        [said] = verified(case, swapped, folder, tolerance=loose)["failures"]
        assert "where the first token is clear it agrees in 9" in said
        [said] = verified(case, off[:1] + student[1:], folder, tolerance=Tolerance(1, -1, 0, "why"))["failures"]
        assert said.startswith("KL to the same model is")

    def test_what_is_missing_or_cannot_be_read_is_a_failure(self, case, folder):
        facts = verified(case, students(case), folder, files=("a*.bin", "b"))
        assert facts["failures"] == [f"{folder} has no a*.bin", f"{folder} has no b"]
        assert facts["verdict"] == "fail" and "conversion" not in facts
        narrow = [logits[:, :-1] for logits in students(case)]
        assert "703] tokens and words, and the student of" in verified(case, narrow, folder)["failures"][0]


class TestReference:
    def test_it_is_computed_once_and_again_for_another_student(self, case, monkeypatch):
        source, reference = case
        before = hash_path(reference._folder)
        assert reference_of(source)._folder == reference._folder and hash_path(reference._folder) == before
        arrays = dict(mx.load(str(source.adapter / "adapters.safetensors")))
        mx.eval(arrays)
        mx.save_safetensors(str(source.adapter / "adapters.safetensors"), {k: 2 * v for k, v in arrays.items()})
        again = reference_of(source_of(source.files.directory))
        assert again._folder != reference._folder
        for one, other in list(zip(again.logits(BASE), reference.logits(BASE), strict=True))[:2]:
            np.testing.assert_array_equal(one, other)

    def test_greedy_texts_are_the_students_own(self, case):
        _, reference = case
        assert [text.greedy for text in reference.texts] == [False] * 2 + [True] * 2
        for text, logits in zip(reference.texts, reference.logits(STUDENT), strict=True):
            assert logits.shape == (len(text.completion_ids), 704) and logits.dtype == np.float32
            if text.greedy:
                assert tuple(logits.argmax(-1)) == text.completion_ids

    def test_without_an_evaluation_the_samples_serve(self, case):
        source, _ = case
        samples = source.files.samples
        [answers] = source.files.evaluation.glob("*.jsonl")
        answers.rename(samples)
        found, origin = texts.drawn(source)
        assert len(found) == 2 and origin == "the samples that the student was trained on"
        samples.unlink()
        with pytest.raises(BadInput, match="holds no completions to measure an export on; run it as far as `sample`"):
            texts.drawn(source)

    def test_validation_answers_do_not_count(self, case):
        source, _ = case
        [answers] = source.files.evaluation.glob("*.jsonl")
        answers.rename(answers.with_name(answers.name.replace("test", "validation")))
        with pytest.raises(BadInput, match="no completions"):
            texts.drawn(source)

    def test_texts_are_one_a_problem_spread_and_short(self, case):
        source, _ = case
        [path] = source.files.evaluation.glob("*.jsonl")
        line = json.loads(path.read_text().splitlines()[0])
        of_each = [(i, j) for i in reversed(range(20)) for j in (1, 0)]
        lines = [{"problem_id": f"p{i:02}", "sample_index": j, "completion_ids": [i + j] * 99} for i, j in of_each]
        path.write_text("".join(json.dumps(line | one) + "\n" for one in lines))
        found, _ = texts.drawn(source)
        assert [text.completion_ids for text in found] == [(i,) * texts.MAX_TOKENS for i in range(0, 16, 2)]


class TestSurvival:
    @pytest.fixture
    def student(self, run_dir):
        source = source_of(run_dir(num_layers=2, keys=["self_attn.q_proj", "mlp.down_proj", "model.embed_tokens"]))
        return AdaptedWeights(source.base.path, source.adapter)

    @pytest.mark.parametrize("share", [1.0, 0.0, 0.25])
    def test_of_a_part_of_the_update(self, student, share):
        def read(name):
            return student.read_base(name) + share * student.delta(name.removesuffix(".weight"))

        rows = survival(student, read)
        assert [row.get("layer") for row in rows] == [2, 3, None]
        assert set(rows[0]["modules"]) == {"self_attn.q_proj", "mlp.down_proj"}
        assert set(rows[2]["modules"]) == {"model.embed_tokens"}
        for row in rows:
            assert row["share"] == pytest.approx(share, abs=1e-5)
            assert row["noise"] == pytest.approx(1 - share, abs=1e-5)
            assert all(value == pytest.approx(share, abs=1e-5) for value in row["modules"].values())

    def test_noise_that_is_at_right_angles_takes_nothing_away(self, student):
        def read(name):
            delta = student.delta(name.removesuffix(".weight"))
            draw = np.random.default_rng(0).normal(size=delta.shape).astype(np.float32)
            across = draw - delta * (draw * delta).sum() / np.square(delta).sum()
            return student.read(name) + 3 * across * np.linalg.norm(delta) / np.linalg.norm(across)

        for row in survival(student, read):
            assert row["share"] == pytest.approx(1, abs=1e-3) and row["noise"] == pytest.approx(3, abs=1e-3)


class TestModelFolder:
    def test_shards_and_index(self, tmp_path, monkeypatch):
        monkeypatch.setattr(model_folder, "SHARD_BYTES", 100)
        arrays = {f"t{i}": mx.full((10,), i, mx.float32) for i in range(5)} | {"large": mx.ones((60,))}
        shards = model_folder.Shards(tmp_path, "pt")
        for name, array in arrays.items():
            shards.add(name, array)
        shards.close()
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"] == {"total_size": 5 * 40 + 240}
        files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
        assert files == [f"model-{i:05}-of-00004.safetensors" for i in (1, 2, 3, 4)]
        found = {}
        for file in files:
            part, metadata = mx.load(str(tmp_path / file), return_metadata=True)
            assert metadata["format"] == "pt" and all(index["weight_map"][name] == file for name in part)
            assert sum(array.nbytes for array in part.values()) <= 100 or len(part) == 1
            found |= part
        assert set(found) == set(arrays) and all(mx.array_equal(found[k], v).item() for k, v in arrays.items())

    def test_companions(self, tmp_path):
        base = assets.model_path()
        model_folder.copy_companions(base, tmp_path)
        names = ["generation_config.json", "tokenizer.json", "tokenizer_config.json"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        model_folder.check_companions(base, tmp_path)
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(WorkFailed, match="tokenizer.json is not the base's"):
            model_folder.check_companions(base, tmp_path)

    def test_types_under_the_names_that_the_base_has(self):
        assert model_folder.of_dtype({"torch_dtype": "float16"}, "x") == {"torch_dtype": "x", "dtype": "x"}
        assert model_folder.of_dtype({"a": 1}, "x") == {"a": 1, "dtype": "x"}
