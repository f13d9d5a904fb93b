"""The page as its reader has it: quick, quiet, whole at both widths and in both themes, and on paper."""

import importlib.util
import re
from pathlib import Path

import pytest

from mlx_ssd.report.page import compare
from tests.report import synthetic
from tests.report.browser.conftest import HEIGHT, SAMPLES, THEMES, WIDTHS

FIRST = ("verdict", "sure", "explained", "cost")
EVERYWHERE = pytest.mark.parametrize(("width", "theme"), [(width, theme) for width in WIDTHS for theme in THEMES])


def paint_ms(page):
    return page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")


def shows_first(page):
    """Verdict with its interval, how sure, the best control and the cost are seen without scrolling."""
    for name in FIRST:
        box = page.locator(f"#{name}").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= HEIGHT, name
        assert box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"], name
    assert re.search(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", page.locator("#verdict").inner_text())
    assert "Best control: " in page.locator("#explained").inner_text()
    assert "GB" in page.locator("#cost").inner_text() and "intervals over" in page.locator("#sure").inner_text()


def is_quiet(opened, path):
    assert opened.messages == []
    assert opened.requests == [path.as_uri()]


@EVERYWHERE
def test_opens_quietly_with_the_answers_first(opening, report, width, theme):
    assert report.stat().st_size < 5e6
    with opening(report, width, theme) as opened:
        shows_first(opened.page)
        opened.page.wait_for_selector("#v-tokens .t")
        assert opened.page.locator("#v-place").inner_text() == f"1 of {SAMPLES}"
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 380) is (theme == "dark")
        is_quiet(opened, report)


def test_first_paint_with_200_samples_takes_less_than_a_second(opening, report):
    times = []
    for _ in range(3):
        with opening(report) as opened:
            opened.page.wait_for_selector("#v-tokens .t")
            times.append(paint_ms(opened.page))
    assert min(times) < 1000


@EVERYWHERE
def test_axe_finds_nothing_serious(opening, report, width, theme):
    with opening(report, width, theme) as opened:
        opened.page.wait_for_selector("#v-tokens .t")
        opened.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        opened.page.locator("#v-tokens .t").nth(3).click()
        found = axe(opened.page)
        for measure in ("divergence", "tail"):
            opened.page.select_option("#v-measure", measure)
            found += axe(opened.page, "#viewer")
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], [node["html"][:150] for node in v["nodes"][:3]]) for v in serious] == []


def axe(page, within="html"):
    found = importlib.util.find_spec("axe_playwright_python")
    source = next(Path(found.submodule_search_locations[0]).rglob("axe.min.js")).read_text(encoding="utf-8")
    page.evaluate(source + "\n;0")
    options = "{resultTypes: ['violations']}"
    return page.evaluate(f"axe.run('{within}', {options}).then(found => found.violations)")


def test_axe_would_find_something(opening, tmp_path):
    """The check itself can fail."""
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><html><body><p style='color:#eee;background:#fff'>pale</p><button></button>")
    with opening(page) as opened:
        found = {v["id"] for v in axe(opened.page)}
    assert {"color-contrast", "button-name", "html-has-lang"} <= found


def test_the_theme_can_be_changed_and_is_not_kept(opening, report):
    with opening(report, theme="dark") as opened:
        page = opened.page
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.click("#theme")
        assert page.evaluate(background) != dark and page.locator("#theme").inner_text() == "Dark"
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        page.reload()
        assert page.evaluate(background) == dark


@pytest.mark.parametrize("theme", THEMES)
def test_on_paper_it_is_light_whole_and_without_controls(opening, report, theme):
    with opening(report, theme=theme) as opened:
        page = opened.page
        page.wait_for_selector("#v-tokens .t")
        page.emulate_media(media="print", color_scheme=theme)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for name in ("nav", "#theme", ".controls", ".keys", ".copy", "#v-detail"):
            assert not page.locator(name).first.is_visible(), name
        for name in ("#verdict", "#cost", "#v-tokens", "#v-legend", "#again pre", "#provenance details pre"):
            assert page.locator(name).first.is_visible(), name
        assert page.evaluate("getComputedStyle(document.getElementById('v-tokens')).maxHeight") == "none"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert not page.evaluate("document.querySelector('#provenance details').open")
        pdf = page.pdf(format="A4")
        assert pdf.startswith(b"%PDF") and 2 <= pdf.count(b"/Type /Page\n") <= 20


def test_commands_can_be_copied(opening, report):
    with opening(report) as opened:
        opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        opened.page.locator(".copy").first.click()
        opened.page.wait_for_function("document.querySelector('.copy').textContent !== 'Copy'")
        copied = opened.page.evaluate("navigator.clipboard.readText()")
        assert copied == "mlx-ssd run runs/quickstart/recipe.yaml --out runs/quickstart-again"


def test_a_real_run(opening, finished_run):
    path = finished_run / "report.html"
    for width in WIDTHS:
        with opening(path, width) as opened:
            shows_first(opened.page)
            opened.page.wait_for_selector("#v-tokens .t")
            assert "def solve" in opened.page.locator("#v-prompt pre").inner_text()
            assert opened.page.locator("#v-tokens .lock").count()
            assert opened.page.locator("#v-arm option").all_inner_texts() == ["student", "tokens"]
            assert opened.page.locator("#scores svg").count() == 1
            assert [v["id"] for v in axe(opened.page) if v["impact"] in ("serious", "critical")] == []
            is_quiet(opened, path)


def test_runs_side_by_side(opening, tmp_path):
    for name in ("one", "two"):
        synthetic.write_run(tmp_path / name)
    path = compare.write_comparison([tmp_path / "one", tmp_path / "two"])
    for width, theme in ((1440, "light"), (390, "dark")):
        with opening(path, width, theme) as opened:
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            assert [v["id"] for v in axe(opened.page) if v["impact"] in ("serious", "critical")] == []
            is_quiet(opened, path)
