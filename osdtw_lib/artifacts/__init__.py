"""How is a result kept? Folders with a key and checksums, checkpoints, files written whole or not at all.

Imports config and backend. Start with artifact.py: why a stage runs again or not.
"""
