"""What may a parameter file say? Every key with its type and default (schema.py), and how a file is read (load.py).

Imports errors.py alone. Start with schema.py.
"""
