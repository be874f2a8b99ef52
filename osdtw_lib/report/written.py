"""Checksums of the executed notebooks of a run, in outputs/NAME/notebooks.json: the story is told from those files, and from no
other results than the run has."""

from __future__ import annotations

import json
from pathlib import Path

from ..artifacts.files import checksum, write_text
from ..artifacts.manifest import MANIFEST, own_checksum, read_manifest
from ..stages import CONTENTS, NOTEBOOKS

LISTING = "notebooks.json"


def remember(notebook: Path) -> None:
    """Keep the checksum of an executed notebook as it lies there, and of which results it is: those its stages had then, or
    for one that stands beside the run which Stage 3."""
    folder = notebook.parent
    known = {name: value for name, value in _known(folder).items() if (folder / name).exists()}
    known |= {notebook.name: {"sha256": checksum(notebook)} | _told(notebook)}
    write_text(folder / LISTING, json.dumps(known, indent=1))


def is_of_another_run(notebook: Path) -> bool:
    """Whether its stages, or Stage 3, have been made otherwise since the notebook was run: what it tells is then of others."""
    then = _entry(notebook)
    return any(then.get(stage) not in (None, now) for stage, now in _told(notebook).items())


def _told(notebook: Path) -> dict[str, str | None]:
    """What a notebook tells of, as it is now: the results of its stages; of one that stands beside the run Stage 3's key."""
    folder = notebook.parent
    if notebook.stem in NOTEBOOKS:
        stages = [stage for stage in NOTEBOOKS[notebook.stem] if not CONTENTS[stage].on_the_way]  # those may come and go
        return {stage: _results(folder, stage) for stage in stages}
    return {"stage3": (read_manifest(folder / "stage3") or {}).get("key")}


def _results(folder: Path, stage: str) -> str | None:
    """Of what a stage was made and what came out; of the methods, of each."""
    found = {path.parent.name: read_manifest(path.parent) or {} for path in (folder / stage).glob(f"**/{MANIFEST}")}
    return own_checksum({name: [m.get("key"), m.get("files")] for name, m in found.items()}) if found else None


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
