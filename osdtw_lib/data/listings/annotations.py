"""A part as JSON annotations in the layout of COCO, which iNaturalist's competitions use: images, categories, annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError

KEYS = {  # of each list, the keys that are looked at, and what they hold
    "images": {"id": (int, str), "file_name": (str,)},
    "categories": {"id": (int,), "name": (str,)},
    "annotations": {"image_id": (int, str), "category_id": (int,)},
}
KINDS = {(int,): "a whole number", (str,): "a text", (int, str): "a whole number or a text"}


class Annotated(NamedTuple):
    """names (N,): file_name of each image; labels (N,): its class's number; class_names, class_ids (K,): by rising id."""

    names: list[str]
    labels: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    class_ids: tuple[int, ...]


def read_annotations(where: str, place: Path) -> Annotated:
    """One label an image; the classes are the categories, numbered by rising id.

    Raises UserError, one line, for a file that is no such JSON, for an image with no or two annotations, and for an
    annotation of an image or a category that the file does not have.
    """
    lists = _lists(where, place)
    images, categories = (_by_id(where, key, lists[key]) for key in ("images", "categories"))
    _once(where, "images", "file_name", images.values())
    number = {category: k for k, category in enumerate(sorted(categories))}
    label_of: dict[int | str, tuple[int, int]] = {}
    for index, (image, category) in enumerate(_rows(where, "annotations", lists["annotations"])):
        if image not in images:
            raise UserError(f"{where}: annotations[{index}] is of image {image!r}, which is not among its images")
        if category not in number:
            raise UserError(f"{where}: annotations[{index}] is of category {category}, which is not among its categories")
        if image in label_of:
            raise UserError(
                f"{where}: image {image!r} ({images[image]}) has two annotations, annotations[{label_of[image][1]}] and "
                f"annotations[{index}]; an image has one label, so take one of them out"
            )
        label_of[image] = number[category], index
    bare = [image for image in images if image not in label_of]
    if bare:
        raise UserError(
            f"{where}: {len(bare):,} of {len(images):,} images have no annotation (first: {bare[0]!r}, {images[bare[0]]}); "
            "give them one, or take them out"
        )
    class_names, notes = _class_names(where, categories)
    return Annotated(list(images.values()), [label_of[image][0] for image in images], class_names, notes, tuple(number))


def _lists(where: str, place: Path) -> dict[str, list]:
    try:
        content = json.loads(place.read_bytes())
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # broken off, no JSON, no text
        raise UserError(f"{where}: no valid JSON ({str(error)[:100]}); fetch or unpack it again") from None
    for key in KEYS:
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list) or not found:
            what = "an empty list" if found == [] else "no list"
            raise UserError(
                f"{where}: {what} '{key}'; annotations have the lists {', '.join(KEYS)} (those of a test set without "
                "public labels cannot be used)"
            )
    return {key: content[key] for key in KEYS}


def _rows(where: str, key: str, entries: list) -> Iterator[tuple]:
    """The values of an entry's KEYS, entry by entry."""
    wanted = KEYS[key].items()
    for index, entry in enumerate(entries):
        values = []
        for name, kinds in wanted:
            value = entry.get(name) if isinstance(entry, dict) else None
            if type(value) not in kinds or not _usable(value):
                got = "nothing" if value is None else repr(value)[:60]
                raise UserError(f"{where}: {key}[{index}]: '{name}' is {KINDS[kinds]}, got {got}")
            values.append(value)
        yield tuple(values)


def _usable(value: int | str) -> bool:
    """Text with something in it, and no half of a character, which no file's name can have."""
    return isinstance(value, int) or (bool(value.strip()) and value.encode("utf-8", "ignore").decode() == value)


def _by_id(where: str, key: str, entries: list) -> dict:
    found: dict = {}
    for index, (identity, value) in enumerate(_rows(where, key, entries)):
        if identity in found:
            raise UserError(f"{where}: {key}[{index}] has the id {identity!r} of an earlier one; ids are given once")
        found[identity] = value
    return found


def _once(where: str, key: str, name: str, values) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise UserError(f"{where}: {key}[{index}] has the {name} of an earlier one, {value}; take one of them out")
        seen.add(value)


def _class_names(where: str, categories: dict[int, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names in the order of ids, and a note where ids have to stand before them to tell them apart."""
    ordered = sorted(categories.items())
    if len(set(categories.values())) == len(ordered):
        return tuple(name for _, name in ordered), ()
    return tuple(f"{k} {name}" for k, name in ordered), (f"{where}: categories share names, so each is called by id and name",)
