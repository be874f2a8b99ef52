"""Which network? The vision transformer and its division into depths, the two-branch network, what outputs mean, where
weights come from.

Imports artifacts and below. Start with vit.py, then two_branch.py and likelihoods.py.
"""
