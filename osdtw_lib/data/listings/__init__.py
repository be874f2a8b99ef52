"""Image files as they are given: a folder a class, a CSV or a list, and published lists whose paths are another copy's.

Start with folders.py (reads one part), then parts.py (puts the parts together).
"""
