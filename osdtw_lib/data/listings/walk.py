"""The class folders of a part, and the images below each: every folder once, and nothing left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import UserError
from ..image_files import suffixes

HIDDEN = (".", "__")  # names of folders that no class has: .git, __MACOSX
SHOWN = 3
# photographs that Pillow does not decode by itself: of telephones, and cameras' raw data
UNREAD = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
CONVERT = "photographs in a format that is not read here, to be converted to JPEG or PNG"


class Walk:
    """Reads one part's folder; `left_out` {what: names} is what it did not take.

    refused: where given, what would be raised of a folder or link below this one is put there, and the others are read.
    """

    def __init__(self, where: str, folder: Path, refused: list[UserError] | None = None):
        self.where, self.folder, self.refused = where, folder, refused
        self._top = os.path.join(folder, "")
        self.left_out: dict[str, list[str]] = {}

    def classes(self) -> list[str]:
        """Names of the class folders, in order. Raises UserError as images does."""
        found = []
        for entry in self._entries(self._top):
            if entry.name.startswith(HIDDEN):
                self._leave_out_hidden(entry)
            elif self._kind(entry) != "folder":
                self._leave_out("files beside the class folders", entry.path)
            elif entry.is_symlink() and _lies_in(os.path.realpath(self.folder), os.path.realpath(entry.path)):
                self._leave_out("links to a folder they lie in", entry.path)
            else:
                found.append(entry.name)
        return sorted(found)

    def images(self, label: str) -> list[str]:
        """Paths below the part's folder of a class's images, in order.

        Raises UserError for a folder that cannot be read, and for a link that leads nowhere unless it is named as an
        image is: that one counts among the missing images.
        """
        top = self._top + label
        found: list[str] = []
        seen = {os.path.realpath(top)}
        ways = [(top, os.path.realpath(top))]  # folders to read: as they are named, and where they really are
        links: list[tuple[str, str]] = []  # read when no other is left, so that an image is called by its own place
        while ways or links:
            if not ways:
                place, here = links.pop(0)
                target = os.path.realpath(place)
                if _lies_in(here, target):
                    self._leave_out("links to a folder they lie in", place)
                elif target in seen:
                    self._leave_out("links to a folder that is there already", place)
                else:
                    seen.add(target)
                    ways.append((place, target))
                continue
            place, here = ways.pop()
            for entry in self._entries(place):
                is_image = entry.name.lower().endswith(suffixes())
                kind = "hidden" if entry.name.startswith(".") else self._kind(entry, may_be_missing=is_image)
                if kind == "hidden" or kind == "folder" and entry.name.startswith(HIDDEN):
                    self._leave_out_hidden(entry)
                elif kind == "folder" and entry.is_symlink():
                    links.append((entry.path, here))
                elif kind == "folder":
                    real = os.path.join(here, entry.name)
                    if real not in seen:
                        seen.add(real)
                        ways.append((entry.path, real))
                elif is_image and kind != "other":
                    found.append(self._name(entry.path))
                else:
                    unread = entry.name.lower().endswith(UNREAD)
                    self._leave_out(CONVERT if unread else "files that are no images", entry.path)
        return sorted(found)

    def notes(self) -> tuple[str, ...]:
        some = lambda names: ", ".join(sorted(names)[:SHOWN]) + (" ..." if len(names) > SHOWN else "")  # noqa: E731
        return tuple(f"{self.where}: left out {len(names):,} {what} ({some(names)})" for what, names in self.left_out.items())

    def _kind(self, entry: os.DirEntry, may_be_missing: bool = False) -> str:
        """folder, file, missing or other (a pipe). Raises UserError for a link that leads nowhere, unless it may."""
        try:
            if entry.is_dir():
                return "folder"
            if entry.is_file():
                return "file"
            if not entry.is_symlink() or os.path.exists(entry.path):
                return "other"
        except OSError:  # a link to itself, a disk that does not answer
            pass
        if may_be_missing:
            return "missing"
        target = f" ({os.readlink(entry.path)})" if entry.is_symlink() else ""
        self._refuse(f"{self._name(entry.path)} leads nowhere{target}; connect the disk it lies on, or take the link away")
        return "other"

    def _leave_out_hidden(self, entry: os.DirEntry) -> None:
        is_folder = os.path.isdir(entry.path)
        self._leave_out("folders whose names begin with . or __" if is_folder else "hidden files", entry.path)

    def _leave_out(self, what: str, path: str) -> None:
        self.left_out.setdefault(what, []).append(self._name(path))

    def _name(self, path: str) -> str:
        return path[len(self._top) :]

    def _entries(self, place: str) -> list[os.DirEntry]:
        try:
            with os.scandir(place) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            where = "" if place == self._top else f"{self._name(place)} "
            self._refuse(f"{where}cannot be read ({error.strerror}); give rights, or take it away")
            return []

    def _refuse(self, why: str) -> None:
        error = UserError(f"{self.where}: {why}")
        if self.refused is None:
            raise error from None
        self.refused.append(error)


def _lies_in(place: str, folder: str) -> bool:
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)
