"""The plan beside what a run took: by hand, and of a real run."""

import json

from mlx_ssd.layout import RunFiles
from mlx_ssd.report.markdown import planned
from mlx_ssd.report.prediction import against_plan, plan_table

PLAN = {
    "stages": {
        "sample": {"peak_bytes": 3_000_000_000, "seconds": 60.0},
        "train": {"peak_bytes": 5_000_000_000, "seconds": 100.0},
        "evaluate": {"peak_bytes": 2_000_000_000},
    }
}


def unit(peak, seconds):
    return {"peak_mlx_bytes": peak, "peak_rss_bytes": 9 * 10**9, "seconds": seconds}


def test_units_of_a_stage_sum_in_time_and_the_highest_peak_counts():
    measured = {
        "sample": unit(2_500_000_000, 50.0), "curate": {"seconds": 1.0},
        "train": unit(4 * 10**9, 40.0), "train.tokens": unit(6 * 10**9, 60.5),
    }  # fmt: skip
    assert against_plan(PLAN, measured) == [
        {
            "stage": "sample",
            "peak_bytes": {"predicted": 3_000_000_000, "measured": 2_500_000_000},
            "seconds": {"predicted": 60.0, "measured": 50.0},
        },
        {
            "stage": "train",
            "peak_bytes": {"predicted": 5_000_000_000, "measured": 6_000_000_000},
            "seconds": {"predicted": 100.0, "measured": 100.5},
        },
    ]


def test_what_was_not_predicted_or_not_measured_is_absent():
    (row,) = against_plan(PLAN, {"evaluate.base": unit(10**9, 5.0)})
    assert row == {"stage": "evaluate", "peak_bytes": {"predicted": 2_000_000_000, "measured": 10**9}}
    assert against_plan(PLAN, {"evaluate.base": {"seconds": 5.0}}) == []
    _, (cells,) = plan_table({"plan": [row]})
    assert cells == ["evaluate", "2.0", "1.0", "2.00", "-", "-", "-"]


def test_runs_without_a_plan_say_nothing_of_it():
    assert planned({}) == [] and plan_table({})[1] == []


def test_of_a_real_run(finished_run):
    files = RunFiles(finished_run)
    plan, report = json.loads(files.plan.read_text()), json.loads(files.report_json.read_text())
    measured = {n: e["measured"] for n, e in json.loads(files.manifest.read_text())["stages"].items()}
    assert [row["stage"] for row in report["plan"]] == ["sample", "train", "evaluate"]
    for row in report["plan"]:
        stage = row["stage"]
        peaks = [of["peak_mlx_bytes"] for name, of in measured.items() if name.split(".")[0] == stage]
        assert row["peak_bytes"] == {"predicted": plan["stages"][stage]["peak_bytes"], "measured": max(peaks)}
        assert 0.5 < row["peak_bytes"]["predicted"] / row["peak_bytes"]["measured"] < 2.5
        assert "seconds" not in row  # of a machine that was not calibrated
    assert "What the plan said" in files.report_md.read_text()
