"""What will it take? Memory, images/s and hours a stage, before anything runs.

Imports stages and below. Start with plan.py.
"""
