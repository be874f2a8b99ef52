"""What do the machine and its libraries do for us? Processes, threads, GPUs, compiled loops, lines of progress, timm's import.

Imports errors.py and legible.py. Start with distributed.py.
"""
