"""Which method is best? Every method over seeds on one backbone, with intervals; row files that can be exchanged.

Imports stages and below. Start with cells.py (what is trained), then rows.py (what is kept) and compare.py (what is said).
"""
