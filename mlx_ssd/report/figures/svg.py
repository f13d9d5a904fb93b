"""matplotlib's SVG, made fit for a page: small, the same bytes each time, no style sheet, no colours of its own for
text, no id that another figure has too."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.style import INK
from mlx_ssd.report.figures.words import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Sheet

FONTS = "system-ui, sans-serif"
PAPER, PRINTED = "#ffffff", "#1a1a1a"  # of a file that stands alone
KEPT = re.compile(r"(axes|xtick|ytick)_\d+$|[a-z0-9-]+\.[a-z0-9._-]+$")  # ids that a reader of the file may ask for
_DECIMALS = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_URL = re.compile(r"url\(#([^)]+)\)")
_FONT_SIZE = re.compile(r"([\d.]+)px")


def finished(sheet: Sheet, name: str, title: str, caption: str, alt: str) -> Figure:
    """The drawn sheet with its words. Artists are found again by their gid, which has a dot in it: "NAME--GID"."""
    title, alt = clean(title), clean(alt, 100_000)
    return Figure(name, title, clean(caption, 10_000), alt, _page_svg(_matplotlib(sheet), name, title, alt))


def title_id(name: str) -> str:
    return f"{name}--title"


def _matplotlib(sheet: Sheet) -> Element:
    buffer = io.StringIO()
    sheet.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return ElementTree.fromstring(buffer.getvalue())


def _page_svg(root: Element, name: str, title: str, alt: str) -> str:
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _plain_attributes(element)
    for parent in root.iter():
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    _unique_ids(root, name)
    box = [float(value) for value in root.attrib["viewBox"].split()]
    size = {"width": f"{box[2]:g}", "height": f"{box[3]:g}", "viewBox": " ".join(f"{value:g}" for value in box)}
    desc_id = f"{name}--desc"
    root.attrib.clear()
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img"}
    root.attrib |= {"aria-labelledby": title_id(name), "aria-describedby": desc_id, "font-family": FONTS}
    root.attrib |= {"fill": "currentColor", "stroke-linejoin": "round"}
    words = [Element("title", id=title_id(name)), Element("desc", id=desc_id)]
    words[0].text, words[1].text = title, alt
    root[:0] = words
    for element in root.iter():  # the line breaks and blanks between elements
        if element.tag not in ("title", "desc", "text", "tspan"):
            element.text = None
        element.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _plain_attributes(element: Element) -> None:
    """style="…" as attributes, which no content security policy of a page forbids; short numbers; the text's colour."""
    found = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key != "style":
            found[key] = value
            continue
        for part in filter(None, map(str.strip, value.split(";"))):
            name, _, of = (piece.strip() for piece in part.partition(":"))
            if name == "font":
                found["font-size"] = _FONT_SIZE.search(of)[1]
                if "bold" in of or re.match(r"[67]00\b", of):
                    found["font-weight"] = "bold"
            elif name != "font-family":
                found[name] = of.removesuffix("px") if name == "font-size" else of
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    element.attrib.clear()
    for key, value in found.items():
        if value.lower() == INK:
            value = "currentColor"
        element.attrib[key] = value if key in ("id", "href") else _DECIMALS.sub(_two_decimals, " ".join(value.split()))


def _two_decimals(match: re.Match[str]) -> str:
    found = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if found in ("-0", "") else found


def _unique_ids(root: Element, name: str) -> None:
    """Ids that nobody asks for go; the others open with the figure's name."""
    asked = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            asked |= {value[1:]} if key == "href" else set(_URL.findall(value))
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in asked or KEPT.match(value):
                    element.attrib[key] = f"{name}--{value}"
                else:
                    del element.attrib[key]
            elif key == "href":
                element.attrib[key] = f"#{name}--{value[1:]}"
            elif "url(#" in value:
                element.attrib[key] = _URL.sub(rf"url(#{name}--\1)", value)


def standalone(figure: Figure) -> str:
    """The figure as a file of its own, which any viewer opens and any printer prints: dark on white."""
    root = ElementTree.fromstring(figure.svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key, value in element.attrib.items():
            if value == "currentColor":
                element.attrib[key] = PRINTED
    root.attrib["xmlns"] = "http://www.w3.org/2000/svg"
    root.insert(2, Element("rect", {"width": "100%", "height": "100%", "fill": PAPER}))
    return ElementTree.tostring(root, encoding="unicode") + "\n"
