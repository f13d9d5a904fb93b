"""The SVG text itself: well formed, inert, unique ids, the same bytes each time, fit for pages and for files."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from mlx_ssd.report.figures import Figure, figures, words, write_figures
from mlx_ssd.report.figures.svg import standalone
from tests.report import figure_data
from tests.test_layers import loaded_by

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = {"svg", "title", "desc", "defs", "g", "path", "use", "text", "tspan", "clipPath", "rect", "pattern"}
ATTRIBUTES = {
    "id", "href", "d", "x", "y", "width", "height", "viewBox", "transform", "clip-path", "role", "aria-labelledby",
    "aria-describedby", "patternUnits", "fill", "fill-opacity", "opacity", "stroke", "stroke-width", "stroke-opacity",
    "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "font-family", "font-size",
    "font-weight", "text-anchor",
}  # fmt: skip
OWN_COLOURS = {"none", "currentColor", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442"}

HOSTILE = [
    "<script>alert(1)</script>", "</text></svg><script>x</script>", "<image href=x onerror=alert(1)>", "a & b",
    "&lt;b&gt;", "&#x3c;script&#x3e;", "&entity;", "]]>", "<![CDATA[x]]>", "<!-- x -->", "--", "\"quoted'", "$x^2$",
    "$\\frac{1}{0}$", "\\$5", "_hidden", "__", "%s %d", "{0} {name}", "${jndi:ldap://x}", "currentColor", "#010203",
    "url(#x)", "javascript:alert(1)", "\u202eright to left\u202c", "\u2067isolate", "\x00nul", "\x1b[31mred", "a\nb\tc",
    "\ud800lone", "\ufffe", "中文名字", "اسم عربي", "🧪🧪", "e\u0301" * 40, "style=fill:red", "x" * 1_000_000, "", " ",
    "nan", "../../etc/passwd",
]  # fmt: skip


def everything():
    report, log = figure_data.quickstart()
    report["analysis"] = {"student": figure_data.analysis(), "tokens": figure_data.analysis("tokens", 0.2)}
    report |= {"frontier": figure_data.frontier(), "rounds": figure_data.rounds(), "toy": figure_data.toy()}
    return report, log


@pytest.fixture(scope="module")
def drawn():
    return figures(*everything())


def inert(figure: Figure, svg: str) -> ElementTree.Element:
    """The parsed drawing, of which nothing can load, run or style anything."""
    root = ElementTree.fromstring(svg)
    ids = set()
    for element in root.iter():
        assert element.tag.startswith(SVG) and element.tag.removeprefix(SVG) in ELEMENTS, element.tag
        assert set(element.attrib) <= ATTRIBUTES, element.attrib
        if "id" in element.attrib:
            assert element.get("id").startswith(f"{figure.name}--") and element.get("id") not in ids
            ids.add(element.get("id"))
    for element in root.iter():
        if "href" in element.attrib:
            assert element.get("href")[0] == "#" and element.get("href")[1:] in ids
        for key, value in element.attrib.items():
            if "(" in value and key not in ("transform", "d"):
                assert re.fullmatch(r"url\(#([^)]+)\)", value)[1] in ids
    return root


def test_a_drawing_is_an_image_with_words(drawn):
    for figure in drawn:
        root = inert(figure, figure.svg)
        assert figure.svg.startswith("<svg ") and figure.svg.endswith("</svg>")
        assert root.get("role") == "img"
        title, desc = root[0], root[1]
        assert (root.get("aria-labelledby"), root.get("aria-describedby")) == (title.get("id"), desc.get("id"))
        assert (title.text, desc.text) == (figure.title, figure.alt)
        assert re.fullmatch(r"0 0 \d+ [\d.]+", root.get("viewBox"))


def test_colours_are_the_palette_s_or_the_page_s(drawn):
    for figure in drawn:
        for element in inert(figure, figure.svg).iter():
            for key in ("fill", "stroke"):
                value = element.get(key, "none").lower().replace("currentcolor", "currentColor")
                assert value in OWN_COLOURS or value.startswith("url(#"), (figure.name, value)
            if element.tag == f"{SVG}text":
                assert element.get("fill") == "currentColor"
        assert "currentColor" in figure.svg and "#010203" not in figure.svg


def test_no_two_figures_share_an_id(drawn):
    ids = [element.get("id") for f in drawn for element in ElementTree.fromstring(f.svg).iter() if element.get("id")]
    assert len(ids) == len(set(ids)) > 100
    assert len({figure.name for figure in drawn}) == len(drawn)


def test_text_stays_on_the_sheet_and_in_no_clip(drawn):
    for figure in drawn:
        root = ElementTree.fromstring(figure.svg)
        _, _, width, height = map(float, root.get("viewBox").split())
        for text in root.iter(f"{SVG}text"):
            assert "clip-path" not in text.attrib
            if "transform" in text.attrib:
                continue
            # Verdana's letters, the widest that a browser takes for sans-serif, are 0.6 of their size on average.
            long = 0.6 * float(text.get("font-size")) * len("".join(text.itertext()))
            left = float(text.get("x")) - {"middle": long / 2, "end": long}.get(text.get("text-anchor"), 0)
            assert left > -6 and left + long < width + 8, (figure.name, text.text)
            assert 8 < float(text.get("y")) < height


def test_the_same_data_gives_the_same_bytes_whatever_the_user_has_set(drawn):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "xtick.major.size": 20, "axes.xmargin": 0.3, "svg.hashsalt": "other"}):
        again = figures(*everything())
        assert matplotlib.rcParams["font.size"] == 30  # the user's settings are as they were
    assert again == drawn
    assert dict(matplotlib.rcParams) == before
    code = "from tests.report.test_figures_svg import everything, digest; print(digest(everything()))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == digest(everything())


def digest(data):
    chosen = {name: data[0][name] for name in ("rounds", "plan", "analysis")}  # not all of them once more
    return hashlib.sha256("".join(figure.svg for figure in figures(chosen, {})).encode()).hexdigest()


def renamed(value, names):
    """The data with every name replaced, the same by the same; keys of shares and panels too."""
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    if isinstance(value, dict):
        free = ("verdicts", "finish_reasons")
        return {
            key: {names(k): v for k, v in item.items()} if key in free else renamed(item, names)
            for key, item in value.items()
        }
    return names(value) if isinstance(value, str) else value


def hostile_data(start):
    """Every name is hostile, each another, from HOSTILE[start] on."""
    supply = itertools.cycle(HOSTILE[start:] + HOSTILE[:start])
    given = {}

    def names(name):
        return given.setdefault(name, next(supply) if name not in given else "")

    report, log = everything()
    hostile = renamed(report, names)
    hostile["analysis"] = {names(arm): of for arm, of in hostile["analysis"].items()}
    hostile["evaluate_decoding"] = report["evaluate_decoding"]
    return hostile, {names(arm): entries for arm, entries in log.items()}


@pytest.mark.parametrize("start", [0, 20])
def test_hostile_names_are_inert(start, drawn):
    report, log = hostile_data(start)
    found = figures(report, log)
    assert len(found) == len(drawn)
    for figure in found:
        root = inert(figure, figure.svg)
        inert(figure, standalone(figure))
        assert len(figure.svg.encode()) < 100_000
        assert re.fullmatch(r"[a-z0-9-]+", figure.name)
        for text in root.iter(f"{SVG}text"):
            assert len("".join(text.itertext())) < 110
        for held in (figure.title, figure.caption, figure.alt):
            assert not re.search("[\x00-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", held)


def test_a_name_is_drawn_as_it_is():
    report, _ = figure_data.quickstart()
    for score, name in zip(report["scores"], ("$x^2$", "_hidden", "a & <b>", "\\frac{1}", "n" * 60), strict=True):
        score["arm"] = name
    report["curve"], report["comparisons"] = [], []
    figure = next(f for f in figures(report, {}) if f.name == "scores")
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]
    for name in ("$x^2$", "_hidden", "a & <b>", "\\frac{1}"):
        assert any(text.startswith(f"{name}: ") for text in texts)
    assert any(text.startswith("nnnn") and "…" in text for text in texts)
    assert "n" * 60 in figure.alt  # whole where it is read


def test_a_legend_names_what_begins_with_an_underscore():
    figure = next(f for f in figures({}, {}) + figures({"rounds": [
        {"round": r, "arm": arm, "pass_at": {"1": {"mean": 0.5, "low": 0.4, "high": 0.6}}}
        for r in (0, 1) for arm in ("_a", "$b$")
    ]}, {}))  # fmt: skip
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]
    assert "_a" in texts and "$b$" in texts


def test_names_that_begin_alike_stay_apart():
    names = ["model-" + "x" * 50 + end for end in ("-a", "-b")] + ["y" * 20 + middle + "y" * 20 for middle in "ab"]
    short = words.short(names, 20)
    assert len(set(short.values())) == 4 and all(len(label) <= 20 for label in short.values())
    assert short[names[0]].endswith("-a")


def test_files_open_anywhere(drawn, tmp_path):
    (tmp_path / "mine.svg").write_text("<svg/>")
    written = write_figures(drawn, tmp_path)
    assert [path.name for path in written] == [f"{figure.name}.svg" for figure in drawn]
    for path, figure in zip(written, drawn, strict=True):
        root = inert(figure, path.read_text())
        assert not any("currentColor" in value for element in root.iter() for value in element.attrib.values())
        paper = root[2]
        assert (paper.tag, paper.get("fill"), paper.get("width")) == (f"{SVG}rect", "#ffffff", "100%")
        assert all(text.get("fill") == "#1a1a1a" for text in root.iter(f"{SVG}text"))
    write_figures(drawn[:2], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.svg", *(f"{figure.name}.svg" for figure in drawn[:2])}


def test_matplotlib_is_imported_only_to_draw():
    assert "matplotlib" not in loaded_by("import mlx_ssd.report.figures, mlx_ssd.bench.plots")
