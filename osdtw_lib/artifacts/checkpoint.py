"""Where a killed training goes on: tensors and a small state, tied to the stage's key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import UserError
from .files import write_tensors


class Checkpoint:
    """Where a killed run goes on: tensors and a small JSON state in one file, tied to the stage's key.

    The last two are kept: should the newer one turn out damaged, the run goes on from the one before.
    """

    def __init__(self, writer, name: str, writes: bool):
        # writer: the stage's artifacts.artifact.Writer, for its key, its folder and the time it has spent
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
