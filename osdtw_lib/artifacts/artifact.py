"""outputs/NAME: one folder a stage, written so that a kill at any moment loses nothing and hides nothing.

A stage's key is the sha256 of its own parameters and of the keys of the stages before it. Files are written
under a temporary name and renamed; `manifest.json`, with the key and a checksum of every file, comes last.
A stage is done when the key in its manifest is the one asked for and every file still has its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..backend import distributed
from ..config.schema import PROJECT
from ..errors import UserError

MANIFEST = "manifest.json"
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
        return damage(self.folder, manifest)

    def _changes(self, manifest: dict) -> str:
        old, new = _flat(manifest.get("parameters", {})), _flat(self.parameters)
        changes = [f"{k} {old.get(k, 'unset')} -> {new.get(k, 'unset')}" for k in new | old if old.get(k) != new.get(k)]
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

        In several processes all of them come here; the first alone writes.
        """
        make_folder(self.folder)
        writer = Writer(self)
        if writer.writes:
            (self.folder / MANIFEST).unlink(missing_ok=True)
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
        manifest["checksum"] = _own_checksum(manifest)
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        for pattern in ("*.checkpoint", "*.new", ".*.part"):
            for left_over in self.folder.glob(pattern):
                left_over.unlink()

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Raises UserError where the stage is not done: what is stale or was changed is never read."""
        return read_tensors(self.require().folder / f"{name}.safetensors")

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.require().folder / f"{name}.csv")

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
        self.text(f"{name}.csv", table.to_csv(index=False))

    def json(self, name: str, value) -> None:
        self.text(f"{name}.json", json.dumps(value, indent=1))

    def text(self, name: str, text: str) -> None:
        if self.writes:
            write_text(self._path(name), text)

    def checkpoint(self, name: str, *, of_each: bool = False) -> Checkpoint:
        """of_each: every process keeps its own, since each holds something else; otherwise the first keeps one for all."""
        if of_each and distributed.world_size() > 1:
            return Checkpoint(self, f"{name}.{distributed.rank()}of{distributed.world_size()}", True)
        return Checkpoint(self, name, self.writes)

    def elapsed(self) -> float:
        return self.seconds_before + time.monotonic() - self._started

    def _path(self, name: str) -> Path:
        self.files[name] = self.artifact.folder / name
        return self.files[name]


class Checkpoint:
    """Where a killed run goes on: tensors and a small JSON state in one file, tied to the stage's key.

    The last two are kept: should the newer one turn out damaged, the run goes on from the one before.
    """

    def __init__(self, writer: Writer, name: str, writes: bool):
        self.writer, self.key, self.writes = writer, writer.artifact.key, writes
        folder = writer.artifact.folder
        self.path, self.before = folder / f"{name}.checkpoint", folder / f"{name}.before.checkpoint"

    def require_room(self, size: int) -> None:
        """Raises UserError where the disk has no room for the checkpoints of `size` bytes a training will write."""
        needed = 3 * size  # two are kept, and a third is written before one of them goes
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise UserError(f"{self.path.parent}: {free / 1e9:.2f} GB are free and about {needed / 1e9:.2f} GB needed for "
                            "checkpoints; make room, or set `outputs` to a folder on another disk")

    def save(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        """A checkpoint that cannot be written is said and done without: the training itself goes on."""
        if not self.writes:
            return
        meta = {"key": self.key, "seconds": str(self.writer.elapsed()), "state": json.dumps(state)}
        new = self.path.with_suffix(".new")
        try:
            write_tensors(new, tensors, meta)
        except UserError as error:
            print(f"no checkpoint this time: {error}; it goes on without", flush=True)
            return
        if self.path.exists():
            self.path.replace(self.before)
        new.replace(self.path)

    def load(self) -> tuple[dict[str, torch.Tensor], dict] | None:
        """(tensors, state) of the newest checkpoint that is whole and of this very run, or None."""
        return self._read(self.path) or self._read(self.before)

    def _read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                meta = file.metadata()
                if meta["key"] != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, KeyError, TypeError):
            print(f"{path.name} is damaged and not used", flush=True)
            return None
        self.writer.seconds_before = max(self.writer.seconds_before, float(meta["seconds"]))
        return tensors, json.loads(meta["state"])


def read_manifest(folder: Path) -> dict | None:
    """The manifest in a folder, or None where there is none, it cannot be read, or it was edited."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(manifest, dict) and manifest.get("checksum") == _own_checksum(manifest)
    return manifest if whole else None


def _own_checksum(manifest: dict) -> str:
    values = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def damage(folder: Path, manifest: dict) -> str | None:
    """What is wrong with the files a manifest lists; None where each still has its checksum."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or checksum(path) != expected["sha256"]:
            return f"{name} was changed or cut short after it was written"
    return None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file. Raises UserError where it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or no safetensors file ({error}); fetch or make it again") from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    _replace(path, lambda part: save_file(contiguous, part, metadata))


def write_text(path: Path, text: str) -> None:
    _replace(path, lambda part: part.write_text(text, encoding="utf-8"))


def _replace(path: Path, write) -> None:
    """Write under a temporary name, then rename: the file is the old one or the new one, never half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by an error of its own
        raise UserError(f"{path}: cannot be written ({error}); make room or give rights, then run again") from None
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Create a results folder and prove that it can be written. Raises UserError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test.{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); set `outputs` to a folder you own") from None
    return folder


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "timm", "numpy")}


def git_commit() -> str | None:
    try:
        run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, timeout=10)
        return run.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
