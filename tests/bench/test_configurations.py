"""What is measured, and what is refused before anything loads."""

import pytest

from mlx_ssd.bench.configurations import Load, configurations, in_bits, subjects_of
from mlx_ssd.errors import BadInput
from tests.export.conftest import make_base


def test_a_run_is_measured_without_with_and_with_its_fused_adapter(run):
    off, on, fused = subjects_of(str(run))
    assert [off.way, on.way, fused.way] == ["off", "on", "fused"]
    assert off.adapter is None and on.adapter == fused.adapter == str(run / "round-1/adapter")
    assert off.revision != on.revision == fused.revision
    assert [s.way for s in subjects_of(str(run), ("fused", "off"))] == ["off", "fused"]


def test_all_combinations():
    (subject,) = subjects_of("embedded")
    found = configurations([subject], (4, 32), (16, 32), (8,), (1, 2))
    assert len(found) == 8
    assert {c.subject.bits for c in found} == {4, 32}
    assert {c.load for c in found} == {Load(p, 8, b) for p in (16, 32) for b in (1, 2)}


def test_the_bits_that_a_model_is_stored_in_are_no_change(tmp_path):
    (subject,) = subjects_of(str(make_base(tmp_path / "four", bits=4)))
    assert in_bits(subject, 4) == subject
    with pytest.raises(BadInput, match="stored in 4 bits"):
        in_bits(subject, 8)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"bits": (7,)}, "--bits 7"),
        ({"prompts": (0,)}, "-p and -b"),
        ({"generated": (1,)}, "-n: give 2"),
        ({"prompts": (1000,), "generated": (25,)}, "made for 1,024 tokens"),
    ],
)
def test_what_tells_nothing_is_refused(change, says):
    with pytest.raises(BadInput, match=says):
        configurations(subjects_of("embedded"), **change)


def test_a_model_has_no_adapter():
    with pytest.raises(BadInput, match="no run directory"):
        subjects_of("embedded", ("on",))
