"""Does the proxy rank what training measures? The grid over (C, w_A) of notebook 08.

Imports stages and below. Start with stage.py.
"""
