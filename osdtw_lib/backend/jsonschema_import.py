"""Import jsonschema without the grammars of international addresses, which it compiles for a second wherever they are installed.

nbformat asks it whether a notebook is one, and plotly and nbconvert import nbformat; a notebook's schema has no such address.
"""

import sys

GRAMMARS = "rfc3987_syntax"

if "jsonschema" not in sys.modules and GRAMMARS not in sys.modules:
    sys.modules[GRAMMARS] = None  # type: ignore[assignment]  # as where it is not installed
    try:
        import jsonschema  # noqa: F401
    finally:
        del sys.modules[GRAMMARS]
