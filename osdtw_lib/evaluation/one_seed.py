"""What a table of one seed cannot tell: how far apart two rows of it must be to mean anything."""

from __future__ import annotations

import numpy as np
from scipy import special

from .intervals import LEVEL

# points that another seed moves a method by on the digits, the median of 34 (docs/verdict_rows_mnist_lt.json)
SEED_DEVIATION = 1.2


def noise_of_one_seed(n_images: int, accuracy: float = 50.0, disagreement: float | None = None) -> float:
    """Points under which a difference of two rows, one seed each, says nothing: 95 % half-width from images alone.

    n_images: test images the accuracy is over, of a group where it is a group's. accuracy: of both rows, in %; 50 is
    the widest. Unpaired: 1.96 standard errors of two independent binomial shares. disagreement: % of images that one
    of the rows had right and the other wrong; where it is known, the paired half-width at no difference (McNemar 1947).
    Seeds vary too, so a difference beyond it may still be one of seeds. Raises ValueError for values out of range.
    """
    if n_images < 1 or not 0 <= accuracy <= 100 or not 0 <= (disagreement or 0) <= 100:
        raise ValueError(f"needs an image and shares in %, got {n_images}, accuracy {accuracy}, disagreement {disagreement}")
    variance = 2 * accuracy * (100 - accuracy) if disagreement is None else 100 * disagreement
    return float(special.ndtri((1 + LEVEL) / 2) * np.sqrt(variance / n_images))


def one_seed(n_images: int, accuracy: float, difference: float | None = None) -> str:
    """What a table of one seed cannot tell, in a sentence; difference: of two rows that a reader will compare, in points."""
    by_images, z = noise_of_one_seed(n_images, accuracy), special.ndtri((1 + LEVEL) / 2)
    by_seeds = np.hypot(by_images, z * np.sqrt(2) * SEED_DEVIATION)
    said = ""
    if difference is not None:
        judged = "more than the first, less than the second" if abs(difference) < by_seeds else "more than both"
        said = f"; these two are {difference:+.1f} points apart, {'undecided' if abs(difference) < by_images else judged}"
    return (
        f"One seed: differences under {by_images:.1f} points mean nothing by the {n_images:,} test images alone, and under "
        f"{by_seeds:.1f} where another seed moves a method by {SEED_DEVIATION} points, as on the digits{said}."
    )
