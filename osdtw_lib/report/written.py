"""Checksums of the executed notebooks of a run, in outputs/NAME/notebooks.json: the story is told from those files."""

from __future__ import annotations

import json
from pathlib import Path

from ..artifacts.files import checksum, write_text
from ..artifacts.manifest import read_manifest

LISTING = "notebooks.json"


def remember(notebook: Path) -> None:
    """Keep the checksum of an executed notebook as it lies there, and which Stage 3 the run had then."""
    folder = notebook.parent
    known = {name: value for name, value in _known(folder).items() if (folder / name).exists()}
    known |= {notebook.name: {"sha256": checksum(notebook), "stage3": _stage3(folder)}}
    write_text(folder / LISTING, json.dumps(known, indent=1))


def is_of_another_run(notebook: Path) -> bool:
    """Whether Stage 3 has been made otherwise since the notebook was run: what it tells is then of other settings."""
    of = _entry(notebook).get("stage3")
    return of is not None and of != _stage3(notebook.parent)


def _stage3(folder: Path) -> str | None:
    return (read_manifest(folder / "stage3") or {}).get("key")


def what_changed(notebook: Path) -> str | None:
    """None where the notebook is as `remember` found it; else what is wrong, fit to follow its name."""
    expected = _entry(notebook).get("sha256")
    if expected is None:
        return "has no checksum; run it again"
    try:
        return None if checksum(notebook) == expected else "was changed after it was run; run it again"
    except OSError as error:
        return f"cannot be read ({error.strerror}); run it again"


def was_run(notebook: Path) -> bool:
    """Whether `remember` has found it, whatever lies there now."""
    return notebook.name in _known(notebook.parent)


def _entry(notebook: Path) -> dict:
    found = _known(notebook.parent).get(notebook.name)
    return found if isinstance(found, dict) else {"sha256": found}  # of an older version: the checksum alone


def _known(folder: Path) -> dict:
    try:
        known = json.loads((folder / LISTING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
