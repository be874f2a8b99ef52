"""What runs, in what order, from what? The stages of notebooks 01 to 07, each found as it is or made.

Imports everything below. Start with run.py, then execute.py.
"""
