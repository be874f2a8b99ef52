"""Does the chain work here? A small run on the digits whose numbers are known, link by link.

Imports stages and below. Start with check.py; bands.py holds the numbers.
"""
