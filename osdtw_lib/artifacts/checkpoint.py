"""Where a killed training goes on: tensors and a small state, tied to the stage's key."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import torch
from safetensors import safe_open

from ..backend import distributed
from ..backend.progress import size
from ..errors import UserError
from .files import remove, write_tensors


class Checkpoint:
    """Where a killed run goes on: tensors and a small JSON state in one file, tied to the stage's key.

    The file's header holds a digest of everything else. The last two are kept: should the newer one turn out damaged,
    the run goes on from the one before.
    """

    def __init__(self, writer, name: str, of_each: bool = False):
        # writer: the stage's artifacts.artifact.Writer, for its key, its folder and the time it has spent
        # of_each: this process's own; else the first one writes it, and reads it for all, which ask for it together
        self.writer, self.key, self.of_each = writer, writer.artifact.key, of_each
        folder = writer.artifact.folder
        self.path, self.before = folder / f"{name}.checkpoint", folder / f"{name}.before.checkpoint"

    def require_room(self, bytes_of_one: int) -> None:
        """Raises UserError where the disk has no room for the checkpoints of so many bytes that a training will write."""
        needed = 3 * bytes_of_one  # two are kept, and a third is written before one of them goes
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise UserError(
                f"{self.path.parent}: {size(free)} are free and about {size(needed)} needed for "
                "checkpoints; make room, or set `outputs` to a folder on another disk"
            )

    def save(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        """A checkpoint that cannot be written is said and done without: the training itself goes on."""
        if not (self.of_each or self.writer.writes):
            return
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        about = {"key": self.key, "seconds": str(self.writer.elapsed()), "state": json.dumps(state)}
        new = self.path.with_suffix(".new")
        try:
            write_tensors(new, tensors, about | {"digest": _digest(tensors, about)})
            for path in (self.path, self.before):
                if path.is_dir():
                    remove(path)
            if self.path.exists():
                self.path.replace(self.before)
            new.replace(self.path)
        except (UserError, OSError) as error:
            print(f"no checkpoint this time: {error}; it goes on without", flush=True)

    def load(self) -> tuple[dict[str, torch.Tensor], dict] | None:
        """(tensors, state) of the newest checkpoint that is whole and of this very run, or None.

        What another machine sees of a file just written may be older: one for all is the first process's, sent to them.
        """
        if self.of_each:
            return self._newest()
        found = self._newest() if distributed.rank() == 0 else None
        tensors, state = distributed.tensors_from_first(found and found[0]), distributed.from_first(found and found[1])
        return None if tensors is None else (tensors, state)

    def _newest(self) -> tuple[dict[str, torch.Tensor], dict] | None:
        return self._read(self.path) or self._read(self.before)

    def _read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if about.pop("digest") != _digest(tensors, about):
                raise ValueError
        except FileNotFoundError:
            return None
        except Exception:  # a damaged header raises errors of many kinds
            print(f"{path.name} is damaged and not used", flush=True)
            return None
        if about["key"] != self.key:
            return None
        self.writer.seconds_before = max(self.writer.seconds_before, float(about["seconds"]))
        return tensors, json.loads(about["state"])


def _digest(tensors: dict[str, torch.Tensor], about: dict[str, str]) -> str:
    """CRC-32 of the header's words and of every tensor's name, type, shape and bytes: gigabytes a second."""
    digest = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), digest)
        digest = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), digest)
    return f"{digest:08x}"
