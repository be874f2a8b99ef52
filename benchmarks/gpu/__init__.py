"""The steps of gpu_acceptance.py, a file for those that belong together; each is a function of a `Step` (rows.py)."""
