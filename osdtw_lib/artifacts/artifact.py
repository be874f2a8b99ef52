"""outputs/NAME: one folder a stage, written so that a kill at any moment loses nothing and hides nothing.

A stage's key is the sha256 of its own parameters and of the keys of the stages before it. Files are written
under a temporary name and renamed; `manifest.json`, with the key and a checksum of every file, comes last.
A stage is done when the key in its manifest is the one asked for and every file still has its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from ..backend import distributed
from ..errors import UserError
from .checkpoint import Checkpoint
from .files import checksum, make_folder, read_tensors, remove, write_tensors, write_text
from .manifest import MANIFEST, damage, git_commit, own_checksum, read_manifest, version_changes, versions
from .tables import read_table, table_text

FORMAT = 2  # part of every key: raise it when the files of a stage, or how they are computed, change


@dataclass(frozen=True)
class Artifact:
    """One stage's results: `folder`, what it was made with (`parameters`) and from (`inputs`)."""

    name: str
    folder: Path
    parameters: dict
    inputs: tuple[Artifact, ...] = field(default=())

    @cached_property
    def key(self) -> str:
        parts = {"format": FORMAT, "name": self.name, "parameters": self.parameters}
        parts["inputs"] = {a.name: a.key for a in self.inputs}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def manifest(self) -> dict | None:
        """The manifest as it lies there, or None where there is none or it cannot be read."""
        return read_manifest(self.folder)

    def why_not_done(self) -> str | None:
        """None if the stage is done; else the reason, fit to be printed."""
        manifest = self.manifest()
        if manifest is None:
            broken = (self.folder / MANIFEST).exists()
            return "its manifest is damaged" if broken else "no result yet"
        if manifest["key"] != self.key:
            return "stale: " + self._changes(manifest)
        if changes := version_changes(manifest):
            return "stale: " + ", ".join(changes)
        return damage(self.folder, manifest)

    def _changes(self, manifest: dict) -> str:
        old, new = flat(manifest.get("parameters", {})), flat(self.parameters)
        changes = [_change(k, old.get(k, "unset"), new.get(k, "unset")) for k in new | old if old.get(k) != new.get(k)]
        for before in self.inputs:
            if manifest.get("inputs", {}).get(before.name) != before.key:
                changes.append(f"{before.name} changed")
        return ", ".join(changes) or "made in another way"

    def require(self, hint: str = "run it again") -> Artifact:
        """This artifact if it is done. Raises UserError saying why not, and `hint`."""
        reason = self.why_not_done()
        if reason:
            raise UserError(f"{self.name} ({self.folder}): {reason}; {hint}")
        return self

    @contextlib.contextmanager
    def making(self, device: str = "cpu") -> Iterator[Writer]:
        """Yields a Writer; on leaving without an exception the manifest is written and checkpoints are removed.

        An earlier result stays whole until the first file of the new one is written: who tries other values and stops
        them half-way has what was there. In several processes all of them come here; the first alone writes.
        """
        make_folder(self.folder)
        writer = Writer(self)
        yield writer
        if writer.writes:
            self._finish(writer, device)

    def _finish(self, writer: Writer, device: str) -> None:
        manifest = {
            "stage": self.name,
            "key": self.key,
            "parameters": self.parameters,
            "inputs": {a.name: a.key for a in self.inputs},
            "files": {n: {"sha256": checksum(p), "bytes": p.stat().st_size} for n, p in writer.files.items()},
            "notes": writer.notes,
            "seconds": round(writer.elapsed(), 3),
            "device": device,
            "versions": versions(),
            "git_commit": git_commit(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        manifest["checksum"] = own_checksum(manifest)
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        for pattern in ("*.checkpoint", "*.new", ".*.part", ".tmp*", ".write-test.*"):  # .tmp: safetensors, killed
            for left_over in self.folder.glob(pattern):
                remove(left_over)

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Raises UserError where the stage is not done: what is stale or was changed is never read."""
        return read_tensors(self.require().folder / f"{name}.safetensors")

    def table(self, name: str) -> pd.DataFrame:
        return read_table(self.require().folder / f"{name}.csv")

    def notes(self) -> dict:
        return (self.manifest() or {}).get("notes", {})

    def seconds(self) -> float:
        return (self.manifest() or {}).get("seconds", float("nan"))


class Writer:
    """What a stage writes with; only the first of several processes really does.

    `seconds_before` is the time that runs cut short have already spent.
    """

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
        self.writes = distributed.rank() == 0
        self.files: dict[str, Path] = {}
        self.notes: dict = {}
        self.seconds_before = 0.0
        self._started = time.monotonic()

    def tensors(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        if self.writes:
            write_tensors(self._path(f"{name}.safetensors"), tensors)

    def table(self, name: str, table: pd.DataFrame) -> None:
        self.text(f"{name}.csv", table_text(name, table))

    def json(self, name: str, value) -> None:
        self.text(f"{name}.json", json.dumps(value, indent=1))

    def text(self, name: str, text: str) -> None:
        if self.writes:
            write_text(self._path(name), text)

    def checkpoint(self, name: str, *, of_each: bool = False) -> Checkpoint:
        """of_each: every process keeps its own, since each holds something else; otherwise the first keeps one for all."""
        if of_each and distributed.world_size() > 1:
            return Checkpoint(self, f"{name}.{distributed.rank()}of{distributed.world_size()}", of_each=True)
        return Checkpoint(self, name)

    def elapsed(self) -> float:
        return self.seconds_before + time.monotonic() - self._started

    def _path(self, name: str) -> Path:
        if not self.files:
            remove(self.artifact.folder / MANIFEST)
        path = self.files[name] = self.artifact.folder / name
        if path.is_dir():
            remove(path)
        return path


def _change(name: str, old, new) -> str:
    digests = [isinstance(value, str) and len(value) == 64 for value in (old, new)]
    return f"{name} changed" if all(digests) else f"{name} {old} -> {new}"


def flat(values: dict, prefix: str = "") -> dict:
    """{"recipe": {"batch_size": 64}} -> {"recipe.batch_size": 64}."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
