"""Arms can be told apart with colour-blindness, and in print without colour."""

import itertools

import numpy as np
import pytest

from mlx_ssd.report.figures.answers import FIRST, OTHERS
from mlx_ssd.report.figures.locks import PARTS
from mlx_ssd.report.figures.loss import HELD_OUT, TERMS
from mlx_ssd.report.figures.panels import apart
from mlx_ssd.report.figures.scores import STANDING
from mlx_ssd.report.figures.style import INK, KNOWN, arms_of, looks

# Machado, Oliveira and Fernandes 2009, severity 1, of linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
ARMS = ["base", "base-best", "two-stage", "student", "tokens", "plain"]


def lab(colour, sight):
    """CIE L*a*b* [3] of a colour as such eyes see it; 2 to 3 is just noticed side by side."""
    of = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(of <= 0.04045, of / 12.92, ((of + 0.055) / 1.055) ** 2.4)
    seen = np.clip(SIGHT[sight] @ linear, 0, 1)
    x, y, z = np.cbrt(XYZ @ seen / (XYZ @ np.ones(3)))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(a, b, sight):
    return np.linalg.norm(lab(a, sight) - lab(b, sight))


def test_the_rule_of_several_rounds_looks_like_that_of_one():
    of_one = looks(["base", "two-stage"])["two-stage"]
    assert looks(["base", "3-stage"])["3-stage"] == of_one
    both = looks(["two-stage", "3-stage"])
    assert both["two-stage"] == of_one != both["3-stage"]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("background", ["#ffffff", "#14171a"])
def test_arms_differ_in_colour_for_all_eyes(sight, background):
    ink = "#1a1a1a" if background == "#ffffff" else "#e6e6e6"
    colours = [ink if look.colour == INK else look.colour for look in looks(ARMS).values()]
    for a, b in itertools.combinations(colours, 2):
        assert distance(a, b, sight) > 12, (a, b)
    for colour in colours:
        assert distance(colour, background, sight) > 30, colour
    parts = list(PARTS.values())
    assert min(distance(a, b, sight) for a, b in itertools.combinations(parts, 2)) > 20


def test_the_measure_finds_what_it_is_for():
    assert distance("#ff0000", "#00aa00", "usual") > 100
    assert distance("#a08000", "#609000", "usual") > 2 * distance("#a08000", "#609000", "deuteranopia")


def test_arms_differ_without_colour():
    found = looks([*ARMS, *(f"arm-{i}" for i in range(12))])
    for part in ("dash", "marker", "hatch"):
        first = [getattr(found[arm], part) for arm in ARMS]
        assert len(set(first)) == len(first), part
    assert len({(look.dash, look.marker) for look in found.values()}) == len(found)
    for looks_ in (STANDING.values(),):
        assert len({look.marker for look, _ in looks_}) == len(looks_)
    lines = [look.dash if look.marker == "" else look.marker for _, look in (*TERMS.values(), HELD_OUT)]
    assert len(set(lines)) == len(lines)
    kinds = [FIRST["pass"], *OTHERS]
    assert len({hatch for _, hatch in kinds}) == len({colour for colour, _ in kinds}) == len(kinds)
    lightness = sorted(lab(colour, "usual")[0] for colour in PARTS.values())
    assert min(np.diff(lightness)) > 15


def test_an_arm_looks_alike_in_every_figure():
    report = {"scores": [{"arm": "base"}, {"arm": "x"}], "curve": [{"arm": "x"}, {"arm": "y"}], "analysis": {"z": {}}}
    assert arms_of(report) == ["base", "x", "y", "z"]
    assert looks(arms_of(report))["y"] == looks(["x", "y"])["y"] != looks(["y"])["y"]
    assert looks(["student"])["student"] == KNOWN["student"]


def test_no_two_marks_touch_and_none_moves_further_than_it_must():
    places = [100.0, 100.0, 104.0, 121.0, 200.0, 100.0]
    found = apart(places, 9)
    gaps = [b - a for a, b in zip(sorted(found), sorted(found)[1:], strict=False)]
    assert min(gaps) >= 9 - 1e-9 and found[4] == 200
    assert sum(found) == pytest.approx(sum(places))
