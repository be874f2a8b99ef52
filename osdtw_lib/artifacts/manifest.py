"""manifest.json, written last: what a stage was made of, with which versions, and a checksum of every file."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from pathlib import Path

from ..config.paths import PROJECT
from .files import checksum

MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict | None:
    """The manifest in a folder, or None where there is none, it cannot be read, or it was edited."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(manifest, dict) and manifest.get("checksum") == own_checksum(manifest)
    return manifest if whole else None


def own_checksum(manifest: dict) -> str:
    values = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def damage(folder: Path, manifest: dict) -> str | None:
    """What is wrong with the files a manifest lists; None where each still has its checksum."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or checksum(path) != expected["sha256"]:
            return f"{name} was changed or cut short after it was written"
    return None


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "timm", "numpy")}


def git_commit() -> str | None:
    try:
        run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, timeout=10)
        return run.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None
