"""Tables in, figures out, one file a subject; nothing here trains or reads a file.

Imports longtail.py and the names of columns. Start with style.py.
"""

from ..backend import jsonschema_import  # noqa: F401  before plotly and nbformat import it
