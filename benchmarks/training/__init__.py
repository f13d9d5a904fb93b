"""Training against mlx-lm's trainer: tokens a second, memory of the loss, padding, and what soft targets cost."""
