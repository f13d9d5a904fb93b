"""Small models that stand in for those too large for a test: `python -m benchmarks.stand_ins NAME --out FOLDER`."""
