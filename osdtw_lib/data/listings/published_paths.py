"""Where the images of a published list lie: copies of ImageNet and Places differ in their folders, not in their files.

The lists say `train/n01440764/x.JPEG`, `val/n01440764/x.JPEG` or `val/x.JPEG`; `data_256/a/airfield/x.jpg` or
`train/airfield/x.jpg`. The way that leads from a list to the files is looked for once, on a few of its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import UserError

TRIED = 100  # lines, evenly over the list
TOPS = (("train", "data_256", "data_large"), ("val", "val_256", "val_large"))
Way = Callable[[str, str], str]  # (a line's path, its class's folder) -> the path under the root


def way_to_files(names: list[str], folders: list[str], root: Path, where: str) -> tuple[Way, str | None]:
    """How a list's paths lead to files under `root`, and a note where it is not as they are written.

    names (N,): paths of a list; folders (N,): of each one's class in the training list, "" where it has none.
    Raises UserError where no way leads to any of the lines tried.
    """
    tried = np.unique(np.linspace(0, len(names) - 1, min(TRIED, len(names))).astype(int))
    best, found = None, 0
    for way in _ways():
        hits = sum(_exists(root / way(names[i], folders[i])) for i in tried)
        if hits > found:
            best, found = way, hits
        if found == len(tried):
            break
    first = names[tried[0]]
    if best is None:
        raise UserError(
            f"{where}: no image of it lies under {root} (first: {first}, tried {len(tried)} lines and the "
            f"folders other copies have); {_hint(first)}"
        )
    there = best(first, folders[tried[0]])
    return best, None if there == first else f"{where}: {first} was found as {there} under {root}, and so the others"


def _hint(first: str) -> str:
    if "\\" in first and "/" not in first:
        return "its paths are separated by \\, as on Windows; write / in its place"
    return "set data.root to the folder its paths count from"


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a zero byte
        return False


def _ways() -> Iterator[Way]:
    """From the path as written to ones that differ ever more from it."""
    for top in (_same, *map(_other_top, range(3)), _no_top, *(_under(top) for tops in TOPS for top in tops)):
        for middle in (_same, _no_letter, _letter, _dashes, _flat, _in_class_folder, _in_short_folder, _in_dashed_folder):
            yield lambda name, folder, top=top, middle=middle: top(middle(name, folder), folder)


def _same(name: str, folder: str) -> str:
    return name


def _other_top(number: int) -> Way:
    """data_256/... as train/..., val/... as val_256/..., and so on."""

    def way(name: str, folder: str) -> str:
        top, slash, rest = name.partition("/")
        others = next((tops for tops in TOPS if top in tops), None)
        return f"{others[number]}/{rest}" if slash and others else name

    return way


def _no_top(name: str, folder: str) -> str:
    return name.partition("/")[2] or name


def _under(top: str) -> Way:
    return lambda name, folder: f"{top}/{name}"


def _split(name: str) -> tuple[str, list[str], str]:
    """top, folders between, file."""
    parts = PurePosixPath(name).parts
    return (parts[0], list(parts[1:-1]), parts[-1]) if len(parts) > 1 else ("", [], name)


def _joined(top: str, between: list[str], file: str) -> str:
    return "/".join((*([top] if top else []), *between, file))


def without_letter(folders: list[str]) -> list[str]:
    """a, airfield -> airfield."""
    has = len(folders) > 1 and len(folders[0]) == 1 and folders[1].startswith(folders[0])
    return folders[1:] if has else folders


def _no_letter(name: str, folder: str) -> str:
    top, between, file = _split(name)
    return _joined(top, without_letter(between), file)


def _letter(name: str, folder: str) -> str:
    top, between, file = _split(name)
    return _joined(top, [between[0][0], *"/".join(between).replace("-", "/").split("/")], file) if between else name


def _dashes(name: str, folder: str) -> str:
    """a/apartment_building/outdoor -> apartment_building-outdoor."""
    top, between, file = _split(name)
    return _joined(top, ["-".join(without_letter(between))], file) if between else name


def _flat(name: str, folder: str) -> str:
    top, _, file = _split(name)
    return _joined(top, [], file)


def _in_class_folder(name: str, folder: str) -> str:
    top, _, file = _split(name)
    return _joined(top, [folder] if folder else [], file)


def _in_short_folder(name: str, folder: str) -> str:
    return _in_class_folder(name, "/".join(without_letter(folder.split("/"))))


def _in_dashed_folder(name: str, folder: str) -> str:
    return _in_class_folder(name, "-".join(without_letter(folder.split("/"))))
