"""Rows as tables, ratios and plots."""

import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from mlx_ssd.bench import svg
from mlx_ssd.bench.comparing import comparison, ratio
from mlx_ssd.bench.plots import rates
from mlx_ssd.bench.tables import FORMATS, columns, compared

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


def marks(picture, tag):
    return [element.attrib for element in ElementTree.fromstring(picture).iter(SVG + tag)]


def test_bars_are_as_long_as_their_figures(tmp_path):
    rates([row(), row(decode_tps={"mean": 80.0}, model="a < b & c")], tmp_path / "plot.svg")
    picture = (tmp_path / "plot.svg").read_text()
    one, two = (float(bar["width"]) for bar in marks(picture, "rect")[1:])
    assert two == pytest.approx(2 * one, abs=0.2)
    assert "a &lt; b &amp; c" in picture


def test_points_stand_where_their_figures_are():
    points = [svg.Point("a", 10, 50, 40, 60), svg.Point("b", 20, 70, 65, 75), svg.Point("c", 10, 60)]
    picture = svg.page([svg.scatter(points, "title", "x", "y")])
    a, b, c = ((float(m["cx"]), float(m["cy"])) for m in marks(picture, "circle") if m["r"] == "5")
    assert a[0] < b[0] and a[1] > c[1] > b[1]
    assert c[0] - a[0] == pytest.approx(svg.MARK, abs=0.2)  # side by side, where they would hide each other
    assert c[1] == pytest.approx((a[1] + b[1]) / 2, abs=0.2)
    lefts = svg.LEFT + 10 / 20 * (svg.WIDTH - svg.LEFT - svg.RIGHT)
    assert (a[0] + c[0]) / 2 == pytest.approx(lefts, abs=0.2)


def test_no_two_marks_touch_and_none_moves_further_than_it_must():
    places = [100.0, 100.0, 104.0, 121.0, 200.0, 100.0]
    found = svg._apart(places)
    gaps = [b - a for a, b in zip(sorted(found), sorted(found)[1:], strict=False)]
    assert min(gaps) >= svg.MARK - 1e-9 and found[4] == 200
    assert sum(found) == pytest.approx(sum(places))


@pytest.mark.parametrize("low, high", [(0, 3), (0, 431.7), (58.6, 93.7), (5, 5), (0, 0.004)])
def test_ticks_are_round_and_hold_the_data(low, high):
    found = svg.ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 9
    assert all(b > a for a, b in zip(found, found[1:], strict=False))
