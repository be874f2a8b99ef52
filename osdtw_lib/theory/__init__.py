"""Is the theorem right? Whole matrices, Lemma 1, simulations; numpy only, no run and no data.

Imports nothing of ours but itself. Start with expansion.py.
"""
