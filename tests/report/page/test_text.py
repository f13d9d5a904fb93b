"""Nothing unseen stays unseen, and nothing ends the script that it stands in."""

import json

import pytest

from mlx_ssd.report.page.text import script_json, shortened, visible
from tests.report.hostile import STRINGS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x00\x1b[0m\r", "⟨U+0000⟩⟨U+001B⟩[0m⟨U+000D⟩"),
        ("\ud83d", "⟨U+D83D⟩"),
        ("\u200b\u2028\ufeff", "⟨U+200B⟩⟨U+2028⟩⟨U+FEFF⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("def f():\n\treturn 'é🙂عربي'", "def f():\n\treturn 'é🙂عربي'"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


def test_shortened_says_how_much_is_left_out():
    assert shortened("abc", 3) == "abc"
    assert shortened("a" * 1_000_000, 4) == "aaaa … (999,996 more characters are left out here)"


def test_script_json_is_the_same_value_and_ends_no_script():
    value = {"texts": [visible(text) for text in STRINGS], "raw": "\u2028\u2029"}
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("utf-8")


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError):
        script_json({"x": float("nan")})
