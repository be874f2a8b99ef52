"""The proxy under sliders: what is shown (state.py), its linked figures, its widgets.

Imports figures, stages and below. Start with widgets.py.
"""

from ..backend import jsonschema_import  # noqa: F401  before plotly and nbformat import it
