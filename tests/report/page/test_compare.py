"""Runs side by side: what differs is named, and what cannot be compared is said to be so."""

import re

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.recipe import Recipe
from mlx_ssd.report.page import compare
from mlx_ssd.storage import read_json, write_json
from tests.report import hostile, synthetic
from tests.report.page.test_page import Read


@pytest.fixture
def runs(tmp_path):
    one = synthetic.write_run(tmp_path / "one")
    two = synthetic.write_run(tmp_path / "two", Recipe.model_validate({"train": {"epochs": 7}, "seed": 3}))
    return one, two


def materials(runs):
    return [synthetic.read_back(files.directory) for files in runs]


def test_the_page_holds_both(runs):
    page = compare.write_comparison([files.directory for files in runs])
    assert page == runs[0].directory / "compare.html"
    text = Read(page.read_text()).text
    for files in runs:
        assert str(files.directory) in text
    assert text.count("pass@1: student beats base at the same decoding (+10.0 [+7.0, +13.0])") == 2
    assert "65.0 [60.0, 70.0]" in text and "Not on one scale" not in text
    assert "Nothing is tested between runs" in text


def test_settings_that_differ_and_no_others(runs):
    header, rows = compare.settings_table(materials(runs))
    assert header[1:] == [str(files.directory) for files in runs]
    assert rows == [["seed", "0", "3"], ["train.epochs", str(Recipe().train.epochs), "7"]]
    assert compare.settings_table(materials((runs[0], runs[0])))[1] == []


def test_other_problems_are_not_comparable(runs):
    manifest = read_json(runs[1].manifest)
    manifest["stages"]["score"]["made_of"]["inputs"]["problems.test"] = "others"
    write_json(runs[1].manifest, manifest)
    (doubt,) = compare.doubts(materials(runs))
    assert doubt.endswith("were tested on other problems: their scores are not comparable.")
    page = compare.write_comparison([files.directory for files in runs])
    assert "Not on one scale" in Read(page.read_text()).text


def test_another_decoding_or_model_is_said(runs):
    found = read_json(runs[1].report_json)
    found["evaluate_decoding"]["temperature"] = 0.3
    found["model"]["revision"] = "another"
    write_json(runs[1].report_json, found)
    decoded, model = compare.doubts(materials(runs))
    assert "decoded differently" in decoded and "other base models" in model


def test_bad_input_is_one_sentence(runs, tmp_path):
    with pytest.raises(BadInput, match="has no report.json; make it with"):
        compare.write_comparison([runs[0].directory, tmp_path])
    with pytest.raises(BadInput, match="needs another run"):
        compare.write_comparison([runs[0].directory, runs[0].directory])
    runs[1].report_json.write_text('{"v": 1}')
    with pytest.raises(BadInput, match="not a report of this version"):
        compare.write_comparison([files.directory for files in runs])


def test_hostile_runs_make_no_element(runs):
    clean, wild = materials(runs)
    expected = Read(compare.render([clean, wild]))
    wild.report = hostile._everywhere(wild.report, hostile.STRINGS)
    wild.directory = hostile.STRINGS[0]
    wild.recipe = {name: name for name in hostile.STRINGS}
    html = compare.render([clean, wild])
    read = Read(html)
    assert set(read.tags()) <= {*expected.tags(), "ul", "li"} and read.tags().count("script") == 1
    assert not read.comments and not re.search("[\x00-\x08\u202a-\u202e]", html)
