"""Whether an export kept what training gained: the artefact's own files against the student with its adapter on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlx_ssd import heartbeat
from mlx_ssd.errors import SsdError
from mlx_ssd.export import Reader, Target, Tolerance
from mlx_ssd.export.compare import compare
from mlx_ssd.export.reference import BASE, STUDENT, Reference
from mlx_ssd.export.source import Source
from mlx_ssd.export.texts import Text

# An export that is more than half as far from the student as the base is has lost the better part of the gain.
LOST = 0.5
FEW = 2  # texts for what is beside the student in an artefact; a wrong weight shows on any
WAYS_OUT = (
    "ship the adapter beside its base (--target adapter), of a quantized base take --target mlx --precision fitted, "
    "or take more bits (--precision)"
)


def verify(
    source: Source, target: Target, name: str, folder: Path, precision: str, reference: Reference
) -> dict[str, Any]:
    """What verify.json holds. `failures` is empty where all is well; each is a sentence with its number.

    conversion: against the student in the same precision, made without the exporter. compression: against the student
    as trained; absent where the precision loses nothing. kept: KL(student || artefact) beside KL(student || base) in
    nats, and what is left of the update in each layer. others: the conversion of what else the artefact holds.
    """
    facts: dict[str, Any] = {"v": 1, "target": name, "precision": precision, "name": source.name}
    facts |= {"base": source.recipe.model.path, "base_revision": source.base.revision, "student": source.revision}
    facts |= {"checked_by": target.CHECKED_BY, "texts": {"count": len(reference.texts), "from": reference.origin}}
    facts |= {"bytes": sizes(folder), "failures": []}
    if missing := [file for file in target.FILES if not any(folder.glob(file))]:
        return facts | {"failures": [f"{folder} has no {file}" for file in missing], "verdict": "fail"}
    try:
        found = list(_read(target.load(source, folder, precision), reference.texts))
        whole = compare(reference.texts, found, reference.logits(STUDENT))
        layers = target.survival(source, folder, precision)
    except SsdError as error:  # what cannot be read has not kept anything
        return facts | {"failures": [str(error)], "verdict": "fail"}
    rounded = target.rounded(source, precision)
    if rounded is None:
        facts["conversion"] = whole
    else:
        facts["conversion"] = compare(reference.texts, found, _read(rounded, reference.texts))
        facts["compression"] = whole
    base = compare(reference.texts, reference.logits(BASE), reference.logits(STUDENT))
    facts["kept"] = {"kl_exported": whole["kl_mean"], "kl_base": base["kl_mean"]}
    if layers:
        facts["kept"]["layers"] = list(layers)
    tolerance = target.TOLERANCES[precision]
    facts["tolerance"] = vars(tolerance)
    facts["failures"] = [*_of_conversion(facts["conversion"], tolerance), *_of_kept(facts["kept"])]
    if hasattr(target, "others"):
        try:
            facts["others"] = dict(_of_others(target.others(source, folder, precision), reference.texts[:FEW]))
        except SsdError as error:
            facts["failures"].append(str(error))
        for other, measured in facts.get("others", {}).items():
            facts["failures"] += (f"{other}: {failure}" for failure in _of_conversion(measured, tolerance))
    return facts | {"verdict": "fail" if facts["failures"] else "pass"}


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def _read(reader: Reader, texts: list[Text]) -> Iterator[np.ndarray]:
    for text in texts:
        yield reader.logits(text)
        heartbeat.alive()


def _of_others(
    others: Iterable[tuple[str, Reader, Reader]], texts: list[Text]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, reader, expected in others:
        yield name, compare(texts, _read(reader, texts), _read(expected, texts))


def _of_conversion(facts: dict[str, Any], tolerance: Tolerance) -> Iterator[str]:
    allowed = tolerance.allowed(facts)
    if facts["max_abs"] > allowed:
        yield f"its logits are up to {facts['max_abs']:.3g} off; {allowed:.3g} are allowed ({tolerance.why})"
    if facts["kl_mean"] > tolerance.kl_mean:
        yield f"KL to the same model is {facts['kl_mean']:.3g} nats; {tolerance.kl_mean:g} are allowed"
    if facts.get("clear_top1", 1.0) < tolerance.clear_top1:
        share = f"{100 * facts['clear_top1']:.2f} %"
        yield f"where the first token is clear it agrees in {share}; {100 * tolerance.clear_top1:g} % are asked for"


def _of_kept(kept: dict[str, Any]) -> Iterator[str]:
    if kept["kl_exported"] > LOST * kept["kl_base"]:
        yield (
            f"the update did not survive: KL(student || export) is {kept['kl_exported']:.3g} nats, "
            f"KL(student || base) {kept['kl_base']:.3g}{_left(kept.get('layers', []))}; {WAYS_OUT}"
        )


def _left(layers: list[dict[str, Any]]) -> str:
    if not layers:
        return ""
    shares, noises = ([row[key] for row in layers] for key in ("share", "noise"))
    return (
        f"; {100 * min(shares):.0f} to {100 * max(shares):.0f} % of it is left in the layers, beside noise that is "
        f"{min(noises):.2g} to {max(noises):.2g} times as large"
    )
