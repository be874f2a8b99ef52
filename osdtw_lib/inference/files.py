"""Image files and folders of them, predicted in a stream: memory stays bounded, and a bad file stops no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.image_files import open_image
from ..data.listings.walk import Walk
from ..errors import UserError
from .predictor import Predictor, load_predictor

BATCH = 32  # images a step of the network
READERS = 4  # threads: as many whole photographs are in memory at once


Answer = list[tuple[str, float]] | UserError


def predict_files(folder: str | Path, places: list[str], top: int = 1, method: str = "osdtw") -> Iterator[tuple[str, Answer]]:
    """For each image file its `top` likeliest classes (class, probability), or the error that names it and its reason.

    folder, method: as load_predictor takes them. places: files, or folders: all images below one, as a data set's folders are
    read. In order, as they come. Raises UserError as load_predictor does.
    """
    predictor = load_predictor(folder, method)
    files = _files(places)
    with ThreadPoolExecutor(READERS) as pool:
        while batch := list(islice(files, BATCH)):
            read = list(pool.map(lambda file: _seen(predictor, file), batch))
            whole = [pixels for pixels in read if not isinstance(pixels, UserError)]
            rows = iter(predictor.probabilities(np.stack(whole)) if whole else ())
            for file, pixels in zip(batch, read):
                yield str(file), pixels if isinstance(pixels, UserError) else _likeliest(predictor.class_names, next(rows), top)


def _files(places: list[str]) -> Iterator[str | UserError]:
    for place in places:
        if not os.path.isdir(place):
            yield place
            continue
        try:
            names = sorted(map(os.path.normpath, Walk(place, Path(place)).images("")))
        except UserError as error:
            yield error
            continue
        yield from (os.path.join(place, name) for name in names)
        if not names:
            yield UserError(f"{place}: no image in this folder")


def _seen(predictor: Predictor, file: str | UserError) -> np.ndarray | UserError:
    if isinstance(file, UserError):
        return file
    try:
        return predictor.seen(open_image(file))
    except UserError as error:
        return error if str(error).startswith(file) else UserError(f"{file}: {error}")
    except Exception as error:  # a shape that no memory holds once it is resized, and the like
        return UserError(f"{file}: cannot be resized for the network ({error or type(error).__name__})")


def _likeliest(names: tuple[str, ...], row: np.ndarray, top: int) -> list[tuple[str, float]]:
    return [(names[k], float(row[k])) for k in np.argsort(-row)[:top]]
