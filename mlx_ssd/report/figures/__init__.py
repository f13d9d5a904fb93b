"""The figures of a report and of `mlx-ssd bench` (docs/figures.md). matplotlib is imported when one is drawn."""

from mlx_ssd.report.figures.collecting import figures
from mlx_ssd.report.figures.figure import Figure
from mlx_ssd.report.figures.files import write_figures

__all__ = ["Figure", "figures", "write_figures"]
