"""Sampling against mlx-lm: tokens a second, peak memory, and what a decoding step is made of."""
