"""What do the machine and its libraries do for us? Several processes, compiled loops, lines of progress, timm's import.

Imports errors.py alone. Start with distributed.py.
"""
