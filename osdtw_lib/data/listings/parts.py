"""Image files as a Source: the parts put together, their classes told apart, each path led to its file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ...config.paths import PROJECT
from ...config.schema import Files
from ...errors import UserError
from ..contents import Contents
from ..image_files import ImageFiles
from ..protocols import PROTOCOLS, check_protocol, require_part
from ..repeats import same_files
from ..source import Source
from .folders import Part, read_part
from .labels import require_apart, same_name
from .published_paths import way_to_files, without_letter


def files_source(data: Files, index: Path | None = None) -> Source:
    """Training images first, then val and test where they are given; names and sizes are all that is read yet.

    Raises UserError, one line, for a part that cannot be used, classes that do not fit, counts that are not the
    protocol's, or a file that lies in two parts or under two labels.
    """
    root = _place(data.root) if data.root else None
    if root and not root.is_dir():
        raise UserError(f"data.root: {root}: no such folder; a relative path counts from the project's folder")
    given = {key: getattr(data, key) for key in ("train", "val", "test")}
    parts = {key: read_part(key, _place(value), root) for key, value in given.items() if value}
    if data.protocol:
        require_part(data.protocol, data.evaluate, parts)
    own, given_names = _own_names(parts), _names_file(data)
    _one_numbering(parts, own, given_names, data)
    class_names, labels = _classes(parts, given_names or own)
    folders = _class_folders(parts["train"], labels["train"], len(class_names or np.unique(labels["train"])))
    if data.protocol:
        check_protocol(data.protocol, {k: np.bincount(v, minlength=len(folders)) for k, v in labels.items()})
    paths, notes = {}, [note for part in parts.values() for note in part.notes]
    for key, part in parts.items():
        paths[key], note = _paths(part, labels[key], folders if key != "train" else [""] * len(folders))
        notes += [note] if note else []
    part_of = np.repeat(np.arange(len(parts)), [len(part.names) for part in parts.values()])
    images = ImageFiles(
        np.array([p for key in parts for p in paths[key]]),
        np.concatenate([labels[key] for key in parts]),
        np.array([n for part in parts.values() for n in part.names]),
        data.channels,
        Contents(index),
    )
    again = _again(images, part_of, parts, class_names or tuple(map(str, range(len(folders)))))
    if len(again):
        notes += _left_out(images, part_of, parts, again)
        images, part_of = images.subset(np.delete(np.arange(len(images)), again)), np.delete(part_of, again)
    ranges = {key: np.flatnonzero(part_of == number) for number, key in enumerate(parts)}
    title = PROTOCOLS[data.protocol].title if data.protocol else Path(data.train).stem
    by_folders = _names_of(folders)
    apart = bool(class_names) and class_names not in (by_folders, tuple(folders))
    return Source(images, class_names or by_folders, title, ranges, tuple(notes), apart)


def _place(value: str) -> Path:
    """A relative path counts from the project's folder."""
    return PROJECT / Path(value).expanduser()


def _names_file(data: Files) -> list[str]:
    if data.class_names is None:
        return []
    path = _place(data.class_names)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.class_names: {path}: cannot be read as a text, a name a line ({error})") from None
    twice = [name for i, name in enumerate(names) if name in set(names[:i])] if len(set(names)) < len(names) else []
    if twice:
        raise UserError(f"data.class_names: {path}: '{twice[0]}' stands there twice")
    require_apart(f"data.class_names: {path}", names)
    return names


def _own_names(parts: dict[str, Part]) -> list[str]:
    """What the parts call their numbers. Raises UserError where two do not say the same."""
    said = [part for part in parts.values() if part.class_names]
    for part in said:
        both = list(zip(part.class_names, said[0].class_names))
        if part.class_names != said[0].class_names:
            differ = next((f"'{one}' and '{other}'" for one, other in both if one != other), "more of them in one")
            raise UserError(f"{part.where}: its categories are not those of {said[0].where} ({differ}); give the same in both")
    return list(said[0].class_names) if said else []


def _one_numbering(parts: dict[str, Part], own: list[str], given: list[str], data: Files) -> None:
    """Raises UserError where numbers may count by two orders: a list beside annotations whose ids are not 0 .. K - 1, or names
    that the annotations give in another order."""
    said = next((part for part in parts.values() if part.class_ids), None)
    plain = next((part for part in parts.values() if part.numbered and not part.class_ids), None)
    if said and plain and said.class_ids != tuple(range(len(said.class_ids))):
        raise UserError(
            f"{plain.where}: has numbers, and the categories of {said.where} have the ids {said.class_ids[0]} to "
            f"{said.class_ids[-1]}: whether 0 or {said.class_ids[0]} is the first class cannot be told; give annotations for both"
        )
    if given and own and given != own and sorted(given) == sorted(own):
        first = next(one for one, other in zip(given, own) if one != other)
        raise UserError(
            f"data.class_names: {data.class_names}: has the names of {said.where}'s categories in another order (the first "
            f"that differs is '{first}'); names are given by rising id, or leave data.class_names out"
        )


def _classes(parts: dict[str, Part], names: list[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names (none where numbers are all there is) and labels int64 of each part."""
    train = parts["train"]
    words = [part for part in parts.values() if not part.numbered]
    if words and len(words) < len(parts) and not names:
        numbered = next(part for part in parts.values() if part.numbered)
        raise UserError(
            f"{words[0].where}: its classes have names, those of {numbered.where.split(':')[0]} have numbers; "
            "give data.class_names, or the same kind in both"
        )
    for part in words:
        require_apart(part.where, dict.fromkeys(part.labels))
    if words and not names:
        names = sorted(set(train.labels))
    number = {same_name(name): i for i, name in enumerate(names)}
    labels = {}
    for key, part in parts.items():
        if not part.numbered:
            unknown = next((label for label in part.labels if same_name(label) not in number), None)
            if unknown is not None:
                known = "a name in data.class_names" if part is train else "a class of the training part"
                raise UserError(f"{part.where}: class '{unknown}' is not {known}")
        labels[key] = np.array(part.labels if part.numbered else [number[same_name(label)] for label in part.labels], np.int64)
    classes = len(names) or int(labels["train"].max()) + 1
    for key, part in parts.items():
        if labels[key].max() >= classes:
            first = part.names[int(labels[key].argmax())]
            raise UserError(f"{part.where}: label {labels[key].max()} ({first}), but the classes are 0 to {classes - 1}")
    _every_class_trains(train, labels["train"], classes, names)
    return tuple(names), labels


def _every_class_trains(train: Part, labels: np.ndarray, classes: int, names: list[str]) -> None:
    present = np.unique(labels)
    if len(present) < classes:
        gap = int(np.argmax(np.append(present, classes) != np.arange(len(present) + 1)))
        named = f"'{names[gap]}'" if names else str(gap)
        raise UserError(
            f"{train.where}: no training image of class {named} ({classes - len(present)} of {classes} classes have "
            "none); add one, or number the classes without gaps"
        )
    if classes < 2:
        raise UserError(f"{train.where}: one class only; a head and a tail need at least two")


def _class_folders(part: Part, labels: np.ndarray, classes: int) -> list[str]:
    """Of each class (K,), the one folder its images lie in, below what all have in common; "" where it has none of its own."""
    pairs = sorted({(int(label), name.rpartition("/")[0]) for name, label in zip(part.names, labels)})
    folders = [folder for _, folder in pairs]
    if [label for label, _ in pairs] != list(range(classes)) or len(set(folders)) < classes or not all(folders):
        return [""] * classes
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # some absolute, some not
        return [""] * classes
    return [os.path.relpath(folder, common).replace(os.sep, "/") if common else folder for folder in folders]


def _names_of(folders: list[str]) -> tuple[str, ...]:
    short = ["/".join(without_letter(folder.split("/"))) for folder in folders]
    named = all(short) and "." not in short  # a class in the folder that holds the others' has no name of its own
    return tuple(short if named and len(set(short)) == len(short) else map(str, range(len(folders))))


def _paths(part: Part, labels: np.ndarray, folders: list[str]) -> tuple[list[str], str | None]:
    if not part.listed:
        return [f"{part.root}/{name}" for name in part.names], None
    of_each = [folders[label] for label in labels]
    way, note = way_to_files(part.names, of_each, part.root, part.where)
    return [os.path.join(part.root, way(name, folder)) for name, folder in zip(part.names, of_each)], note


def _again(images: ImageFiles, part_of: np.ndarray, parts: dict[str, Part], names: tuple[str, ...]) -> np.ndarray:
    """Indices of images whose file stands there before them, in the same part and class.

    Raises UserError where it stands in another part, or in another class.
    """
    keys, sets = list(parts), same_files(images)
    for other in range(len(keys)):
        for one in range(other):
            both = [m for m in sets if {one, other} <= set(part_of[m])]
            if both:
                first = " = ".join(dict.fromkeys(images.paths[both[0]]))
                raise UserError(
                    f"data.{keys[other]}: {len(both):,} of its images are in data.{keys[one]} too (first: {first}); "
                    "an image belongs to one part"
                )
    torn = [m for m in sets if len(set(images.labels[m])) > 1]
    if torn:
        first = " and ".join(f"{images.paths[i]} as '{names[images.labels[i]]}'" for i in torn[0][:2])
        raise UserError(
            f"data.{keys[part_of[torn[0][0]]]}: {len(torn):,} images have more than one label (first: {first}, "
            "which are one file); take one of them out"
        )
    return np.array([i for m in sets for i in m[1:]], np.int64)


def _left_out(images: ImageFiles, part_of: np.ndarray, parts: dict[str, Part], again: np.ndarray) -> list[str]:
    notes = []
    for number, part in enumerate(parts.values()):
        some = images.names[again[part_of[again] == number]]
        if len(some):
            notes.append(
                f"{part.where}: left out {len(some):,} images that are there already, by another path or a link "
                f"({', '.join(some[:3])}{' ...' if len(some) > 3 else ''})"
            )
    return notes
