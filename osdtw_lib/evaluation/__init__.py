"""How good is it? Scores over a test set, accuracy by group, intervals and who wins, the paper's own numbers and others' logs.

Imports longtail.py and config. Start with metrics.py.
"""
