"""manifest.json, written last: what a stage was made of, with which versions, and a checksum of every file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..config.paths import PROJECT
from .files import checksum

MANIFEST = "manifest.json"
DECIDING = ("torch", "torchvision", "timm", "numpy", "numba", "pillow")  # libraries


def read_manifest(folder: Path) -> dict | None:
    """The manifest in a folder, or None where there is none, it cannot be read, or it was edited."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(manifest, dict) and manifest.get("checksum") == own_checksum(manifest)
    return manifest if whole else None


def own_checksum(manifest: dict, under: str = "checksum") -> str:
    """Of everything in it but the checksum itself, which stands under that name."""
    values = {name: value for name, value in manifest.items() if name != under}
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


@cache
def versions() -> dict[str, str]:
    """Of Python and of the libraries whose versions can change a result."""
    found = {"python": platform.python_version()}
    for name in DECIDING:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def version_changes(manifest: dict) -> list[str]:
    """`torch 2.12 -> 2.13` for each library of another version, up to the second number, than the one a stage was made with."""
    then, now = manifest.get("versions", {}), versions()
    pairs = {name: (_minor(then[name]), _minor(now[name])) for name in DECIDING if name in then and name in now}
    return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def git_commit() -> str | None:
    try:
        run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, timeout=10)
        return run.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None
