"""An arm analysed on texts: its parts, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_ssd import models
from mlx_ssd.analysis import forcing, store
from mlx_ssd.analysis.summary import summarise
from mlx_ssd.analysis.texts import sha
from mlx_ssd.arms import Arm
from mlx_ssd.controls import policy_of
from mlx_ssd.decoding.policy import DecodingPolicy
from mlx_ssd.models import ModelSource
from mlx_ssd.storage import hash_json, hash_path, read_json, remove


@dataclass(frozen=True)
class Subject:
    """A student, its base, and the two policies: of its sampling, and of evaluation."""

    arm: str
    base: ModelSource
    adapter: Path
    dtype: str
    sampling: DecodingPolicy
    evaluation: DecodingPolicy

    def load(self) -> forcing.Pair:
        """One model, its adapter switched off for the base; two where every weight was trained."""
        student, _ = models.load(self.base, self.dtype, self.adapter)
        if read_json(self.adapter / "adapter_config.json")["fine_tune_type"] == "lora":
            return forcing.pair_of(student)
        return forcing.pair_of(student, models.load(self.base, self.dtype)[0])

    def identity(self, texts: Sequence[store.Text]) -> str:
        """Of all that a part's numbers depend on."""
        policies = [asdict(self.sampling), asdict(self.evaluation)]
        models_ = [self.base.revision, hash_path(self.adapter), self.dtype]
        return hash_json([forcing.VERSION, forcing.PART_TOKENS, sha(list(texts)), models_, policies])


def subject_of(arm: Arm) -> Subject:
    recipe = arm.recipe
    return Subject(
        arm.name,
        models.locate(recipe.model),
        arm.files.adapter,
        recipe.model.dtype,
        policy_of(recipe.sample.decoding),
        policy_of(recipe.evaluate.decoding),
    )


def analyse(
    folder: Path, subject: Subject, texts: Sequence[store.Text], source: str, resamples: int
) -> dict[str, Any]:
    """Bring `folder` to where it holds these texts and the arm's analysis of them; what is there whole stays."""
    lines = [text.line() for text in texts]
    there = store.texts_file(folder)
    if not there.is_file() or there.read_text(encoding="utf-8") != "".join(lines):
        store.write_texts(folder, list(texts))
    remove(store.summary_file(folder, subject.arm))  # it is of these parts, or it is not there
    policies = (subject.sampling, subject.evaluation)
    measured = forcing.force(texts, folder, subject.arm, subject.load, *policies, subject.identity(texts))
    found = summarise(folder, subject.arm, texts, source, sha(list(texts)), *policies, resamples)
    store.write_summary(folder, subject.arm, found)
    return measured
