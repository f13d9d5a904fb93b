"""What each figure draws is what its data says, read back from the SVG."""

import copy
import math

import pytest

from mlx_ssd.report.figures import figures
from mlx_ssd.report.figures.rates import rates_figure
from tests.report import figure_data
from tests.report.svg_reading import Drawing

ENDS = ("low", "high")


@pytest.fixture(scope="module")
def data():
    """(report, log) with everything that there may be."""
    report, log = figure_data.quickstart()
    report["analysis"] = {"student": figure_data.analysis(), "tokens": figure_data.analysis("tokens", 0.2)}
    report |= {"frontier": figure_data.frontier(), "rounds": figure_data.rounds(), "toy": figure_data.toy()}
    report["plan"][1]["seconds"] = {"predicted": 300.0, "measured": 182.0}
    for point in report["curve"]:  # the quickstart's own curve has pass@1 only
        point["pass_at"]["2"] = {end: min(1.0, value + 0.1) for end, value in point["pass_at"]["1"].items()}
    return report, log | {"validated": figure_data.validated_log()}


@pytest.fixture(scope="module")
def drawn(data):
    return {figure.name: figure for figure in figures(*data)}


@pytest.fixture(scope="module")
def read(drawn):
    drawings = {name: Drawing(figure) for name, figure in drawn.items()}
    return drawings.__getitem__


def percents(of, ends=ENDS):
    return [100 * of[end] for end in ends]


def test_every_figure_is_there(drawn):
    assert list(drawn) == [
        "differences", "scores", "pass-at-1-by-temperature", "pass-at-2-by-temperature", "tail-mass", "entropy-split",
        "mass-by-rank", "surviving-by-temperature", "surviving-by-label", "entropy-by-temperature", "entropy-by-label",
        "answer-length", "answer-endings", "answer-verdicts", "loss-student",
        "loss-tokens", "loss-validated", "rounds-pass-1", "frontier", "plan", "toy",
    ]  # fmt: skip
    for figure in drawn.values():
        assert figure.title and figure.caption.endswith(".") and figure.alt.endswith(".")
        assert len(figure.svg.encode()) < 60_000


@pytest.mark.parametrize("k", ["1", "5"])
def test_scores(data, drawn, read, k):
    drawing, scores = read("scores"), data[0]["scores"]
    assert len(drawing.gids(rf"pass-{k}\.\d+")) == len(scores)
    for number, score in enumerate(scores):
        of = score["pass_at"][k]
        drawing.near(f"pass-{k}.{number}", "x", percents(of, ["mean"]))
        drawing.near(f"pass-{k}.{number}.interval", "x", percents(of))
        words = f"{100 * of['mean']:.1f} [{100 * of['low']:.1f}, {100 * of['high']:.1f}]"
        assert f"{score['arm']}: {words}" in drawing.texts()
        assert f"pass@{k} of {score['arm']}: {words} %." in drawn["scores"].alt


@pytest.mark.parametrize("k", ["1", "5"])
def test_differences(data, drawn, read, k):
    drawing, comparisons = read("differences"), data[0]["comparisons"]
    assert len(drawing.gids(rf"difference-{k}\.\d+")) == len(comparisons) == 8
    for number, comparison in enumerate(comparisons):
        of = comparison["difference"][k]
        gid = f"difference-{k}.{number}"
        drawing.near(gid, "x", percents(of, ["mean"]))
        drawing.near(f"{gid}.interval", "x", percents(of))
        mark = next(drawing.element(gid).iter("{http://www.w3.org/2000/svg}use"))
        colour = "#0072b2" if of["low"] > 0 else "#d55e00" if of["high"] < 0 else "currentColor"
        assert mark.get("stroke") == colour and (mark.get("fill-opacity") == "0") == (colour == "currentColor")
        assert f"{100 * of['mean']:+.1f} [{100 * of['low']:+.1f}, {100 * of['high']:+.1f}]" in drawn["differences"].alt
    assert "student - base at the same decoding: +3.7 [+1.0, +6.4]" in drawing.texts()
    assert sum("at the same decoding" in text for text in drawing.texts()) == 4  # two students, two k


@pytest.mark.parametrize("k", ["1", "2"])
def test_curve(data, drawn, read, k):
    report, name = data[0], f"pass-at-{k}-by-temperature"
    drawing, alt = read(name), drawn[name].alt
    series = [("base", 0.8), ("base", 0.9), ("two-stage", 0.8), ("student", 0.8), ("tokens", 0.8)]
    assert {(point["arm"], point["top_p"]) for point in report["curve"]} == set(series)
    tested = {("base", 0.8): [0.9, 1.35], ("base", 0.9): []}
    for number, (arm, top_p) in enumerate(series):
        points = sorted(
            (p for p in report["curve"] if (p["arm"], p["top_p"]) == (arm, top_p)), key=lambda p: p["temperature"]
        )
        values = [point["pass_at"][k] for point in points]
        gid = f"series.{number}"
        drawing.near(gid, "y", [100 * value["mean"] for value in values])
        drawing.near(f"{gid}.interval", "y", [p for value in values for p in percents(value)])
        beside = drawing.values(gid, "x") - [point["temperature"] for point in points]
        assert beside.max() - beside.min() < 0.01 and abs(beside[0]) < 0.03  # all points of an arm by the same little
        at = tested.get((arm, top_p), [0.9])
        marked = [p["pass_at"][k]["mean"] for p in points if p["temperature"] in at]
        if marked:
            drawing.near(f"tested.{number}", "y", [100 * value for value in marked])
        else:
            assert not drawing.pixels(f"tested.{number}", "y")
        label = arm if top_p == 0.8 else f"{arm}, top-p {top_p}"
        assert label in drawing.texts()
        best = max(values, key=lambda value: value["mean"])
        assert "highest {mean:.1f} [{low:.1f}, {high:.1f}]".format(**{e: 100 * v for e, v in best.items()}) in alt


def sides(report, label):
    """(means, difference) of base and both students, as they are drawn."""
    of = [report["analysis"][arm]["labels"][label] for arm in ("student", "tokens")]
    return [(of[0]["base"], None), *((o["student"], o["difference"]) for o in of)]


@pytest.mark.parametrize("label", ["lock", "between", "fork"])
def test_tail_mass(data, drawn, read, label):
    drawing = read("tail-mass")
    for number, (means, difference) in enumerate(sides(data[0], label)):
        corners = sorted(drawing.values(f"tail-{label}.{number}", "x"))
        assert corners[0] == pytest.approx(0, abs=0.02) and corners[-1] == pytest.approx(
            100 * means["tail_mass"], rel=1e-3
        )
        assert f"kept {100 * means['kept_mass']:.4g}" in drawn["tail-mass"].alt
        if difference:
            assert f"change {100 * difference['tail_mass']['mean']:+.1f}" in drawn["tail-mass"].alt or label == "lock"
    assert "change -0.200 [-0.240, -0.160]" in drawn["tail-mass"].alt  # the student's at locks: small, so three digits
    tokens = data[0]["analysis"]["student"]["labels"][label]["tokens"]
    assert any(text.startswith(f"{label}: {tokens:,} tokens, ") for text in drawing.texts())


@pytest.mark.parametrize("label", ["lock", "between", "fork"])
def test_entropy_split(data, read, label):
    drawing = read("entropy-split")
    for number, (means, _) in enumerate(sides(data[0], label)):
        ends = [0.0]
        for part, name in enumerate(("gate", "head", "tail")):
            corners = drawing.values(f"entropy-{label}-{number}.{part}", "x")
            assert (corners.min(), corners.max()) == pytest.approx((ends[-1], ends[-1] + means[name]), abs=2e-3)
            ends.append(ends[-1] + means[name])
        fill = next(drawing.element(f"entropy-{label}-{number}.0").iter("{http://www.w3.org/2000/svg}path")).get("fill")
        assert fill.startswith("url(#") == (number == 0)  # the base is hatched, and nobody else


def test_mass_by_rank(data, drawn, read):
    def log_rest(text):
        return math.log10(1 - float(text) / 100)

    of = [data[0]["analysis"][arm]["mass_by_rank"] for arm in ("student", "tokens")]
    for number, masses in enumerate((of[0]["base"], of[0]["student"], of[1]["student"])):
        read("mass-by-rank").near(f"mass.{number}", "x", range(1, 61))
        read("mass-by-rank").near(f"mass.{number}", "y", [math.log10(1 - mass) for mass in masses], log_rest)
    assert f"base: rank 1 {100 * of[0]['base'][0]:.4g}" in drawn["mass-by-rank"].alt


@pytest.mark.parametrize("metric", ["surviving", "entropy"])
def test_by_temperature(data, read, metric):
    of = [data[0]["analysis"][arm] for arm in ("student", "tokens")]
    drawing = read(f"{metric}-by-temperature")
    for number, values in enumerate((of[0][metric]["base"], of[0][metric]["student"], of[1][metric]["student"])):
        drawing.near(f"{metric}.{number}", "x", of[0]["temperatures"])
        drawing.near(f"{metric}.{number}", "y", values)
    by_label = [analysis[f"{metric}_by_label"] for analysis in of]
    for label in ("lock", "between", "fork"):
        three = (by_label[0][label]["base"], by_label[0][label]["student"], by_label[1][label]["student"])
        for number, values in enumerate(three):
            read(f"{metric}-by-label").near(f"{metric}-{label}.{number}", "y", values)


def test_answers(data, drawn, read):
    for number, score in enumerate(data[0]["scores"]):
        length = read("answer-length").values(f"length.{number}", "x")
        assert length.max() == pytest.approx(score["completion_tokens"], rel=1e-3)
        assert f"{score['arm']}: {score['completion_tokens']:.1f} tokens" in drawn["answer-length"].alt
        for name, counts in (("answer-endings", score["finish_reasons"]), ("answer-verdicts", score["verdicts"])):
            widths = {}
            for part, kind in enumerate(sorted(counts, key=lambda kind: kind not in ("pass", "stop"))):
                corners = read(name).values(f"{name}-{number}.{part}", "x")
                widths[kind] = corners.max() - corners.min()
                assert f"{100 * counts[kind] / sum(counts.values()):.1f} % {kind}" in drawn[name].alt
            total = sum(counts.values())
            assert widths == {kind: pytest.approx(100 * n / total, abs=0.05) for kind, n in counts.items()}


@pytest.mark.parametrize("arm", ["student", "tokens", "validated"])
def test_loss(data, read, arm):
    drawing, entries = read(f"loss-{arm}"), data[1][arm]
    terms = [term for term in ("loss", "loss_conditional", "loss_kept_mass") if any(term in e for e in entries)]
    assert len(terms) == (1 if arm == "tokens" else 3)
    for term in terms:
        wanted = [entry for entry in entries if term in entry]
        assert len(wanted) <= 60
        drawing.near(f"term.{term}", "y", [entry[term] for entry in wanted])
        if term != "loss_kept_mass" and len(terms) == 3:
            continue  # the upper axes share the lower ones' steps, and have no labels of their own
        drawing.near(f"term.{term}", "x", [entry["step"] for entry in wanted])
    if arm == "validated":
        held_out = [entry["validation"]["loss"] for entry in entries if entry.get("validation")]
        assert len(held_out) == 4
        drawing.near("term.validation", "y", held_out)
        drawing.near("best.validation", "y", [min(held_out)])


def test_many_steps_are_drawn_as_means():
    log = [{"step": step, "loss": float(step % 3)} for step in range(1, 181)]
    (figure,) = figures({}, {"student": log})
    Drawing(figure).near("term.loss", "y", [1.0] * 60)  # else the axis would be 0 to 2
    Drawing(figure).near("term.loss", "x", [3 * i + 2 for i in range(60)])
    assert "Each point is the mean of 3 steps." in figure.caption


def test_plan(data, drawn, read):
    for number, row in enumerate(data[0]["plan"]):
        for quantity, divisor in (("peak_bytes", 1e9), ("seconds", 60)):
            for side, of in (("planned", "predicted"), ("took", "measured")):
                gid = f"{quantity.replace('_', '-')}-{side}.{number}"
                if quantity not in row:
                    assert not read("plan").gids(gid)
                    continue
                value = row[quantity][of] / divisor
                assert read("plan").values(gid, "x").max() == pytest.approx(value, rel=1e-3)
    assert "train, time, planned: 5m00s (1.65 times as much)" in drawn["plan"].alt


def test_rounds(data, read):
    for number, arm in enumerate(("student", "tokens")):
        of = [entry["pass_at"]["1"] for entry in data[0]["rounds"] if entry["arm"] == arm]
        read("rounds-pass-1").near(f"round.{number}", "y", [100 * value["mean"] for value in of])
        read("rounds-pass-1").near(f"round.{number}.interval", "y", [p for value in of for p in percents(value)])


@pytest.mark.parametrize("kind", ["memory", "speed"])
def test_frontier(data, drawn, read, kind):
    lines = data[0]["frontier"]["lines"]
    places = []
    for number, line in enumerate(lines):
        read("frontier").near(f"{kind}.{number}", "y", [100 * line["pass_at_1"]["mean"]])
        read("frontier").near(f"{kind}-{number}.interval", "y", percents(line["pass_at_1"]))
        speed = line["speed"]
        value = speed["mlx_peak_bytes"] / 1e6 if kind == "memory" else speed["decode_tps"]["mean"]
        (place,) = read("frontier").pixels(f"{kind}.{number}", "x")
        zero, slope, _ = read("frontier").scale(f"{kind}.{number}", "x")
        places.append((value, place, place - (zero + slope * value)))
    assert all(abs(moved) < 25 for _, _, moved in places)  # pixels: side by side, not elsewhere
    ordered = sorted(place for _, place, _ in places)
    assert min(b - a for a, b in zip(ordered, ordered[1:], strict=False)) > 9  # no mark hides another
    assert sum(moved for *_, moved in places) == pytest.approx(0, abs=0.5)
    assert "larger/model, t1.35-k20-p0.8: 77.0 [72.0, 81.0], 31 MB, 402.0 tokens/s." in drawn["frontier"].alt


def test_toy(data, read):
    toy, drawing = data[0]["toy"], read("toy")
    for side in ("teacher", "student"):
        drawing.near(f"success.{side}", "x", toy[side]["T"])
        drawing.near(f"success.{side}", "y", [100 * value for value in toy[side]["success"]])
        drawing.near(f"best.{side}", "x", [toy[side]["best_T"]])
        drawing.near(f"best.{side}", "y", [100 * toy[side]["best"]])
        for state, of in toy["bars"].items():
            heights = [drawing.values(f"{state}-{side}.{t}", "y").max() for t in range(len(of[side]))]
            assert heights == pytest.approx([100 * value for value in of[side]], abs=0.05)
            wanted = toy["decoded"][state][side]
            heights = [drawing.values(f"decoded-{state}-{side}.{t}", "y").max() for t in range(len(wanted))]
            assert heights == pytest.approx([100 * value for value in wanted], abs=0.05)
    for number, top_p in enumerate(sorted(toy["gaps"], key=float)):
        assert drawing.values(f"gap.{number}", "y").max() == pytest.approx(100 * toy["gaps"][top_p], abs=0.05)


def test_rates():
    row = {"model": "a", "bits": 4, "prompt_tokens": 512, "adapter": "off", "batch": 1}
    rows = [
        row | {"decode_tps": {"mean": 40.0, "std": 2.0}},
        row | {"model": "b", "adapter": "on", "batch": 4, "decode_tps": {"mean": 80.0}},
    ]
    figure = rates_figure(rows)
    drawing = Drawing(figure)
    drawing.near("rate.0.interval", "x", [38.0, 42.0])
    for number, value in enumerate((40.0, 80.0)):
        assert drawing.values(f"rate.{number}", "x").max() == pytest.approx(value, rel=1e-3)
    assert not drawing.gids("rate.1.interval")
    assert "b, 4 bit, pp512, adapter on, batch 4: 80.0." in figure.alt


def test_what_is_absent_is_not_drawn(data):
    assert figures({}, {}) == []
    report = copy.deepcopy(data[0])
    assert figures({"plan": [{"stage": "sample"}], "scores": [], "curve": [], "analysis": {}}, {}) == []
    for score in report["scores"]:
        score["pass_at"] = {}  # a run without tests
    report["comparisons"] = [c | {"difference": {}} for c in report["comparisons"]]
    names = {figure.name for figure in figures({"scores": report["scores"], "comparisons": report["comparisons"]}, {})}
    assert names == {"answer-length", "answer-endings", "answer-verdicts"}
    for label in ("lock", "between"):  # no such token
        for of in report["analysis"].values():
            del of["labels"][label]
    tail = next(figure for figure in figures({"analysis": report["analysis"]}, {}) if figure.name == "tail-mass")
    assert Drawing(tail).gids(r"tail-fork\.\d") and not Drawing(tail).gids(r"tail-lock\.\d")
    assert figures({}, {"student": [{"step": 1, "skipped": "loss"}]}) == []


def test_a_value_that_is_no_number_is_not_drawn_as_one():
    report, _ = figure_data.quickstart()
    report["scores"][1]["pass_at"]["1"]["mean"] = float("nan")
    report["scores"][2]["pass_at"]["1"].pop("low")
    figure = next(f for f in figures({"scores": report["scores"]}, {}) if f.name == "scores")
    assert len(Drawing(figure).gids(r"pass-1\.\d+")) == len(report["scores"]) - 2
    assert "nan" not in figure.svg and "nan" not in figure.alt


def test_a_base_of_other_texts_is_a_base_of_its_own(data):
    report = copy.deepcopy(data[0])
    other = report["analysis"]["tokens"]
    other["texts"]["sha"], other["labels"]["lock"]["tokens"] = "1" * 64, 7
    other["mass_by_rank"]["base"] = [value - 0.01 for value in other["mass_by_rank"]["base"]]
    found = {figure.name: figure for figure in figures({"analysis": report["analysis"]}, {})}
    figure = found["mass-by-rank"]
    assert len(Drawing(figure).gids(r"mass\.\d")) == 4
    assert "base on the texts of tokens:" in figure.alt and "Not all arms read the same texts." in figure.caption
    titles = Drawing(found["tail-mass"]).texts()
    assert "lock" in titles and any(title.startswith("fork: 1,034 tokens, ") for title in titles)


def test_a_caption_names_the_texts(drawn):
    said = "All read the same texts: the base's answers to the test problems, decoded at t0.9-k20-p0.8 (9,400 tokens)."
    assert said in drawn["mass-by-rank"].caption and said in drawn["entropy-by-label"].caption


def test_data_without_any_spread_is_drawn():
    """One temperature, one arm, intervals of no width, nothing but zeros."""
    none = {"mean": 0.0, "low": 0.0, "high": 0.0}
    score = {"arm": "base", "suite": "s", "graded_problems": 1, "pass_at": {"1": none}, "completion_tokens": 0.0}
    comparison = {"arm": "a", "baseline": "b", "decoding": "d", "baseline_decoding": "d", "difference": {"1": none}}
    point = {"arm": "base", "suite": "s", "temperature": 1.0, "top_p": 1.0, "pass_at": {"1": none}}
    zeros = {name: 0.0 for name in ("tail_mass", "kept_mass", "gate", "head", "tail")}
    analysis = {
        "labels": {"lock": {"base": zeros, "student": zeros}}, "temperatures": [1.0], "surviving": {"base": [1.0]},
        "mass_by_rank": {"base": [1.0] * 60},
    }  # fmt: skip
    plan = [{"stage": "sample", "seconds": {"predicted": 0.0, "measured": 0.0}}]
    report = {"scores": [score], "comparisons": [comparison], "curve": [point], "plan": plan}
    report["analysis"] = {"a": analysis}
    found = [figure.name for figure in figures(report, {"a": [{"step": 1, "loss": 0.0}]})]
    assert found == [
        "differences", "scores", "pass-at-1-by-temperature", "tail-mass", "entropy-split", "surviving-by-temperature",
        "answer-length", "loss-a", "plan",
    ]  # fmt: skip
