"""Schedules of rounds: what distilling again does on the embedded model, and how (`__main__` says it)."""
