"""A small or a read-only disk for one process: a mount in a name space of its own, which ends with it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .trials import NotTried

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # of unshare(2)
READ_ONLY, REMOUNT, BIND, ALL_BELOW, PRIVATE = 1, 32, 4096, 16384, 1 << 18  # of mount(2)
libc = ctypes.CDLL(None, use_errno=True)


def alone() -> None:
    """From here on mounts are this process's and its children's own. Raises NotTried where the system does not let one."""
    users, groups = os.getuid(), os.getgid()
    if libc.unshare(NEW_MOUNTS):
        if libc.unshare(NEW_MOUNTS | NEW_USERS):
            raise NotTried(f"no name space of mounts: {os.strerror(ctypes.get_errno())}")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {users} 1")
        Path("/proc/self/gid_map").write_text(f"0 {groups} 1")
    _mount("none", "/", None, ALL_BELOW | PRIVATE)


def small_disk(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", str(folder), "tmpfs", 0, f"size={size}")


def larger_disk(folder: Path, size: int) -> None:
    _mount("tmpfs", str(folder), None, REMOUNT, f"size={size}")


def read_only(folder: Path) -> None:
    _mount(str(folder), str(folder), None, BIND)
    _mount(str(folder), str(folder), None, BIND | REMOUNT | READ_ONLY)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    given = [None if value is None else os.fsencode(value) for value in (source, target, kind)]
    if libc.mount(*given, ctypes.c_ulong(flags), os.fsencode(options)):
        raise NotTried(f"mount {target}: {os.strerror(ctypes.get_errno())}")
