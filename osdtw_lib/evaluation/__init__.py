"""How good is it? Scores over a test set, accuracy by group, intervals and who wins, the paper's own numbers.

Imports longtail.py. Start with metrics.py.
"""
