"""What the plan predicts against what is measured: `python -m benchmarks.planning`."""
