"""The token viewer at work: what it shows is what was analysed, and all of it can be had from the keyboard."""

import numpy as np
import pytest

from tests.report import synthetic
from tests.report.browser.conftest import SAMPLES


@pytest.fixture(scope="module")
def analysed():
    texts = synthetic.texts(SAMPLES)
    return texts, synthetic.columns(texts)


@pytest.fixture
def page(opening, report):
    with opening(report) as opened:
        opened.page.wait_for_selector("#v-tokens .t")
        yield opened.page
        assert opened.messages == []


def focused(page):
    return page.evaluate("Number(document.activeElement.dataset.i ?? -1)")


def what(page):
    return page.locator("#v-detail .what").inner_text()


def facts(page):
    rows = page.locator("#v-detail .facts tbody tr").all_inner_texts()
    return {row.split("\t")[0]: row.split("\t")[1:] for row in rows}


def share(text):
    return 0.0005 if text.startswith("<") else float(text.split()[0]) / 100


def test_tokens_are_the_text_with_its_blanks_visible(page, analysed):
    texts, _ = analysed
    pieces = synthetic.Pieces().of(texts[0].completion_ids)
    shown = page.locator("#v-tokens .t").evaluate_all("all => all.map(one => one.textContent)")
    assert shown == [p.replace(" ", "·").replace("\t", "⇥").replace("\n", "⏎\n") for p in pieces]


def test_detail_shows_the_numbers_of_the_analysis(page, analysed):
    _, columns = analysed
    for i in (0, 7, 39):
        page.locator("#v-tokens .t").nth(i).hover()
        assert what(page).startswith(f"token {i + 1} of 40 · ")
        found = facts(page)
        for name, column in (("mass in S_s", "kept_mass"), ("this token", "probability")):
            for side, text in zip(("base", "student"), found[name], strict=True):
                assert share(text) == pytest.approx(columns[f"{side}.{column}"][i], abs=0.0006)
        ranks = [str(columns[f"{side}.rank"][i] + 1) for side in ("base", "student")]
        assert found["its rank"] == ranks
        top = page.locator("#v-detail .ten tbody tr:not(.cut)")
        expected = synthetic.Pieces().of(columns["base.top_ids"][i])
        visible = [text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") for text in expected]
        names = [name.removeprefix("▸ ") for name in top.locator("th").all_inner_texts()]
        assert names[:10] == visible
        support = columns["support"][i]
        if support <= 10:
            rows = page.locator("#v-detail .ten tbody tr").evaluate_all("all => all.map(one => one.className)")
            assert rows.index("cut") == support
        assert page.locator("#v-detail .taken").count() == 1


def test_locks_and_forks_are_marked_by_the_rule_and_not_by_colour_alone(page, analysed):
    _, columns = analysed
    top = columns["base.top_probabilities"][:40]
    lock, fork = top[:, 0] >= 0.9, (top[:, 0] < 0.9) & (top[:, 1] >= 0.1)
    classes = page.locator("#v-tokens .t").evaluate_all("all => all.map(one => one.className.split(' '))")
    assert [("lock" in c, "fork" in c) for c in classes] == list(zip(lock, fork, strict=True))
    assert lock.any() and fork.any() and not (lock | fork).all()
    styles = {
        name: page.locator(f"#v-tokens .{name}").first.evaluate("one => getComputedStyle(one).borderBottomStyle")
        for name in ("lock", "fork")
    }
    assert styles == {"lock": "solid", "fork": "double"}


def test_shades_follow_the_measure(page, analysed):
    _, columns = analysed
    page.select_option("#v-measure", "tail")
    change = (columns["student.kept_mass"] - columns["base.kept_mass"])[:40]
    classes = page.locator("#v-tokens .t").evaluate_all("all => all.map(one => one.className)")
    for found, value in zip(classes, change, strict=True):
        levels = [n + 1 for n, step in enumerate((0.005, 0.02, 0.05, 0.15, 0.4)) if abs(value) >= step]
        if np.abs(np.abs(value) - np.array([0.005, 0.02, 0.05, 0.15, 0.4])).min() > 1e-4:
            assert (f"more{max(levels)}" in found) if levels else ("more" not in found and "less" not in found)
    page.select_option("#v-measure", "probability")
    assert "more probable" in page.locator("#v-legend").inner_text()


def test_the_keyboard_reaches_and_drives_it(page):
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page) == 0:
            break
    assert focused(page) == 0
    assert page.locator('#v-tokens [tabindex="0"]').count() == 1
    page.keyboard.press("ArrowRight")
    assert focused(page) == 1 and what(page).startswith("token 2 of 40")
    assert page.locator("#v-status").inner_text().count("token 2 of 40") == 1
    page.keyboard.press("Enter")
    assert page.locator('#v-tokens [aria-selected="true"]').get_attribute("data-i") == "1" and "pinned" in what(page)
    page.keyboard.press("ArrowRight")
    assert focused(page) == 2 and what(page).startswith("token 2 of 40")
    page.keyboard.press("Escape")
    assert page.locator('#v-tokens [aria-selected="true"]').count() == 0
    assert page.locator("#v-detail .what").count() == 0
    page.keyboard.press("End")
    assert focused(page) == 39 and what(page).startswith("token 40 of 40")
    page.keyboard.press("ArrowRight")
    assert focused(page) == 39
    page.keyboard.press("Home")
    assert focused(page) == 0
    tops = page.locator("#v-tokens .t").evaluate_all("all => all.map(one => one.offsetTop)")
    page.keyboard.press("ArrowDown")
    assert tops[focused(page)] == sorted(set(tops))[1]
    page.keyboard.press("ArrowUp")
    assert tops[focused(page)] == tops[0]
    page.keyboard.press("PageDown")
    assert page.locator("#v-place").inner_text() == f"2 of {SAMPLES}" and focused(page) == 0
    page.keyboard.press("PageUp")
    assert page.locator("#v-place").inner_text() == f"1 of {SAMPLES}"
    assert page.locator('#v-tokens [tabindex="0"]').count() == 1
    page.keyboard.press("Tab")
    assert focused(page) == -1


def test_tap_pins_and_close_lets_go(page):
    page.locator("#v-tokens .t").nth(4).click()
    assert "pinned" in what(page)
    page.locator("#v-tokens .t").nth(9).hover()
    assert what(page).startswith("token 5 of 40")
    page.click("#v-detail .close")
    assert page.locator("#v-detail .what").count() == 0


def test_filters_and_order(page, analysed):
    texts, _ = analysed
    page.select_option("#v-verdict", "wrong")
    wrong = [text for text in texts if text.verdict == "wrong"]
    assert page.locator("#v-place").inner_text() == f"1 of {len(wrong)}"
    page.select_option("#v-difficulty", "hard")
    both = [text for text in wrong if text.difficulty == "hard"]
    assert page.locator("#v-place").inner_text() == f"1 of {len(both)}"
    assert both[0].problem_id in page.locator("#v-about").inner_text()
    assert "solve('aa b') == 3" in page.locator("#v-tests pre").text_content()
    page.select_option("#v-order", "change")
    moved = []
    for _ in range(5):
        words = page.locator("#v-about").inner_text()
        assert "wrong" in words and "hard" in words
        moved.append(float(words.split("moved ")[1].split()[0]))
        page.click("#v-next")
    assert moved == sorted(moved, reverse=True) and moved[0] > moved[-1]
    page.click("#v-previous")
    assert page.locator("#v-place").inner_text() == f"5 of {len(both)}"


def test_only_the_chosen_sample_is_in_the_page(page):
    assert page.locator(".t").count() < 60
