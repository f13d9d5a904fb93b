"""The decoding distribution: its specification, its integer form and its randomness (docs/decoding.md)."""
