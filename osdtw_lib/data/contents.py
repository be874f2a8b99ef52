"""What image files hold, at the price of a stat each: a file is read again only where its size or one of its times has moved.

The index keeps of each path its size, both times, the sha256 of its bytes and what decoded it to its end. Keys are made
of the sha256 alone, so that a copy or a `touch` costs another reading and makes nothing stale. Runs of one `outputs`
share the index; it may be removed at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artifacts.files import make_folder, write_text
from ..errors import UserError
from ..legible import legible
from .in_threads import over_images

SETTLED = 2e9  # nanoseconds: a file changed so shortly before it was read may change once more within the same tick
SHOWN = 3


class Stat(NamedTuple):
    size: int  # -1: no file there
    modified: int
    changed: int  # of the file system's own making, which no `cp -p` sets back
    device: int
    inode: int


class Entry(NamedTuple):
    size: int
    modified: int
    changed: int
    sha256: str
    passed: str  # what decoded these bytes without a fault; "" where nothing has


class Contents:
    """Asks each file once a process; `index` is where it keeps what it read, or None for nowhere."""

    def __init__(self, index: Path | None = None):
        self.index = index
        self._trusting = True
        self._stats: dict[str, Stat] = {}
        self._entries: dict[str, Entry] = {}  # read by this process, or found in the index and looked at
        self._new: set[str] = set()
        self._other: list[str] = []

    def __reduce__(self):
        return Contents, (self.index,)

    def stats(self, paths: Sequence[str]) -> list[Stat]:
        """Of each path; a link is followed."""
        new = [path for path in paths if path not in self._stats]
        if new:
            with ThreadPoolExecutor(16) as pool:  # a network file system answers one question at a time
                for some in pool.map(lambda n: [(p, _stat(p)) for p in new[n::16]], range(16)):
                    self._stats.update(some)
        return [self._stats[path] for path in paths]

    def digest(self, path: str) -> str:
        """sha256 of a file's bytes, "" where there is none to be read. `kept` should have been loaded before threads come."""
        found = self.stats([path])[0]
        if not self._known(path, found):
            self._entries[path] = self._read(path, found, self.kept.get(path))
        return self._entries[path].sha256

    def digests(self, paths: Sequence[str]) -> list[str]:
        """Of each path; what the index does not know is read, in threads."""
        unread = [path for path, found in zip(paths, self.stats(paths)) if not self._known(path, found)]
        try:
            for _ in over_images(lambda number: self.digest(unread[number]), len(unread), "contents"):
                pass
        finally:
            self.save()
        return [self._entries[path].sha256 for path in paths]

    def verify(self, paths: Sequence[str]) -> None:
        """Read every file, also those whose size and times are as the index has them."""
        self._trusting = False
        self._entries.clear()
        self.digests(paths)

    def passed(self, paths: Sequence[str], how: str) -> np.ndarray:
        """bool (N,): whether the bytes there have passed before, by the same `how`."""
        before = {path: e.sha256 for path in paths if (e := self.kept.get(path)) and e.passed == how}
        now = dict(zip(before, self.digests(list(before))))
        return np.array([path in before and now[path] == before[path] for path in paths], bool)

    def set_passed(self, paths: Sequence[str], how: str) -> None:
        for path in paths:
            if self.digest(path):
                self._entries[path] = self._entries[path]._replace(passed=how)
                self._new.add(path)

    def save(self) -> None:
        """Add what was read to the index, which others may have added to meanwhile; say which files have changed."""
        if self._other:
            shown = legible(", ".join(self._other[:SHOWN])) + (" ..." if len(self._other) > SHOWN else "")
            print(f"contents: {len(self._other):,} files hold other bytes than when they were last read: {shown}", flush=True)
            self._other.clear()
        if not self.index or not self._new:
            return
        try:
            make_folder(self.index.parent)
            with (self.index.parent / ".contents.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                except OSError:  # a file system without locks
                    pass
                body = json.dumps(self._load() | {path: self._entries[path] for path in self._new})
                write_text(self.index, f"{_sha256(body)}\n{body}")
        except (OSError, UserError) as error:
            print(f"contents: not kept, so the images will be read again next time ({error})", flush=True)
        self._new.clear()

    @cached_property
    def kept(self) -> dict[str, Entry]:
        """The index as it lay there when first asked for."""
        return self._load()

    def _load(self) -> dict[str, Entry]:
        if not self.index:
            return {}
        try:
            said, _, body = self.index.read_text(encoding="utf-8").partition("\n")
            if said == _sha256(body):
                return {path: Entry(*values) for path, values in json.loads(body).items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError):
            pass
        print(f"contents: {self.index} is damaged and not used; the images are read again", flush=True)
        return {}

    def _known(self, path: str, found: Stat) -> bool:
        """Whether there is an entry, be it one of the index that still holds."""
        if path in self._entries:
            return True
        before = self.kept.get(path)
        if before and self._trusting and found[:3] == before[:3]:
            self._entries[path] = before
            return True
        return False

    def _read(self, path: str, found: Stat, before: Entry | None) -> Entry:
        sha256, now = "", time.time_ns()
        if found.size >= 0:
            try:
                with open(path, "rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                pass
        same = before is not None and before.sha256 == sha256
        if before and not same:
            self._other.append(path)
        if sha256:
            self._new.add(path)
        changed = found.changed if abs(now - found.changed) > SETTLED else 0
        return Entry(found.size, found.modified, changed, sha256, before.passed if same else "")


def _stat(path: str) -> Stat:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return Stat(-1, 0, 0, 0, 0)
    size = found.st_size if stat.S_ISREG(found.st_mode) else -1  # opening a pipe would wait for ever
    return Stat(size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
