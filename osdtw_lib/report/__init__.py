"""Notebooks executed, and the pages made of them; templates/ has what a page is made of.

Imports everything below. Start with notebooks.py (papermill), then page.py and index.py.
"""

from ..backend import jsonschema_import  # noqa: F401  before plotly and nbformat import it
