"""Nothing that a model or a user wrote acts, in a real browser."""

import json

from mlx_ssd.report.page.text import shortened, visible
from tests.report import hostile
from tests.report.browser.test_page import is_quiet

ELEMENTS = "Array.from(document.querySelectorAll('*'), one => one.localName)"
IN_VIEWER = ELEMENTS.replace("'*'", "'#viewer *'")


def test_hostile_strings_are_inert_in_every_sample(opening, hostile_report, report):
    with opening(report) as opened:
        opened.page.wait_for_selector("#v-tokens .t")
        usual = set(opened.page.evaluate(ELEMENTS)) | {"i", "noscript"}
        opened.page.locator("#v-tokens .t").first.hover()
        usual |= set(opened.page.evaluate(ELEMENTS))
    with opening(hostile_report) as opened:
        page = opened.page
        page.wait_for_selector("#v-tokens .t")
        samples = int(page.locator("#v-place").inner_text().split()[-1])
        assert samples == len(hostile.STRINGS)
        seen = []
        for _ in range(samples):
            page.locator("#v-tokens .t").first.dispatch_event("click")
            page.locator("#v-tokens .t").nth(1).dispatch_event("pointerover", {"pointerType": "mouse"})
            seen.append(page.locator("#v-prompt pre").text_content())
            assert set(page.evaluate(IN_VIEWER)) <= usual
            page.evaluate("document.getElementById('v-next').click()")
        assert set(page.evaluate(ELEMENTS)) <= usual
        assert page.evaluate("window.ran") is None
        assert page.evaluate("document.scripts.length") == 2
        acting = "a:not([href^='#']), [onclick], [onload], [onerror], [src], [style*=url]"
        assert page.locator(acting).count() == 0
        assert page.evaluate("Object.keys(Object.prototype).length") == 0
        begin = "Take a word."
        assert not any(text == begin for text in seen)
        assert set(seen) == {visible(shortened(string)) for string in hostile.STRINGS}
        is_quiet(opened, hostile_report)


def test_hostile_text_stays_in_the_page_at_both_widths(opening, hostile_report):
    for width in (1440, 390):
        with opening(hostile_report, width) as opened:
            opened.page.wait_for_selector("#v-tokens .t")
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.page.evaluate("document.characterSet") == "UTF-8"


def test_right_to_left_marks_are_seen_not_obeyed(opening, hostile_report):
    with opening(hostile_report) as opened:
        text = opened.page.evaluate("document.body.textContent")
        assert "⟨U+202E⟩gnp.exe" in text
        assert not any(mark in text for mark in "\u202e\u2066\u200f\x00\x1b")
        data = json.loads(opened.page.locator("#samples-data").text_content())
        assert any("⟨U+202E⟩" in piece for piece in data["pieces"])


def test_a_planted_script_is_stopped_by_the_policy(opening, report, tmp_path):
    """Were something to slip through the escaping, it could still not run."""
    path = tmp_path / "planted.html"
    planted = f"<script>{hostile.RAN}</script><img src=x onerror='{hostile.RAN}'>"
    planted += "<img src=https://example.org/x.png></main>"
    path.write_text(report.read_text(encoding="utf-8").replace("</main>", planted, 1), encoding="utf-8")
    with opening(path) as opened:
        opened.page.wait_for_selector("#v-tokens .t")
        assert opened.page.evaluate("window.ran") is None
        assert dict(opened.stopped) == dict.fromkeys((f"{path.parent.as_uri()}/x", "https://example.org/x.png"), "csp")
        assert opened.messages  # the browser says what it refused
