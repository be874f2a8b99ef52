"""What a data set holds, before anyone trains on it: counts, classes, files that are odd, the split it would get."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..config.schema import Config
from ..legible import legible
from ..longtail import GROUPS, head_tail_partition, shot_groups
from . import sets
from .image_check import LARGE_SAID, SHOWN, examine, refuse_unusable
from .image_files import LARGE, ImageFiles
from .repeats import part_of, refuse_leaks, repeated
from .source import LabelledImages, Source
from .splits import calibration_notes, set_aside, split_notes

SHAPE_LIMIT = 3.0  # longer side by shorter: the centre square of such an image shows less than a third of it
UNUSUAL = {"CMYK": "in CMYK", "P": "with a palette", "1": "in black and white", "RGBA": "with alpha", "LA": "with alpha"}
UNUSUAL |= dict.fromkeys(("I", "I;16", "I;16B", "I;16L"), "of 16 bits")


def inspect(config: Config, side: int) -> Iterator[str]:
    """The lines of the inspection; side: of the images the network sees, in pixels.

    Raises UserError, at the end of them where possible, if the data cannot be used.
    """
    data = config.data
    source = sets.load_source(data)
    train, test = sets.of(data).split(source, data, config.seed)
    train, aside = set_aside(source, train, config.calibration.images, config.seed)
    yield f"data:      {source.caption(train, test, data.evaluate)}"
    yield from (f"note:      {line}" for line in split_notes(source, data, train, test) + calibration_notes(source, aside))
    yield from _classes(source, source.counts(train), source.counts(test), config.head_share)
    if isinstance(source.images, LabelledImages):
        yield f"images:    {source.images.pixels.shape[2]} x {source.images.pixels.shape[1]} pixels, in memory"
        return
    used = np.sort(np.concatenate((train, test, aside)))
    images = source.images.subset(used)
    found = examine(images)
    yield from _files(images, found, side)
    yield from _repeated(images, part_of(used, (train, test, aside)))
    refuse_unusable(images, found, config.folder)
    refuse_leaks(source.images, (train, test, aside), data, config.folder)
    yield f"fit to train on: ./run_all.sh with this parameter file ({len(images):,} images read to their end)"


def _classes(source: Source, train: np.ndarray, test: np.ndarray, head_share: float) -> Iterator[str]:
    names = source.class_names
    yield f"imbalance: {train.max() / train.min():.1f} (largest class {train.max():,}, smallest {train.min():,} training images)"
    groups = shot_groups(train)
    limits = dict(zip(GROUPS, ("> 100", "20 to 100", "< 20")))
    yield "groups:    " + ", ".join(f"{g} ({limits[g]}) {len(groups[g])} classes" for g in GROUPS)
    for task, members in zip(("head", "tail"), head_tail_partition(train, head_share)):
        chosen = members[np.argsort(-train[members], kind="stable")]
        yield f"{task}:      {len(members)} classes, {train[members].sum():,} images: {_listed([names[k] for k in chosen])}"
    order = np.argsort(-train, kind="stable")
    shown = order if len(order) <= 2 * SHOWN else np.concatenate((order[:SHOWN], order[-SHOWN:]))
    table = pd.DataFrame({"class": [names[k] for k in shown], "training": train[shown], "test": test[shown]})
    yield f"classes:   {'all' if len(shown) == len(order) else f'the {SHOWN} largest and the {SHOWN} smallest'}, images each"
    yield from ("           " + line for line in table.to_string(index=False).splitlines())


def _files(images: ImageFiles, found: pd.DataFrame, side: int) -> Iterator[str]:
    good = found[found["problem"].isna()]
    yield f"files:     {len(images):,}, {images.sizes.clip(0).sum() / 1e6:,.1f} MB; formats: {_counted(good['format'])}"
    if len(good):
        shorter, longer = good[["width", "height"]].min(axis=1), good[["width", "height"]].max(axis=1)
        yield (
            f"sizes:     shorter side {shorter.min()} to {shorter.max()}, median {shorter.median():.0f} pixels; "
            f"the network sees {side} x {side}"
        )
        yield f"pixels:    {_counted(good['mode'])}"
        kind = good["mode"].map(UNUSUAL)
        odd = {
            f"smaller than half of {side} pixels": shorter < side / 2,
            f"more than {SHAPE_LIMIT:g} times as long as wide": longer > SHAPE_LIMIT * shorter,
            f"of {LARGE_SAID}": shorter * longer > LARGE,
            **{what: kind == what for what in kind.dropna().unique()},
        }
        for what, which in odd.items():
            if which.any():
                yield f"odd:       {which.sum():,} {what}: {_listed(images.names[which[which].index], 3)}"
    bad = np.flatnonzero(found["problem"].notna())
    yield f"unusable:  {len(bad):,} missing or unreadable"
    yield from (f"           {legible(images.paths[i])}: {legible(found['problem'][i])}" for i in bad[:SHOWN])
    if len(bad) > SHOWN:
        yield f"           and {len(bad) - SHOWN:,} more"


def _repeated(images: ImageFiles, part: np.ndarray) -> Iterator[str]:
    """Files of the same bytes: between training and test, with two labels, or merely twice."""
    found = repeated(images, part)
    for what, repeats in found.items():
        yield f"repeated:  {len(repeats):,} images {what}: {_listed(list(images.names[repeats[0]]), 2)}"
    if not found:
        yield "repeated:  no two files are the same"


def _counted(values: pd.Series) -> str:
    return ", ".join(f"{value} {n:,}" for value, n in values.value_counts().items()) or "none"


def _listed(values, most: int = SHOWN) -> str:
    first = ", ".join(legible(str(value)) for value in values[:most])
    return first + (f" and {len(values) - most:,} more" if len(values) > most else "")
