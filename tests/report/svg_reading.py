"""Values read back from a drawing: where a mark stands, by the ticks of its own axis."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from mlx_ssd.report.figures.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"
_NUMBER = re.compile(r"-?[\d.]+(?:e-?\d+)?")


class Drawing:
    """`values(gid, "x")` of a figure. PIXELS is how far a mark may stand from where its value belongs."""

    PIXELS = 0.04  # coordinates have two decimals, those of the ticks too

    def __init__(self, figure: Figure):
        self.name = figure.name
        self.root = ElementTree.fromstring(figure.svg)
        self.parents = {child: parent for parent in self.root.iter() for child in parent}

    def element(self, gid: str) -> Element:
        (found,) = [e for e in self.root.iter() if e.get("id") == f"{self.name}--{gid}"]
        return found

    def gids(self, pattern: str) -> list[str]:
        ids = [e.get("id", "").removeprefix(f"{self.name}--") for e in self.root.iter()]
        return [gid for gid in ids if re.fullmatch(pattern, gid)]

    def pixels(self, gid: str, way: str) -> list[float]:
        """Of marks their middles, of a line or a bar its corners; way is x or y."""
        element = self.element(gid)
        if uses := list(element.iter(f"{SVG}use")):
            return [float(use.get(way)) for use in uses]
        paths = [path for path in element.iter(f"{SVG}path")]
        numbers = [float(n) for path in paths for n in _NUMBER.findall(path.get("d"))]
        return numbers[(way == "y") :: 2]

    def scale(self, gid: str, way: str, of_label=float) -> tuple[float, float, float]:
        """(pixels at zero, pixels a unit, largest residual) of the axis that the artist belongs to."""
        axes = self.element(gid)
        while not re.search(r"--axes_\d+$", axes.get("id", "")):
            axes = self.parents[axes]
        labels, places = [], []
        for tick in axes.iter(f"{SVG}g"):
            text = "".join(tick.itertext()).strip()
            if re.search(rf"--{way}tick_\d+$", tick.get("id", "")) and text:
                labels.append(of_label(text))
                places.append(float(next(tick.iter(f"{SVG}use")).get(way)))
        assert len(labels) > 1, f"too few ticks along {way} to read {gid}"
        slope, zero = np.polyfit(labels, places, 1)
        return zero, slope, np.abs(np.polyval((slope, zero), labels) - places).max()

    def values(self, gid: str, way: str, of_label=float) -> np.ndarray:
        zero, slope, residual = self.scale(gid, way, of_label)
        assert residual < self.PIXELS
        return (np.array(self.pixels(gid, way)) - zero) / slope

    def near(self, gid: str, way: str, expected, of_label=float) -> None:
        """Assert that these values, in this order, are what is drawn."""
        zero, slope, _ = self.scale(gid, way, of_label)
        drawn, wanted = np.array(self.pixels(gid, way)), zero + slope * np.array(expected, float)
        assert drawn.shape == wanted.shape, (gid, drawn, wanted)
        assert np.abs(drawn - wanted).max() < self.PIXELS, (gid, (drawn - zero) / slope, expected)

    def texts(self) -> list[str]:
        return ["".join(text.itertext()) for text in self.root.iter(f"{SVG}text")]
