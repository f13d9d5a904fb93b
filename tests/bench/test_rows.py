"""Rows as tables, ratios and plots."""

import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from mlx_ssd.bench.comparing import comparison, ratio
from mlx_ssd.bench.plots import frontier, rates
from mlx_ssd.bench.tables import FORMATS, columns, compared
from mlx_ssd.report.figures.rates import rates_figure
from tests.report import figure_data
from tests.report.svg_reading import Drawing

SVG = "{http://www.w3.org/2000/svg}"


def row(**changes):
    found = {
        "model": "small", "revision": "r", "bits": 4, "quantized": True, "adapter": "off", "prompt_tokens": 512,
        "generated_tokens": 128, "batch": 1, "repetitions": 2, "ttft_s": {"mean": 0.25, "std": 0.01},
        "prompt_tps": {"mean": 2048.0, "std": 3.0}, "decode_tps": {"mean": 40.0, "std": 2.0},
        "latency_ms": {"p50": 25.0, "p95": 30.0, "p99": 31.0}, "mlx_peak_bytes": 2_000_000_000, "kv_bytes": 80_000_000,
        "roofline_share": 0.5, "bandwidth": {"bytes_per_second": 100e9, "source": "chip table"},
        "machine": {"chip": "Apple M2", "cores": 8, "memory_bytes": 16e9, "system": "Darwin"},
        "versions": {"mlx": "0.32"}, "series": {"decode_tps": [38.0, 42.0], "ttft_s": [0.2, 0.3]},
    }  # fmt: skip
    return found | changes


def test_what_was_not_measured_is_left_out():
    found = columns([row(), row(load_s={"mean": 1.5})])
    assert "J/token" not in found and "process MB" not in found
    assert found["load s"] == ["", "1.50"] and found["decode t/s"][0] == "40.0 ± 2.0"
    energy = {"watts": 10, "joules_per_token": 0.25, "of": "the whole machine"}
    assert columns([row(energy=energy)])["J/token"] == ["0.25"]


def test_every_format_has_every_row():
    rows = [row(), row(model="large", adapter="on")]
    assert [json.loads(line) for line in FORMATS["jsonl"](rows).splitlines()] == rows
    read = list(csv.DictReader(io.StringIO(FORMATS["csv"](rows))))
    assert [line["model"] for line in read] == ["small", "large"]
    assert read[0]["decode_tps.mean"] == "40.0" and read[0]["machine.chip"] == "Apple M2"
    for name in ("table", "md"):
        text = FORMATS[name](rows)
        assert "large" in text and "40.0 ± 2.0" in text and "roofline: 100 GB/s (chip table)" in text


def test_a_ratio_is_of_rounds_and_its_interval_too():
    a = np.array([10.0, 20.0, 40.0])
    found = ratio(a, 2 * a)
    assert (found.mean, found.low, found.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))
    wide = ratio([1.0, 1.0], [1.0, 4.0])
    assert wide.mean == pytest.approx(2) and wide.low == pytest.approx(1) and wide.high == pytest.approx(4)
    assert ratio([1.0], [2.0]) is None


def test_a_comparison_says_what_is_divided_by_what():
    series = {"decode_tps": [1.0, 2.0], "ttft_s": [1.0, 2.0], "prompt_tps": [1.0, 2.0]}
    halved = {name: [value / 2 for value in values] for name, values in series.items()}
    first, other = row(series=series), row(model="large", mlx_peak_bytes=6_000_000_000, series=halved)
    found = comparison(first, other)
    assert found["ratios"]["decode_tps"]["mean"] == pytest.approx(0.5)
    assert found["ratios"]["mlx_peak_bytes"] == {"mean": 3.0} and "footprint_peak_bytes" not in found["ratios"]
    for output in ("table", "md"):
        text = compared([found], output)
        assert "Ratios to small, 4 bit, adapter off, pp512+tg128; 2 rounds" in text
        assert "0.500 [0.500, 0.500]" in text and "large" in text and "process peak" not in text
    assert json.loads(compared([found], "jsonl")) == found and compared([found], "csv") == ""


def test_bars_are_as_long_as_their_figures(tmp_path):
    rows = [row(), row(decode_tps={"mean": 80.0}, model="a < b & c")]
    rates(rows, tmp_path / "plot.svg")
    picture = (tmp_path / "plot.svg").read_text()
    assert ElementTree.fromstring(picture).tag == SVG + "svg"
    assert "a &lt; b &amp; c, 4 bit, pp512: 80.0" in picture and "small, 4 bit, pp512: 40.0 ± 2.0" in picture
    drawing = Drawing(rates_figure(rows))
    one, two = (drawing.values(f"rate.{number}", "x") for number in range(2))
    assert (one.max(), two.max()) == (pytest.approx(40, rel=1e-3), pytest.approx(80, rel=1e-3))


def test_a_frontier_that_nobody_graded_is_not_drawn(tmp_path):
    plot = tmp_path / "frontier.svg"
    plot.write_text("an earlier one")
    frontier({"run": "r", "problems": 3, "lines": [{"name": "base", "speed": row()}]}, plot)
    assert not plot.exists()
    frontier(figure_data.frontier(), plot)
    assert plot.read_text().startswith("<svg")
