"""How fast a model answers here and what it takes: `mlx-ssd bench`, and `mlx-ssd frontier`, which sets that beside
what it solves.

`configurations` says what is measured, `worker` runs each in a process of its own (`python -m mlx_ssd.bench`, whose
side is `subject` and `generating`), `rows` makes a line of it, `comparing` ratios of two, `frontier` asks whether a
small self-distilled model replaces a larger one. docs/bench.md says what each figure means.
"""
