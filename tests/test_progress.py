"""The progress line: rate and time left are of this process, not of the one it resumes."""

import pytest

from mlx_ssd import progress


@pytest.mark.parametrize("seconds, words", [(0.4, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (7800, "2h10m")])
def test_duration(seconds, words):
    assert progress.duration(seconds) == words


def test_line_counts_only_new_work(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress("sample", total=100, done=60, unit="samples")
    assert "left" not in bar.line()  # no rate is known yet
    now[0] += 10
    bar.done = 80
    assert bar.line("1,000 tokens/s").startswith("sample: 80/100 samples, 2/s, 10s left, 1,000 tokens/s, ")
    bar.done = 100
    now[0] += 10
    assert "took 20s" in bar.line() and bar.line().endswith(" GB")


def test_plain_lines_are_rare_where_there_is_no_terminal(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress("train", total=1000)
    for step in range(1000):
        now[0] += 0.05
        bar.update(step + 1)
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 5 and all(line.startswith("train: ") for line in lines)


def test_a_log_has_the_last_line_once(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    bar = progress.Progress("sample", total=2)
    bar.update(1)
    bar.update(2)
    bar.finish()
    assert capsys.readouterr().err.count("2/2") == 1
