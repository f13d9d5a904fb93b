"""Simple Self-Distillation (arXiv 2604.01193) on Apple silicon.

    import mlx_ssd
    mlx_ssd.run(mlx_ssd.Recipe.load("quickstart"), out="runs/first")

Names are imported on first use: `import mlx_ssd` loads nothing heavy.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Recipe", "run"]


def __getattr__(name: str) -> Any:
    if name == "Recipe":
        from mlx_ssd.recipe import Recipe

        return Recipe
    if name == "run":
        from mlx_ssd.pipeline import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
