"""What the documents point to is there, and the README can be read in two minutes."""

import re

import pytest

from tests.docs.parsing import ROOT
from tests.docs.test_commands import PAGES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            lost.append(target)
    assert lost == []


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([\w./-]+)", README))
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md"}
    assert pages - linked == set()


def test_the_readme_is_read_in_two_minutes():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    prose = re.sub(r"^(?:    |\||- |!\[).*$", "", prose, flags=re.MULTILINE)  # blocks, tables, figures, pictures
    assert 300 < len(prose.split()) < 620


def test_the_readme_says_what_has_not_been_run():
    assert "**Not yet run on a Mac.**" in README
    assert README.count("![") == 3 and "benchmarks/results/frontier.svg" in README


def test_the_quickstarts_table_is_what_make_run_said():
    said = (ROOT / "benchmarks" / "results" / "quickstart.txt").read_text(encoding="utf-8")
    shown = [line.strip() for line in README.splitlines() if re.match(r"    ([┏┃┡│└]|pass@)", line)]
    assert len(shown) > 20 and not [line for line in shown if line not in said.splitlines()]
    minutes, seconds = map(float, re.search(r"^real\s+(\d+)m([\d.]+)s", said, re.M).groups())
    assert f"took {round(minutes + seconds / 60)} minutes, installation included" in README
