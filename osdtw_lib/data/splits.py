"""Which images train and which test: indices (training, test) into a source; every draw has a generator of its own seed
and class."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from ..config.schema import Data, WholeSet
from ..errors import UserError
from ..longtail import exponential_class_counts
from .source import LabelledImages, Source

CALIBRATION = 1  # beside seed and label: a draw of its own


def cut_to_profile(source: Source, data: WholeSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A balanced test set first, where there is none yet; the rest cut to the profile, in label order.

    Raises UserError where a class has fewer images than asked for.
    """
    wanted = profile(data, len(source.class_names))
    held = data.test_per_class
    train, test = [], []
    for label, (members, count) in enumerate(zip(_shuffled(source, seed), wanted)):
        if len(members) < count + held:
            raise UserError(
                f"data.largest: class '{source.class_names[label]}' has {len(members)} images, {count} for training "
                f"{f'and {held} for the test set ' if held else ''}were asked for; ask for fewer"
            )
        test.append(members[:held])
        train.append(members[held : held + count])
    return np.concatenate(train), np.concatenate(test) if held else source.parts["test"]


def profile(data: WholeSet, n_classes: int) -> np.ndarray:
    """Training images a class (K,). Raises UserError where a class would be empty."""
    try:
        return exponential_class_counts(data.largest, data.imbalance_ratio, n_classes)
    except ValueError as error:
        raise UserError(f"data: {error}") from None


def hold_out(source: Source, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`per_class` images of each class, never more than a third of them (so that none loses its last).

    Raises UserError where no test image would be left.
    """
    shuffled = list(_shuffled(source, seed))
    taken = [min(per_class, len(members) // 3) for members in shuffled]
    if not any(taken):
        raise UserError("data.test: no class has the three images that a test image could be held out of; give a test part")
    train = np.concatenate([members[n:] for members, n in zip(shuffled, taken)])
    test = np.concatenate([members[:n] for members, n in zip(shuffled, taken)])
    return np.sort(train), np.sort(test)


def drawn_again(source: Source, train: np.ndarray, test: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many training images of each class as in `train`, drawn from all of the training part that are not in `test`.

    Raises UserError where there is nothing to draw from: all of them train already.
    """
    counts = source.counts(train)
    tests = np.isin(np.arange(len(source.images)), test)
    left = [members[~tests[members]] for members in _shuffled(source, seed)]
    if sum(map(len, left)) == len(train):
        raise UserError("verdict.training_images: drawn: every image that does not test trains already; set kept")
    return np.concatenate([members[:count] for members, count in zip(left, counts)]), test


def set_aside(source: Source, train: np.ndarray, images: float | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, calibration): so many training images of each class, or a share below 1 of them rounded down, set aside.

    images: None sets none aside. Of an array's images none that has a copy is taken, since both could not be told apart; files
    are compared by refuse_leaks. Raises UserError where a class would have none left to train with, and where a share takes
    none of any class.
    """
    if images is None:
        return train, train[:0]
    labels, single, taken = source.images.labels[train], _single(source.images)[train], []
    for label, name in enumerate(source.class_names):
        members = train[labels == label]
        wanted = images if isinstance(images, int) else math.floor(len(members) * images + 1e-9)
        if wanted >= len(members) > 0:
            raise UserError(
                f"calibration.images: class '{name}' has {len(members)} training images and {wanted} were asked for, so that "
                "none would train; ask for fewer, or for a share of each class, for instance 0.2"
            )
        drawn = np.random.default_rng((seed, label, CALIBRATION)).permutation(train[(labels == label) & single])
        taken.append(drawn[:wanted])
    aside = np.sort(np.concatenate(taken))
    if not len(aside):
        raise UserError(f"calibration.images: a share of {images:g} is less than one image of every class; ask for more")
    return train[~np.isin(train, aside)], aside


def _single(images) -> np.ndarray:
    """bool (N,): which images of an array have no copy in it; files all count as single."""
    if not isinstance(images, LabelledImages):
        return np.ones(len(images), bool)
    digests = [hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() for pixels in images.pixels]
    _, which, counts = np.unique(np.array(digests, "S16"), return_inverse=True, return_counts=True)
    return counts[which] == 1


def calibration_notes(source: Source, aside: np.ndarray) -> list[str]:
    """What a user should know about the calibration part, a line each; none where there is no such part."""
    if not len(aside):
        return []
    none = np.flatnonzero(source.counts(aside) == 0)
    lines = [f"calibration part: {len(aside):,} images taken out of the training part, which train nothing"]
    if len(none):
        lines.append(f"no calibration image, so judged with the others of their group: {_named(source, none)}")
    return lines


def _shuffled(source: Source, seed: int):
    """The training part's images of each class, in an order of the class's own."""
    labels = source.images.labels
    part = source.parts.get("train", np.arange(len(labels)))
    by_class = part[np.argsort(labels[part], kind="stable")]
    for label, members in enumerate(np.split(by_class, np.cumsum(source.counts(part))[:-1])):
        yield np.random.default_rng((seed, label)).permutation(members)


def split_notes(source: Source, data: Data, train: np.ndarray, test: np.ndarray) -> list[str]:
    """What a user should know about this split, a line each: what loading noticed, and how the test set came about."""
    counts = source.counts(test)
    lines = [*source.notes]
    if not isinstance(data, WholeSet) and data.evaluate not in source.parts:
        wanted = data.test_per_class
        lines.append(f"no test part: {len(test):,} images held out of the training part, {wanted} a class where it has enough")
        small = np.flatnonzero((counts > 0) & (counts < wanted))
        if len(small):
            lines.append(f"fewer test images, a third of the class: {_named(source, small, counts)}")
    none = np.flatnonzero(counts == 0)
    if len(none):
        lines.append(f"no test image, so left out of every accuracy: {_named(source, none)}")
    formulas = [label for label, name in enumerate(source.class_names) if name.startswith(("=", "+", "-", "@"))]
    if formulas:
        lines.append(f"a spreadsheet may take these names for formulas, so import tables as text: {_named(source, formulas)}")
    return lines


def _named(source: Source, classes: np.ndarray | list[int], counts: np.ndarray | None = None) -> str:
    names = [source.class_names[k] + (f" ({counts[k]})" if counts is not None else "") for k in classes[:10]]
    return ", ".join(names) + (f" and {len(classes) - 10} more classes" if len(classes) > 10 else "")


def index_hash(*arrays: np.ndarray) -> str:
    """sha256 of indices or labels (int64, little endian), one array after another, of a split training first: two people can
    compare splits."""
    return hashlib.sha256(b"".join(array.astype("<i8").tobytes() for array in arrays)).hexdigest()
