"""Which images does it fail on? Pages of every class: what trained it, what was named right, what was taken for what.

Imports report and below. Start with stage.py (what is shown), then pages.py (how).
"""
