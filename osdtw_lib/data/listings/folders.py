"""A part of a data set as it is given: a folder with a folder a class, a CSV, a list, or JSON; each read into a Part."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from .annotations import read_annotations
from .labels import labels_of
from .walk import Walk

PARTS = {"train", "training", "val", "valid", "validation", "test"}  # names that no class has


@dataclass(frozen=True)
class Part:
    """names (N,): paths below `root`, as given; labels (N,): all class numbers (int) or all class names (str).

    class_names, class_ids (K,): what the numbers are called, and what they are in the file, where the part itself says so.
    """

    where: str
    root: Path
    names: list[str]
    labels: list[int] | list[str]
    listed: bool  # in a file, so that the paths may be another copy's
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()

    @property
    def numbered(self) -> bool:
        return isinstance(self.labels[0], int)


def read_part(key: str, place: Path, root: Path | None) -> Part:
    """The part that the key data.KEY names. Raises UserError, one line, where it cannot be used."""
    where = f"data.{key}: {place}"
    if place.is_dir():
        return _folder(where, place)
    if not place.exists():
        raise UserError(
            f"{where}: no such folder or file; give a folder with a folder a class, a CSV (path,label), a list, or annotations "
            "(*.json); a relative path counts from the project's folder"
        )
    is_csv = place.suffix.lower() == ".csv"
    root = root or place.parent
    if place.suffix.lower() == ".json":
        found = read_annotations(where, place)
        return Part(where, root, found.names, found.labels, True, found.notes, found.class_names, found.class_ids)
    return _table(where, root, _csv_rows(where, place) if is_csv else _list_rows(where, place), is_csv)


def _folder(where: str, folder: Path) -> Part:
    """Classes in the order of their names. Hidden files and what is no image are left out and counted."""
    walk = Walk(where, folder)
    classes = walk.classes()
    if not classes:
        raise _refusal(walk, "holds no folder; an own folder is needed for the images of each class")
    if set(map(str.lower, classes)) <= PARTS:
        raise UserError(
            f"{where}: its folders are parts, not classes; set "
            + ", ".join(f"data.{_part_key(c)}: {folder / c}" for c in classes)
        )
    names, labels, empty = [], [], []
    for label in classes:
        found = walk.images(label)
        if not found:
            empty.append(label)
        names += found
        labels += [label] * len(found)
    if empty:
        raise _refusal(
            walk,
            f"no image in the class folder {_first(empty)}; add images (.jpg, .png, .tif, .webp ...) or take the folder away",
        )
    return Part(where, folder, names, labels, False, walk.notes())


def _refusal(walk: Walk, reason: str) -> UserError:
    """What was left out may be what was meant."""
    return UserError("; ".join((f"{walk.where}: {reason}", *(note.removeprefix(f"{walk.where}: ") for note in walk.notes()))))


def _part_key(folder: str) -> str:
    return "train" if folder.lower().startswith("train") else "val" if folder.lower().startswith("val") else "test"


def _lines(where: str, place: Path) -> Iterator[str]:
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError:
        raise UserError(f"{where}: no text in UTF-8; save it so") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None


def _list_rows(where: str, place: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, label): the label is the last field, so that a path may hold spaces."""
    for number, line in enumerate(_lines(where, place), 1):
        fields = line.rsplit(None, 1)
        if not fields:
            continue
        if len(fields) < 2:
            raise UserError(f"{where}, line {number}: a line is `path label`, got '{_short(line)}'; a CSV is named *.csv")
        if not re.fullmatch(r"\d+", fields[1]):
            raise UserError(
                f"{where}, line {number}: the label is a number from 0 on, got '{_short(fields[1])}'; "
                "for names of classes give a CSV (path,label)"
            )
        yield number, fields[0].strip(), fields[1]


def _csv_rows(where: str, place: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, label) by the header; other columns are not looked at."""
    reader = csv.reader(_lines(where, place), strict=True)
    try:
        header = [h.strip().lower() for h in next(reader, [])]
        if not {"path", "label"} <= set(header):
            raise UserError(
                f"{where}: its first line names the columns, `path,label` among them, got '{_short(','.join(header))}'"
            )
        path, label = header.index("path"), header.index("label")
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if len(row) <= max(path, label) or not row[path].strip() or not row[label].strip():
                raise UserError(f"{where}, line {reader.line_num}: path or label is missing")
            yield reader.line_num, row[path].strip(), row[label].strip()
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}: no valid CSV ({error})") from None


def _table(where: str, root: Path, rows: Iterator[tuple[int, str, str]], is_csv: bool) -> Part:
    seen: dict[str, tuple[str, int]] = {}
    twice = []
    for number, name, label in rows:
        before = seen.setdefault(name, (label, number))
        if before[0] != label:
            raise UserError(
                f"{where}, lines {before[1]} and {number}: {name} has label {before[0]} and label {label}; take one of them out"
            )
        if before[1] != number:
            twice.append(number)
    if not seen:
        raise UserError(f"{where}: lists no image")
    labels = labels_of(where, list(seen.values()), is_csv)
    notes = (f"{where}: {len(twice):,} lines repeat an earlier one and are left out (line {_first(twice)})",) if twice else ()
    return Part(where, root, list(seen), labels, True, notes)


def _first(values: list, n: int = 10) -> str:
    return ", ".join(map(str, values[:n])) + (f" and {len(values) - n} more" if len(values) > n else "")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
