"""Where do images come from, and what does a batch go through? sets/ has a file a data set, listings/ reads folders and lists.

Imports artifacts and below. Start with source.py, then batches.py.
"""
