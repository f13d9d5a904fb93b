"""The embedded model: its task, the noisy corpus it learns from, and the builder of the shipped files."""
