"""New images in, classes out; and the model taken away.

Imports methods and below. Start with predictor.py; files.py streams files and folders through it, export.py writes it into a
folder that needs nothing of this project.
"""
