"""The fused model of mlx-lm: whole, in the bits asked for, and every damage to it found."""
