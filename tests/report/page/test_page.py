"""The page as text: its parts, its policy, and that hostile strings make nothing of it but text."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from mlx_ssd.report import markdown
from mlx_ssd.report.page import page, sections
from mlx_ssd.report.page.figures import Drawing, inert
from mlx_ssd.report.page.text import visible
from tests.report import hostile, synthetic

VOID = {"meta", "br", "link", "img", "input", "hr", "base"}


class Read(HTMLParser):
    """Elements with their attributes, text outside scripts and styles, and what was left open."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.raw, self.open = [], [], {}, []
        self.comments = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.raw.setdefault(len(self.elements), []).append(data)
        else:
            self.texts.append(data)

    def handle_comment(self, data):
        self.comments.append(data)

    def tags(self):
        return [tag for tag, _ in self.elements]

    @property
    def text(self):
        return "".join(self.texts)


@pytest.fixture(scope="module")
def plain():
    material = synthetic.page_material(20)
    return material, page.render(material)


@pytest.fixture(scope="module")
def wild():
    material = hostile.material()
    return material, page.render(material)


def test_the_four_answers_come_first_and_all_sections_after(plain):
    _, html = plain
    ids = [attributes["id"] for _, attributes in Read(html).elements if "id" in attributes]
    assert ids.index("verdict") < ids.index("sure") < ids.index("explained") < ids.index("cost") < ids.index("scores")
    assert [i for i in ids if i in dict(page.CONTENTS)] == [name for name, _ in page.CONTENTS]
    assert len(ids) == len(set(ids))


def test_tables_and_sentences_are_those_of_the_other_reports(plain):
    material, html = plain
    text = Read(html).text
    for header, rows in (markdown.score_table(material.report), markdown.difference_table(material.report)):
        for cell in [*header, *(cell for row in rows for cell in row)]:
            assert cell in text
    for line in [*material.report["verdict"], *markdown.legend(material.report), *markdown.details(material.report)]:
        assert line in text
    for line in material.report["analysis"]["student"]["finding"]:
        assert line in text
    assert "Locks: 800 tokens, 80.0 % of all" in text and "-10.0 [-12.0, -8.0]" in text
    assert material.recipe_text.strip() in text


def test_policy_allows_the_very_style_and_script_and_nothing_else(plain):
    read = Read(plain[1])
    (policy,) = (a["content"] for t, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    raw = {n: "".join(parts) for n, parts in read.raw.items()}
    kinds = {n: read.elements[n - 1] for n in raw}
    assert re.sub("'sha256-[^']+'", "HASH", policy) == (
        "default-src 'none'; style-src HASH; script-src HASH; base-uri 'none'; form-action 'none'"
    )
    live = {n: kind for n, kind in kinds.items() if kind[1].get("type") != "application/json"}
    assert sorted(kind[0] for kind in live.values()) == ["script", "style"]
    for n, (kind, _) in live.items():
        digest = base64.b64encode(hashlib.sha256(raw[n].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    place = plain[1].index("Content-Security-Policy")
    assert place < plain[1].index("<style") and place < 300


def test_nothing_is_asked_of_the_network(plain, wild):
    for _, html in (plain, wild):
        read = Read(html)
        for tag, attributes in read.elements:
            assert not {"src", "srcset", "action", "data", "poster", "background", "style"} & attributes.keys()
            assert not [name for name in attributes if name.startswith("on")]
            assert attributes.get("href", "#").startswith("#")
            assert tag not in ("link", "img", "iframe", "object", "embed", "form", "base", "video", "audio")
    style = page._asset("style.css")
    assert "url(" not in style and "@import" not in style and "@font-face" not in style
    for name in ("page.js", "viewer.js"):
        script = page._asset(name)
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "localStorage"):
            assert word not in script


def test_hostile_strings_are_at_least_thirty():
    assert len(set(hostile.STRINGS)) >= 30


def test_hostile_strings_make_no_element(wild):
    _, html = wild
    read = Read(html)
    known = {
        "html", "head", "meta", "title", "style", "body", "header", "main", "section", "p", "span", "bdi", "button",
        "h1", "h2", "h3", "h4", "div", "nav", "ul", "li", "a", "table", "caption", "thead", "tbody", "tr", "th", "td",
        "details", "summary", "pre", "code", "noscript", "label", "select", "option", "output", "aside", "footer",
        "script",
    }  # fmt: skip
    assert set(read.tags()) <= known and not read.comments and not read.open
    assert read.tags().count("script") == 2 and read.tags().count("style") == 1 and read.tags().count("a") == len(
        page.CONTENTS
    )


def test_hostile_strings_are_shown(wild):
    material, html = wild
    text = Read(html).text
    data = json.dumps(material.packed.data, ensure_ascii=False)
    for string in hostile.STRINGS:
        begin = visible(string[:1000])
        assert begin in text
        assert json.dumps(visible(string[:150]), ensure_ascii=False)[1:-1] in data
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", html)


def test_hostile_data_reads_back_from_its_script(wild):
    material, html = wild
    (data,) = re.findall(r'<script type="application/json" id="samples-data">(.*?)</script>', html, re.S)
    assert json.loads(data) == material.packed.data


def test_a_page_stays_below_five_megabytes(wild):
    assert len(page.render(synthetic.page_material(900)).encode()) < 5e6
    assert len(wild[1].encode()) < 5e6


def test_every_text_that_a_reader_did_not_write_is_isolated(wild):
    """Right-to-left text must not turn the order of what stands beside it."""
    _, html = wild
    arabic = "عربي שלום 123 (abc)"
    assert html.count(f"<bdi>{arabic}") > 5


def test_what_is_absent_is_named(plain):
    material = synthetic.page_material(2)
    material.report = {k: v for k, v in material.report.items() if k != "analysis"}
    material.packed, material.samples_note = None, "There are no answers to show."
    text = Read(page.render(material)).text
    for command in ("analyze", "export", "parity", "bench"):
        assert f"mlx-ssd {command} runs/quickstart" in text
    assert "There are no answers to show." in text and "No figures were drawn." in text
    for said in (
        "What changed at each token", "Whether an export keeps the gain", "Parity with PyTorch",
        "Speed of the student", "Energy of the run.",
    ):  # fmt: skip
        assert said in text
    assert "What changed at each token (mlx-ssd analyze)." not in Read(plain[1]).text


def test_without_analysis_the_samples_are_there_unshaded():
    material = synthetic.page_material(4)
    texts = synthetic.texts(4)
    answers = synthetic.of_texts(texts)
    material.packed = synthetic.samples.pack(answers, synthetic.problems(texts), synthetic.Pieces(), {}, {})
    text = Read(page.render(material)).text
    assert "4 of 4 samples are shown." in text and "They are not shaded: mlx-ssd analyze runs/quickstart adds" in text


def test_fewer_samples_than_there_are_is_said(plain):
    some = synthetic.page_material(200, budget=200_000)
    text = Read(page.render(some)).text
    assert f"{some.packed.shown} of 200 samples are shown." in text and "First came the 20 that changed most" in text
    assert "First came" not in Read(plain[1]).text


def test_exports_parity_and_speed_where_they_are():
    material = synthetic.page_material(2)
    material.exports = [
        {
            "target": "mlx", "precision": "4-bit", "verdict": "fail", "bytes": {"a": 2_000_000},
            "conversion": {"max_abs": 1e-6}, "kept": {"kl_exported": 0.01, "kl_base": 0.05}, "checked_by": "mlx-lm",
            "failures": ["the update did not survive"],
        }
    ]  # fmt: skip
    material.parity = {"rows": [{"quantity": "logits", "max_abs": 1e-5, "tolerance": 1e-4, "verdict": "pass"}]}
    material.bench = [{"model": "student", "adapter": "on", "batch": 1, "decode_tps": {"mean": 64.1}, "energy": None}]
    text = Read(page.render(material)).text
    assert "mlx: the update did not survive" in text and "2.0" in text
    assert "MLX beside PyTorch" in text and "64.1" in text
    assert "was not measured. mlx-ssd parity" not in text and "No export was made" not in text


def test_absent_figures_of_an_analysis_are_a_dash_not_a_nought():
    summary = synthetic.summary("student")
    del summary["labels"]["fork"]["student"]["tail_mass"], summary["labels"]["fork"]["difference"]
    tables = dict(sections.inside_tables(summary))
    (row,) = [row for row in tables["Forks: 150 tokens, 15.0 % of all"][1] if row[0].startswith("mass outside")]
    assert row[1:] == ["20.0", "-", "-"]
    summary["labels"]["fork"] = {"tokens": 0}
    assert not [title for title, _ in sections.inside_tables(summary) if title.startswith("Forks")]


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9" {}>{}</svg>'


def test_figures_keep_what_is_drawn():
    svg = SVG.format(
        'width="9pt" height="9pt"',
        '<path d="M0 0" style="fill: none; stroke: #0072b2; stroke-width: 2"/><use xlink:href="#m"/>'
        '<text style="font: bold 10px sans-serif; text-anchor: middle">é &lt;b&gt;</text><g clip-path="url(#c)"/>',
    )
    out = inert(svg, "what is seen")
    assert 'fill="none" stroke="#0072b2" stroke-width="2"' in out and "style=" not in out
    assert 'font-size="10px"' in out and 'font-weight="bold"' in out and "é &lt;b&gt;" in out
    assert 'href="#m"' in out and 'clip-path="url(#c)"' in out
    assert 'role="img" aria-label="what is seen"' in out and ' width="' not in out.split(">")[0]


@pytest.mark.parametrize(
    "inner",
    [
        "<script>window.ran=1</script>",
        '<rect onclick="window.ran=1"/>',
        "<foreignObject><b xmlns='http://www.w3.org/1999/xhtml'>x</b></foreignObject>",
        '<use xlink:href="https://example.org/#x"/>',
        "<style>@import 'https://example.org'</style>",
        '<rect fill="url(https://example.org/#x)"/>',
        '<rect style="fill: url(//example.org/x)"/>',
        '<image href="https://example.org/x.png"/>',
        '<animate onbegin="window.ran=1"/>',
        '<a href="javascript:window.ran=1"><text>x</text></a>',
        "<!-- --><set attributeName='href' to='javascript:1'/>",
    ],
)
def test_figures_lose_what_acts(inner):
    out = inert(SVG.format('onload="window.ran=1"', inner), "x")
    for word in ("ran", "example", "script", "<b", "import", "set"):
        assert word not in out.replace("xmlns", "")


def test_what_is_no_svg_is_refused():
    for text in ("<svg", "<html/>", "", "<!DOCTYPE svg [<!ENTITY a 'b'>]><b>&a;</b>"):
        with pytest.raises(ValueError):
            inert(text, "x")


def test_drawings_stand_in_their_sections():
    material = synthetic.page_material(2)
    svg = inert(SVG.format("", '<path d="M0 0"/>'), "x")
    material.drawings = [Drawing("differences", "D <b>", "c", svg), Drawing("loss", "L", "c", svg)]
    html = page.render(material)
    assert html.count("<svg") == 2 and "D &lt;b&gt;" in html
    assert html.index("D &lt;b&gt;") < html.index('id="figures"') < html.index('id="figure-1"')
