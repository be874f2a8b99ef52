"""Files written whole or not at all, and read back with an error a user can act on."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import UserError
from ..legible import ERRORS


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file. Raises UserError where it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a folder, no rights, and a damaged header's errors of many kinds
        raise UserError(f"{path}: damaged or no safetensors file ({error}); fetch or make it again") from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    _replace(path, lambda part: save_file(contiguous, part, metadata))


def write_text(path: Path, text: str) -> None:
    _replace(path, lambda part: part.write_text(text, encoding="utf-8", errors=ERRORS))


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
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)  # a full disk has room for its name
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); set `outputs` to a folder you own") from None
    return folder


def remove(path: Path) -> None:
    """A file or a folder, whichever lies there, if any. Raises UserError where it may not be removed."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({error.strerror}); give rights, then run again") from None


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
