"""Image files and folders of them, predicted in a stream: memory stays bounded, and a bad file stops no other."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.image_files import open_image
from ..data.listings.walk import Walk
from ..errors import UserError
from ..evaluation.class_mix import Estimate
from ..legible import ERRORS
from .predictor import Predictor, load_predictor

BATCH = 32  # images a step of the network
READERS = 4  # threads: as many whole photographs are in memory at once


Answer = list[tuple[str, float]] | UserError
Place = tuple[str, UserError | None]  # a file, or the folder where something could not be read


def predict_files(
    folder: str | Path, places: list[str], top: int = 1, method: str = "osdtw", prior: str | None = None, told=None
) -> Iterator[tuple[str, Answer]]:
    """For each image file its `top` likeliest classes (class, probability), or the error that names it and its reason.

    folder, method: as load_predictor takes them. places: files, or folders: all images below one, as a data set's folders are
    read. In order, as they come. prior: the class mix to expect, uniform, training, or a CSV file class,share; estimate: of
    these very images, so that no answer comes before all are read, whose scores (4 K bytes each) are kept; told(class names,
    estimate) is called then. Raises UserError as load_predictor and Predictor.mix do.
    """
    predictor = load_predictor(folder, method)
    mix = None if prior == "estimate" else predictor.mix(shares_in(prior) if prior and prior.endswith(".csv") else prior)
    scored = _scored(predictor, _files(places))
    if prior == "estimate":
        scored = list(scored)
        rows = [scores for _, scores in scored if not isinstance(scores, UserError)]
        if rows:
            found: Estimate = predictor.estimated(np.stack(rows))
            mix = found.shares
            if told:
                told(predictor.class_names, found)
    for file, scores in scored:
        if isinstance(scores, UserError):
            yield file, scores
        else:
            yield file, _likeliest(predictor.class_names, predictor.probabilities(scores[None], mix)[0], top)


def save(answers: Iterator[tuple[str, Answer]], place: str, every: float = 2.0) -> tuple[int, int]:
    """The answers as a CSV file, a line each: file, rank (from 1), class, probability, error; (how many read, how many not).

    Progress goes to stderr. Written under another name and renamed at its end. Raises UserError where something lies there.
    """
    path, good, bad, last = Path(place), 0, 0, time.monotonic()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if os.path.lexists(path):
            raise UserError(f"--output {place}: is there already; remove it or name another")
        with part.open("x", encoding="utf-8", errors=ERRORS, newline="") as text:
            write = csv.writer(text, lineterminator="\n").writerow
            write(("file", "rank", "class", "probability", "error"))
            for file, found in answers:
                if isinstance(found, UserError):
                    bad += 1
                    write((file, "", "", "", str(found)))
                else:
                    good += 1
                    for rank, (name, probability) in enumerate(found, start=1):
                        write((file, rank, name, f"{probability:.6g}", ""))
                if time.monotonic() - last > every:
                    last = time.monotonic()
                    print(f"{good + bad:,} files", file=sys.stderr, flush=True)
        part.replace(path)
    except OSError as error:
        raise UserError(f"--output {place}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):  # also where there was never room for its name
            part.unlink()
    return good, bad


def shares_in(file: str) -> dict[str, float]:
    """{class: share} of a CSV file with the columns class and share. Raises UserError, one line."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            rows = list(csv.reader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--prior {file}: cannot be read ({error})") from None
    if not rows or [head.strip() for head in rows[0]] != ["class", "share"]:
        raise UserError(f"--prior {file}: its first line is not `class,share`")
    found: dict[str, float] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            name, share = row
            value = float(share)
        except ValueError:
            raise UserError(f"--prior {file}, line {number}: a class and its share are wanted, got {','.join(row)!r}") from None
        if name in found:
            raise UserError(f"--prior {file}, line {number}: class {name!r} is there twice")
        found[name] = value
    return found


def _scored(predictor: Predictor, files: Iterator[Place]) -> Iterator[tuple[str, np.ndarray | UserError]]:
    """(file, its raw scores (K,)), or the error."""
    with ThreadPoolExecutor(READERS) as pool:
        while batch := list(islice(files, BATCH)):
            read = list(pool.map(lambda place: place[1] or _seen(predictor, place[0]), batch))
            whole = [pixels for pixels in read if not isinstance(pixels, UserError)]
            rows = iter(predictor.scores_of(np.stack(whole)) if whole else ())
            for (file, _), pixels in zip(batch, read):
                yield file, pixels if isinstance(pixels, UserError) else next(rows)


def _files(places: list[str]) -> Iterator[Place]:
    for place in places:
        if not os.path.isdir(place):
            yield place, None
            continue
        refused: list[UserError] = []
        names = sorted(map(os.path.normpath, Walk(place, Path(place), refused).images("")))
        yield from ((os.path.join(place, name), None) for name in names)
        yield from ((place, error) for error in refused)
        if not names and not refused:
            yield place, UserError(f"{place}: no image in this folder")


def _seen(predictor: Predictor, file: str) -> np.ndarray | UserError:
    try:
        return predictor.seen(open_image(file))
    except UserError as error:
        return error if str(error).startswith(file) else UserError(f"{file}: {error}")
    except Exception as error:  # a shape that no memory holds once it is resized, and the like
        return UserError(f"{file}: cannot be resized for the network ({error or type(error).__name__})")


def _likeliest(names: tuple[str, ...], row: np.ndarray, top: int) -> list[tuple[str, float]]:
    return [(names[k], float(row[k])) for k in np.argsort(-row)[:top]]
