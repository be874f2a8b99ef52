"""The proxy under sliders: what is shown (state.py), its linked figures, its widgets.

Imports figures, stages and below. Start with widgets.py.
"""
