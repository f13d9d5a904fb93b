"""The figures of an export, against SciPy's and against logits whose figures are known."""

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from mlx_ssd.errors import WorkFailed
from mlx_ssd.export.compare import CLEAR_MARGIN, compare
from mlx_ssd.export.texts import Text

DRAWN = [Text((1, 2), (3, 0, 4), False), Text((5,), (1, 1), False)]
GREEDY = Text((1,), (0, 1, 2, 3), True)


def random_logits(seed, texts=DRAWN):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(len(text.completion_ids), 6)).astype(np.float32) * 3 for text in texts]


def test_against_scipy():
    found, reference = random_logits(0), random_logits(1)
    facts = compare(DRAWN, found, reference)
    a, b = np.concatenate(found).astype(float), np.concatenate(reference).astype(float)
    kl = rel_entr(softmax(b, -1), softmax(a, -1)).sum(-1)
    assert facts["positions"] == 5
    assert facts["max_abs"] == np.abs(a - b).max() and facts["mean_abs"] == pytest.approx(np.abs(a - b).mean())
    assert facts["kl_mean"] == pytest.approx(kl.mean()) and facts["kl_p99"] == pytest.approx(np.quantile(kl, 0.99))
    assert facts["largest"] == np.abs(b).max()
    assert facts["top1"] == np.mean(a.argmax(-1) == b.argmax(-1))
    tokens = np.concatenate([text.completion_ids for text in DRAWN])
    for name, logits in (("perplexity", a), ("reference_perplexity", b)):
        assert facts[name] == pytest.approx(np.exp(-log_softmax(logits, -1)[np.arange(5), tokens].mean()))
    assert "greedy_match" not in facts


def test_the_same_is_the_same():
    logits = random_logits(2, [*DRAWN, GREEDY])
    logits[2] = np.eye(4, 6, dtype=np.float32)
    facts = compare([*DRAWN, GREEDY], logits, logits)
    assert (facts["max_abs"], facts["kl_mean"], facts["top1"], facts["clear_top1"]) == (0, 0, 1, 1)
    assert (facts["greedy_match"], facts["greedy_tokens"]) == (4, 4)
    assert facts["perplexity"] == facts["reference_perplexity"]


def test_the_order_of_the_two_matters():
    found, reference = random_logits(0), random_logits(1)
    assert compare(DRAWN, found, reference)["kl_mean"] != compare(DRAWN, reference, found)["kl_mean"]


def test_only_a_clear_margin_counts_for_clear_top1():
    near, far = [1.0, 1.0 + CLEAR_MARGIN / 2, 0, 0], [2.0, 1.0, 0, 0]
    reference = [np.array([near, far], np.float32)]
    found = [np.array([[1.0, 0, 0, 0], far], np.float32)]
    facts = compare([Text((1,), (0, 0), False)], found, reference)
    assert (facts["top1"], facts["clear_positions"], facts["clear_top1"]) == (0.5, 1, 1.0)
    facts = compare([Text((1,), (0, 0), False)], [found[0][:, ::-1]], reference)
    assert facts["clear_top1"] == 0.0
    assert "clear_top1" not in compare([Text((1,), (0,), False)], [found[0][:1]], [reference[0][:1]])


def test_greedy_match_ends_at_the_first_token_that_differs():
    reference = 5 * np.eye(4, 6, dtype=np.float32)
    found = reference.copy()
    found[2, 5] = 9
    facts = compare([GREEDY], [found], [reference])
    assert (facts["greedy_match"], facts["greedy_tokens"]) == (2, 4)
    assert "perplexity" not in facts


def test_a_shift_of_all_logits_changes_no_probability():
    logits = random_logits(3)
    facts = compare(DRAWN, [part + 2 for part in logits], logits)
    assert facts["max_abs"] == pytest.approx(2, abs=1e-5) and facts["kl_mean"] == pytest.approx(0, abs=1e-9)


def test_what_is_no_number_is_as_wrong_as_can_be():
    logits = random_logits(3)
    broken = [part * np.nan for part in logits]
    facts = compare(DRAWN, broken, logits)
    assert facts["max_abs"] == facts["kl_mean"] == facts["kl_p99"] == facts["perplexity"] == np.inf


def test_another_vocabulary_is_told():
    logits = random_logits(3)
    with pytest.raises(WorkFailed, match=r"logits of \[3, 5\] tokens and words, and the student of \[3, 6\]"):
        compare(DRAWN, [part[:, :5] for part in logits], logits)
