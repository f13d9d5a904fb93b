"""MLX beside PyTorch, quantity by quantity: `mlx-ssd parity RUN`.

A part is a module with these names:

    left_out(subject)      one sentence why it cannot be measured here, or None
    rows(subject, work)    what was measured; `work` is a folder for the arrays of all parts

Each computes in MLX first and keeps the results in `work`, then in PyTorch, so that two models never stand in memory
together. Parts go in this order; what one leaves in `work` the next may read.
"""

PARTS = ("weights", "logits", "decoding", "training", "generation")
