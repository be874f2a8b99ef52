"""Checksums of the executed notebooks of a run, in outputs/NAME/notebooks.json: the story is told from those files."""

from __future__ import annotations

import json
from pathlib import Path

from ..artifacts.files import checksum, write_text

LISTING = "notebooks.json"


def remember(notebook: Path) -> None:
    """Keep the checksum of an executed notebook as it lies there."""
    known = {name: value for name, value in _known(notebook.parent).items() if (notebook.parent / name).exists()}
    write_text(notebook.parent / LISTING, json.dumps(known | {notebook.name: checksum(notebook)}, indent=1))


def what_changed(notebook: Path) -> str | None:
    """None where the notebook is as `remember` found it; else what is wrong, fit to follow its name."""
    expected = _known(notebook.parent).get(notebook.name)
    if expected is None:
        return "has no checksum; run it again"
    try:
        return None if checksum(notebook) == expected else "was changed after it was run; run it again"
    except OSError as error:
        return f"cannot be read ({error.strerror}); run it again"


def was_run(notebook: Path) -> bool:
    """Whether `remember` has found it, whatever lies there now."""
    return notebook.name in _known(notebook.parent)


def _known(folder: Path) -> dict:
    try:
        known = json.loads((folder / LISTING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
