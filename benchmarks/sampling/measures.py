"""The figures that docs/benchmarks.md quotes, from the rows of sampling.jsonl and sampler.jsonl."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.journal import Row
from benchmarks.rounds import newest_runs, peak, pick, ratio, seconds, spread, wanted_table, whole_rounds

MODEL = "smollm2"


def table(sampling: Sequence[Row], sampler: Sequence[Row]) -> str:
    """Markdown: what was measured, against what, how much was wanted, and the median [least, most] of the rounds."""
    runs = {
        run[0]["experiment"]: whole_rounds(run, "engine", "rows")
        for run in newest_runs(sampling)
        if run[0]["model"] == MODEL and run[0]["experiment"] in ("throughput", "samples")
    }
    throughput, samples = runs["throughput"], runs["samples"]
    ours, twice = pick(throughput, engine="ours", rows=32), pick(throughput, engine="ours", rows=64)
    theirs = pick(throughput, engine="mlx_lm.batch_generate", rows=32)
    drained = pick(throughput, engine="chunk-and-drain", rows=16)
    shared, unshared = pick(samples, engine="ours", rows=8), pick(samples, engine="ours, unshared", rows=8)
    (draw,) = [row for row in sampler if (row["rows"], row["vocabulary"]) == (32, 151_936) and "1.6" in row["policy"]]
    expected = spread([row["peak_bytes"] / row["expected_peak_bytes"] for row in ours])
    lines = [
        ("tokens/s, 32 rows", "mlx_lm.batch_generate, 32 rows", "1.8", ratio(theirs, ours, seconds)),
        ("tokens/s, 32 rows", "chunk-and-drain of 16", "2.5", ratio(drained, ours, seconds)),
        ("tokens/s, 64 rows", "chunk-and-drain of 16", "2.5", ratio(drained, twice, seconds)),
        ("8 samples of 768 + 128 tokens", "the same without sharing", "2", ratio(unshared, shared, seconds)),
        (
            "sampler, 32 rows x 151,936, T 1.6, k 20, p 0.8",
            "mlx_lm make_sampler",
            "40",
            f"{draw['ratio']:.0f} [{draw['ratio_range'][0]:.0f}, {draw['ratio_range'][1]:.0f}]",
        ),
        ("peak memory, 32 rows", "mlx_lm.batch_generate, 32 rows", "at most 0.7", ratio(ours, theirs, peak)),
        ("peak memory, 32 rows", "what admission expected", "0.9 to 1.1", expected),
    ]
    return wanted_table(lines)
