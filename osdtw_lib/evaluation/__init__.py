"""How good is it? Scores over a test set, accuracy by group, the paper's own numbers.

Imports longtail.py. Start with metrics.py.
"""
