"""The filters are syntactic, accounted, and keep the order."""

from mlx_ssd.filters import curate
from mlx_ssd.records import Sample
from mlx_ssd.sections import Curation


def sample(problem, index=0, finish="stop"):
    return Sample(
        problem_id=problem,
        sample_index=index,
        prompt_ids=[1],
        completion_ids=[2],
        finish_reason=finish,
        policy="t1",
        seed=0,
        stream="train/round-1",
        model="m",
        template="t",
    )


CODE = "```python\ndef solve(x):\n    return x\n```"


def kept_and_dropped(texts, finish=None, **settings):
    samples = [sample(f"p{i}", finish=(finish or {}).get(i, "stop")) for i in range(len(texts))]
    kept, dropped = curate(samples, texts, Curation(**settings))
    return [s.problem_id for s in kept], dropped


def test_empty_and_stub_are_dropped_and_counted():
    texts = [CODE, " \n", "```python\npass\n```", "return 1", "x = 1\ny = 2"]
    assert kept_and_dropped(texts) == (["p0", "p4"], {"empty": 1, "stub": 2})


def test_filters_can_be_switched_off():
    texts = ["", "return 1"]
    assert kept_and_dropped(texts, drop_empty=False, drop_stubs=False) == (["p0", "p1"], {})


def test_wrong_code_is_kept():
    assert kept_and_dropped(["this is\nno program (at all"])[0] == ["p0"]


def test_unfinished_is_a_policy():
    assert kept_and_dropped([CODE, CODE], {1: "length"})[0] == ["p0", "p1"]
    assert kept_and_dropped([CODE, CODE], {1: "length"}, unfinished="drop") == (["p0"], {"unfinished": 1})


def test_shortest_percent_drops_strictly_shorter_than_the_rank():
    texts = [CODE + "#" * i for i in range(10)]
    assert kept_and_dropped(texts, drop_shortest_percent=20.0) == (
        [f"p{i}" for i in range(2, 10)],
        {"shortest": 2},
    )


def test_order_is_by_problem_and_sample_whatever_the_journals_order():
    samples = [sample("b"), sample("a", 1), sample("a", 0)]
    kept, _ = curate(samples, [CODE] * 3, Curation())
    assert [s.key for s in kept] == [("a", 0), ("a", 1), ("b", 0)]
