"""The published long-tailed protocols, as counts: a list that is not the one it is taken for is noticed on loading."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..longtail import shot_groups


@dataclass(frozen=True)
class Protocol:
    title: str
    images: int
    classes: int
    largest: int
    smallest: int
    groups: tuple[int, int, int] | None  # classes that are many, medium, few; None where nobody says
    val_per_class: int
    test_per_class: int | None  # None: its labels are not public

    @property
    def per_class(self) -> dict[str, int]:
        """Images a class of each balanced part."""
        return {"val": self.val_per_class} | ({"test": self.test_per_class} if self.test_per_class else {})


PROTOCOLS = {
    "imagenet_lt": Protocol("ImageNet-LT", 115_846, 1000, 1280, 5, (385, 479, 136), 20, 50),
    "places_lt": Protocol("Places-LT", 62_500, 365, 4980, 5, (131, 163, 71), 20, 100),
    "inaturalist2018": Protocol("iNaturalist 2018", 437_513, 8142, 1000, 2, None, 3, None),
}


def require_part(name: str, evaluated: str, given: Collection[str]) -> None:
    """Raises UserError where the part that is evaluated is not given, or one is that the protocol does not have."""
    known = PROTOCOLS[name]
    wrong = next((part for part in ("test", "val") if part not in known.per_class and part in {evaluated, *given}), None)
    if wrong:
        others = " or ".join(known.per_class)
        raise UserError(f"data.{wrong}: the labels of {known.title}'s {wrong} part are not public; set data.evaluate: {others}")
    if evaluated not in given:
        raise UserError(f"data.{evaluated}: {known.title} has a {evaluated} list; give it")


def check_protocol(name: str, counts: dict[str, np.ndarray]) -> None:
    """Compare the parts {"train" | "val" | "test": images a class (K,)} with the published counts.

    Raises UserError naming what differs, and which list it looks like where val and test were swapped.
    """
    known = PROTOCOLS[name]
    balanced = known.per_class
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
        for (group, members), expected in zip(shot_groups(found).items(), known.groups or ())
    }
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
