"""How is a network trained? One loop for everything (loop.py), its optimizer, and training on features of a frozen encoder.

Imports models, data and below. Start with loop.py.
"""
