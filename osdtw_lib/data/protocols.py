"""The published long-tailed protocols, as counts: a list that is not the one it is taken for is noticed on loading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..longtail import GROUPS, shot_groups


@dataclass(frozen=True)
class Protocol:
    title: str
    images: int
    classes: int
    largest: int
    smallest: int
    groups: tuple[int, int, int]  # classes that are many, medium, few
    val_per_class: int
    test_per_class: int


PROTOCOLS = {
    "imagenet_lt": Protocol("ImageNet-LT", 115_846, 1000, 1280, 5, (385, 479, 136), 20, 50),
    "places_lt": Protocol("Places-LT", 62_500, 365, 4980, 5, (131, 163, 71), 20, 100),
}


def check_protocol(name: str, counts: dict[str, np.ndarray]) -> None:
    """Compare the parts {"train" | "val" | "test": images a class (K,)} with the published counts.

    Raises UserError naming what differs, and which list it looks like where val and test were swapped.
    """
    known = PROTOCOLS[name]
    balanced = {"val": known.val_per_class, "test": known.test_per_class}
    for part, found in counts.items():
        total = f"{found.sum():,} images of {len(found):,} classes"
        looks = next((other for other, n in balanced.items() if len(found) == known.classes and (found == n).all()), None)
        if looks and looks != part:
            raise UserError(
                f"data.{part}: this is the {looks} list of {known.title} ({total}, {balanced[looks]} a class); "
                f"give it as data.{looks}"
            )
        wrong = (
            _train_differences(known, found)
            if part == "train"
            else _differences(
                {
                    "images": (found.sum(), known.classes * balanced[part]),
                    "fewest images a class": (found.min(), balanced[part]),
                    "most images a class": (found.max(), balanced[part]),
                }
            )
        )
        if wrong:
            raise UserError(
                f"data.{part}: not {known.title} as published: {', '.join(wrong)}; take the published list, or leave out "
                "data.protocol if another one is meant"
            )


def _train_differences(known: Protocol, found: np.ndarray) -> list[str]:
    sizes = {
        f"classes in group {group}": (len(members), expected)
        for (group, members), expected in zip(shot_groups(found).items(), known.groups)
    }
    assert len(sizes) == len(GROUPS)
    return _differences(
        {
            "images": (found.sum(), known.images),
            "classes": (len(found), known.classes),
            "images in the largest class": (found.max(), known.largest),
            "images in the smallest class": (found.min(), known.smallest),
        }
        | sizes
    )


def _differences(pairs: dict[str, tuple[int, int]]) -> list[str]:
    return [f"{found:,} {what} instead of {expected:,}" for what, (found, expected) in pairs.items() if found != expected]
