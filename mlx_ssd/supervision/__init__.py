"""Work in a process of its own, watched: what ends it is survived, and it goes on by itself (docs/reliability.md)."""

from mlx_ssd.supervision.tries import Failure, supervise

__all__ = ["Failure", "supervise"]
