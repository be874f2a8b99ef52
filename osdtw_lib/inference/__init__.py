"""New images in, classes out.

Imports models and below. Start with predictor.py; files.py streams files and folders through it.
"""
