"""Simple Self-Distillation (arXiv 2604.01193) on Apple silicon."""

__version__ = "0.1.0"
