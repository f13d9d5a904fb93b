"""What the viewer is handed: which samples, the numbers of the analysis again, within the bytes."""

import base64
import json

import numpy as np
import pytest

from mlx_ssd.analysis.store import Part
from mlx_ssd.records import Problem
from mlx_ssd.report.page import samples
from mlx_ssd.report.page.samples import COLUMNS, FULL, Sample, changes, divergence, labels, line_of_test, pack
from mlx_ssd.report.page.text import script_json
from tests.report import synthetic


def packed(count=12, length=30, **options):
    texts = synthetic.texts(count, length)
    part = Part(0, count, synthetic.columns(texts))
    found = pack(
        synthetic.of_texts(texts), synthetic.problems(texts), synthetic.Pieces(), {"student": lambda: [part]},
        {"student": synthetic.RULE}, **options,
    )  # fmt: skip
    return found, texts, part


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<u2").astype(int)


def unpack(sample):
    found, start, all_ = {}, 0, numbers(sample["of"][0])
    for name in COLUMNS:
        width = 10 if ".top_" in name else 1
        found[name] = all_[start : start + width * sample["n"]].reshape(sample["n"], width)
        start += width * sample["n"]
    assert start == len(all_)
    return found


def test_what_is_packed_is_what_was_analysed():
    found, texts, part = packed()
    assert (found.shown, found.of) == (12, 12)
    pieces = synthetic.Pieces()
    for number, (sample, text) in enumerate(zip(found.data["samples"], texts, strict=True)):
        rows = part.columns["text"] == number
        got = unpack(sample)
        assert [found.data["pieces"][i] for i in numbers(sample["t"])] == pieces.of(text.completion_ids)
        for name in ("base.kept_mass", "student.probability", "base.top_probabilities", "student.top_probabilities"):
            expected = part.columns[name][rows].reshape(got[name].shape)
            np.testing.assert_allclose(got[name] / FULL, expected, atol=0.51 / FULL)
        for name in ("support", "base.rank", "student.rank"):
            np.testing.assert_array_equal(got[name][:, 0], part.columns[name][rows])
        for name in ("base.entropy", "student.entropy"):
            np.testing.assert_allclose(got[name][:, 0] / 1000, part.columns[name][rows], atol=0.00051)
        for name in ("base.top_ids", "student.top_ids"):
            shown = [found.data["pieces"][i] for i in got[name].ravel()]
            assert shown == pieces.of(part.columns[name][rows].ravel())
        assert found.data["problems"][sample["problem"]]["id"] == text.problem_id
        assert (sample["verdict"], sample["difficulty"]) == (text.verdict, text.difficulty)


def test_labels_are_by_the_rule():
    top = np.array([[0.9, 0.05], [0.89, 0.1], [0.89, 0.09], [0.5, 0.4]])
    assert labels(top, synthetic.RULE).tolist() == [0, 2, 1, 2]
    assert labels(top, {"lock_top1": 0.95, "fork_second": 0.05}).tolist() == [2, 2, 2, 2]


def test_divergence_is_the_whole_kl_where_both_lists_hold_all_and_less_elsewhere():
    draw = np.random.default_rng(1)
    p, q = (draw.dirichlet(np.ones(10), 50).astype(np.float32) for _ in range(2))
    ids = np.tile(np.arange(10), (50, 1))
    order = np.argsort(-q, axis=1)
    columns = {
        "base.top_ids": ids, "base.top_probabilities": p,
        "student.top_ids": order, "student.top_probabilities": np.take_along_axis(q, order, 1),
    }  # fmt: skip
    whole = (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(divergence(columns), whole, rtol=1e-4, atol=1e-5)
    columns["student.top_ids"] = np.where(order < 5, order, order + 100)  # half of the names are others
    assert (divergence(columns) <= whole + 1e-4).all() and (divergence(columns) >= 0).all()
    same = columns | {"student.top_ids": ids, "student.top_probabilities": p}
    assert divergence(same).max() < 1e-6


def test_budget_is_kept_and_told():
    whole, *_ = packed(200)
    size = len(script_json(whole.data).encode())
    some, *_ = packed(200, budget=size // 3)
    assert whole.shown == 200 and 0.6 * 200 / 3 < some.shown < 200 / 3 + 2
    assert some.of == 200
    assert len(script_json(some.data).encode()) <= size // 3 * 1.02 + 2000


def test_what_changed_most_is_shown_first_then_first_answers():
    _, texts, part = packed(200)
    some, *_ = packed(200, budget=300_000)
    change = changes([part])
    shown = {(s["problem"], s["i"]): s for s in some.data["samples"]}
    keys = {(some.data["problems"][p]["id"], i) for p, i in shown}
    for number in sorted(change, key=change.get)[-samples.LARGEST :]:
        assert (texts[number].problem_id, texts[number].sample_index) in keys
    others = {key for key in keys if key[1] == 1}
    assert len(others) <= samples.LARGEST < len(keys)
    order = [(some.data["problems"][s["problem"]]["id"], s["i"]) for s in some.data["samples"]]
    assert order == sorted(order)


def test_a_long_sample_is_cut_and_says_so():
    found, *_ = packed(2, length=samples.MOST_TOKENS + 100)
    assert [(s["n"], s["cut"]) for s in found.data["samples"]] == [(samples.MOST_TOKENS, samples.MOST_TOKENS + 100)] * 2
    assert len(unpack(found.data["samples"][0])["label"]) == samples.MOST_TOKENS


def test_without_an_analysis():
    texts = synthetic.texts(6)
    answers = [Sample(t.problem_id, t.sample_index, "student", t.completion_ids) for t in texts]
    found = pack(answers, {}, synthetic.Pieces(), {}, {})
    assert found.shown == 6 and found.data["arms"] == [] and found.data["samples"][0]["of"] == []
    assert "verdict" not in found.data["samples"][0] and "prompt" not in found.data["problems"][0]


def test_parts_are_read_one_at_a_time():
    texts = synthetic.texts(9)
    open_now = 0

    def parts():
        nonlocal open_now
        for first in (0, 3, 6):
            open_now += 1
            assert open_now == 1
            yield Part(first, 3, synthetic.columns(texts[first : first + 3], first, seed=first))
            open_now -= 1

    found = pack(synthetic.of_texts(texts), {}, synthetic.Pieces(), {"student": parts}, {"student": synthetic.RULE})
    assert found.shown == 9 and all(sample["of"][0] for sample in found.data["samples"])


@pytest.mark.parametrize(
    ("test", "line"),
    [
        ({"args": ["a", 1], "expected": [2]}, "solve('a', 1) == [2]"),
        ({"check": "assert solve(1)"}, "assert solve(1)"),
        ({"answer": "42"}, "the answer is 42"),
        ({"stdin": "1\n", "stdout": "2"}, "stdin '1\\n' → stdout '2'"),
    ],
)
def test_tests_in_a_line(test, line):
    assert line_of_test(Problem(id="p", prompt="x", entry_point="solve", tests=[test]), test) == line


def test_many_tests_are_counted():
    texts = synthetic.texts(1)
    problem = synthetic.problems(texts)[texts[0].problem_id]
    many = problem.model_copy(update={"tests": problem.tests * 50})
    found = pack(synthetic.of_texts(texts), {problem.id: many}, synthetic.Pieces(), {}, {})
    (shown,) = found.data["problems"]
    assert len(shown["tests"]) == samples.MOST_TESTS + 1 and shown["tests"][-1] == "… and 10 more tests"
    json.loads(script_json(found.data))
