"""Files of completions as people have them, and what is wrong with some."""

import gzip
import json

import pytest

from mlx_ssd.errors import BadInput
from mlx_ssd.suites.answers import read


def line(problem="a", completion="x", **more):
    return json.dumps({"problem_id": problem, "completion": completion, **more}) + "\n"


def written(tmp_path, content, name="g.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def keys(answers):
    return [answer.key for answer in answers]


def test_answers_are_numbered_as_they_stand(tmp_path):
    file = written(tmp_path, line("a") + line("b") + line("a", "y") + "\n" + line("a", "z", model="m", logprob=None))
    answers = read(file)
    assert keys(answers) == [("a", 0), ("b", 0), ("a", 1), ("a", 2)]
    assert [answer.text for answer in answers] == ["x", "x", "y", "z"]
    assert answers[-1].line == 5


def test_sample_index_is_honoured(tmp_path):
    file = written(tmp_path, line(sample_index=7) + line(sample_index=0) + line("b", sample_index=None))
    assert keys(read(file)) == [("a", 7), ("a", 0), ("b", 0)]


def test_human_evals_own_format(tmp_path):
    lines = ['{"task_id": "HumanEval/0", "completion": "    return 1"}', '{"task_id": 11, "completion": ""}']
    file = written(tmp_path, "\n".join(lines))
    assert keys(read(file)) == [("HumanEval/0", 0), ("11", 0)]


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_byte_order_mark_and_line_ends(tmp_path, end):
    text = "\ufeff" + line(completion="one\r\ntwo\u2028three").rstrip("\n") + end + line("b").rstrip("\n")
    answers = read(written(tmp_path, text))
    assert keys(answers) == [("a", 0), ("b", 0)] and answers[0].text == "one\r\ntwo\u2028three"


def test_gzip_whatever_its_name(tmp_path):
    packed = gzip.compress((line() + line("b")).encode())
    assert keys(read(written(tmp_path, packed, "g.jsonl.gz"))) == [("a", 0), ("b", 0)]
    assert keys(read(written(tmp_path, packed, "g"))) == [("a", 0), ("b", 0)]


def test_a_megabyte(tmp_path):
    assert len(read(written(tmp_path, line(completion="é" * 1_000_000)))[0].text) == 1_000_000


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path):
    file = written(tmp_path, '{"problem_id": "\\udc00", "completion": "a\\ud800b \\ud83d\\ude00"}\n')
    [answer] = read(file)
    assert (answer.problem_id, answer.text) == ("\ufffd", "a\ufffdb 😀")
    answer.text.encode()


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "holds no completion; a line looks like {"),
        ("\n \r\n", "holds no completion"),
        ('[{"problem_id": "a", "completion": "x"}]', "line 1: a JSON array; write one object a line"),
        (line() + "{'problem_id': 1}\n", "line 2: not JSON"),
        ('{\n  "problem_id": "a"\n}', "line 1: not JSON"),
        (line() + '"text"\n', "line 2: not a JSON object"),
        (line(completion=None), 'line 1: completion is null, not a text; write "" for an empty answer'),
        (line(completion=["x"]), "line 1: completion is a list, not a text"),
        (line(problem=None), "line 1: problem_id is null"),
        (line(problem=True), "line 1: problem_id is true or false"),
        ('{"problem_id": "a"}', "line 1: it has no completion"),
        ('{"id": "a", "completion": "x"}', "line 1: it has no problem_id"),
        (line(sample_index=-1), "line 1: sample_index is -1"),
        (line(sample_index=True), "line 1: sample_index is true"),
        (line(sample_index="0"), 'line 1: sample_index is "0"'),
        (line() + "\n" + line(sample_index=0), "line 3: sample 0 of problem 'a' stands in line 1 already"),
        (line(sample_index=1) + line("b") + line(), "line 3: sample 1 of problem 'a' stands in line 1 already"),
        (line().encode() + b'{"problem_id": "\xff"}\n', "line 2: not a text file in UTF-8"),
        (b"\x1f\x8bnot gzip at all", "damaged gzip"),
        (gzip.compress(line().encode() * 99, mtime=0)[:-9], "damaged gzip"),
        ("[" * 100_000, "a JSON array"),
        (line() + "[" * 100_000, "line 2: not JSON"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, content, words):
    file = written(tmp_path, content)
    with pytest.raises(BadInput) as refused:
        read(file)
    assert str(refused.value).startswith(str(file)) and words in str(refused.value)


def test_no_file(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(BadInput, match="is a folder"):
        read(tmp_path)
