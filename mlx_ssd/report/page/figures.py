"""The report's figures as the page takes them: SVG without scripts, styles or addresses.

The page's policy allows no inline style, and matplotlib writes one at nearly every element: each becomes the attributes
of the same names, which SVG has for all that is used there.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass

from mlx_ssd.report.figures.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
DRAWN = frozenset(
    "svg g defs clipPath mask pattern path rect circle ellipse line polyline polygon text tspan title desc use symbol "
    "marker linearGradient radialGradient stop".split()
)
_FONT = re.compile(r"(?P<before>.*?)(?P<size>[\d.]+(?:px|pt|em)?)(?:/\S+)?\s+(?P<family>.+)")
_OWN_REFERENCE = re.compile(r"url\(\s*['\"]?#[^)]*\)")


@dataclass(frozen=True)
class Drawing:
    """A figure of the page. `svg` is inert and has no size of its own."""

    name: str
    title: str
    caption: str
    svg: str


def drawings(figures: Iterable[Figure]) -> list[Drawing]:
    return [Drawing(f.name, f.title, f.caption, inert(f.svg, f.alt)) for f in figures]


def inert(svg: str, alt: str) -> str:
    """Only what is drawn stays. Raises ValueError for what is no SVG."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"a figure is not SVG: {error}") from None
    if root.tag != f"{{{SVG}}}svg":
        raise ValueError("a figure is not SVG")
    _clean(root)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib["role"] = "img"
    if "aria-labelledby" not in root.attrib:
        root.attrib["aria-label"] = alt
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element) -> None:
    for child in list(element):
        if isinstance(child.tag, str) and child.tag.startswith(f"{{{SVG}}}") and child.tag.split("}")[1] in DRAWN:
            _clean(child)
        else:
            element.remove(child)
    attributes = dict(element.attrib)
    element.attrib.clear()
    for name, value in _as_attributes(attributes.pop("style", "")):
        attributes[name] = value
    for name, value in attributes.items():
        local = name.split("}")[-1]
        if local.startswith("on") or (local == "href" and not value.startswith("#")):
            continue
        if "url(" in value and not _OWN_REFERENCE.fullmatch(value.strip()):
            continue
        element.attrib[name] = value


def _as_attributes(style: str) -> Iterable[tuple[str, str]]:
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font" and (match := _FONT.fullmatch(value)):
            yield "font-size", match["size"]
            yield "font-family", match["family"]
            for word in match["before"].split():
                yield ("font-style" if word in ("italic", "oblique") else "font-weight"), word
        elif re.fullmatch(r"[a-z-]+", name) and value:
            yield name, value
