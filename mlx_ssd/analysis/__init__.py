"""Locks and forks: what training changed at every token, base and student teacher-forced on the same texts.

    texts -> (terms of every token) -> parts on disk -> labels -> summary

`store` is what stands on disk; the formulas are in `terms`, the rule of the labels in `labels`. Sources: the paper's
section 4.1 and appendix B (arXiv 2604.01193).
"""
