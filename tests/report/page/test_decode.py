"""Texts of tokens: joined, they are the text; a part of a character is shown as its bytes."""

import pytest

from mlx_ssd import models
from mlx_ssd.report.page.decode import Pieces, byte_of_character, text_of
from mlx_ssd.sections import Model


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.locate(Model()))


def test_pieces_of_the_embedded_model_make_its_text(tokenizer):
    text = "def solve(s):\n    return sum(len(w) for w in s.split())\t# 12\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(Pieces(tokenizer).of(ids)) == text
    assert len(ids) > 10


def test_parts_of_characters_are_bytes(tokenizer):
    ids = tokenizer.encode("“ü🙂", add_special_tokens=False)
    shown = "".join(Pieces(tokenizer).of(ids))
    data = "“ü🙂".encode()
    assert shown == "".join(f"⟨{byte:02x}⟩" for byte in data) or shown == "“ü🙂"
    assert text_of(b"a\xe2\x80b\xff\xc3\xa9") == "a⟨e2⟩⟨80⟩b⟨ff⟩é"


def test_every_token_has_a_text_that_can_be_written(tokenizer):
    for piece in Pieces(tokenizer).of(range(len(tokenizer) + 2)):
        piece.encode("utf-8")


def test_special_tokens_and_ids_beyond_the_tokenizer(tokenizer):
    pieces = Pieces(tokenizer)
    assert pieces.of([2]) == ["<|im_end|>"]
    assert pieces.is_special(2) and not pieces.is_special(100)
    assert pieces.of([10**6, -1]) == ["⟨no token 1000000⟩", "⟨no token -1⟩"]


class SentencePiece:
    """What transformers' tokenizers give, without a byte-level decoder."""

    added_tokens_decoder = {0: "</s>"}
    names = ["</s>", "▁def", "<0xE2>", "é", "▁▁"]

    def __len__(self):
        return len(self.names)

    def convert_ids_to_tokens(self, ids):
        return [self.names[i] for i in ids]


def test_sentencepiece():
    assert Pieces(SentencePiece()).of([1, 2, 3, 4, 0]) == [" def", "⟨e2⟩", "é", "  ", "</s>"]


def test_the_table_of_bytes_is_whole():
    table = byte_of_character()
    assert sorted(table.values()) == list(range(256)) and table["Ġ"] == 32 and table["Ċ"] == 10
