"""What a run's calibration part says about one row: temperatures for its probabilities, and prediction sets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..artifacts.manifest import damage, read_manifest
from ..errors import UserError
from ..evaluation.calibration import scaled
from ..evaluation.conformal import images_needed, sets, thresholds
from ..methods.osdtw import ROWS

HOW = "set calibration.images in its parameter file, for instance calibration: {images: 0.2}, and run ./run_all.sh"


@dataclass(frozen=True)
class Correction:
    """Without anything: scores stay as they are, and there are no sets, because of `missing`.

    temperatures {group: T}, 1 where none helps; groups {group: class indices}; set_scores: for each class those of its
    calibration images, as conformal.thresholds takes them.
    """

    groups: dict[str, list[int]] = field(default_factory=dict)
    temperatures: dict[str, float] | None = None
    set_scores: list[list[float]] | None = None
    missing: str = "no calibration part was set aside"

    def scores(self, raw: np.ndarray) -> np.ndarray:
        """Raw scores (B, K) over the temperature of the group predicted; before any prior."""
        return scaled(raw, self._groups(), self.temperatures) if self.temperatures else raw

    def require_sets(self, coverage: float) -> None:
        """Raises UserError, one line, where there are no sets, ValueError where coverage is not between 0 and 1."""
        images_needed(coverage)
        if self.set_scores is None:
            raise UserError(f"prediction sets: {self.missing}; {HOW}")

    def sets(self, probabilities: np.ndarray, coverage: float) -> np.ndarray:
        """bool (B, K) of the softmax of raw scores (B, K), which the thresholds were taken from too. Raises as require_sets."""
        self.require_sets(coverage)
        return sets(probabilities, thresholds(self.set_scores or [], self._groups(), coverage)[0])

    def _groups(self) -> dict[str, np.ndarray]:
        return {name: np.array(members, int) for name, members in self.groups.items()}


def load_correction(folder: Path, method: str) -> Correction:
    """Of a row of a finished run; an empty one where stage `calibration` was not made, had no images or saw other weights.

    Raises UserError where its files were damaged.
    """
    at = folder / "calibration"
    manifest = read_manifest(at)
    if manifest is None:
        return Correction()
    if wrong := damage(at, manifest):
        raise UserError(f"{at}: {wrong}; run ./run_all.sh --from 10 with its parameter file")
    seen = ("stage1", "stage2", "stage3") if method in ROWS else (f"baselines/{method}",)
    if any((read_manifest(folder / stage) or {}).get("key") != manifest["inputs"].get(stage) for stage in seen):
        return Correction(missing="the networks were trained again after their calibration")
    about = json.loads((at / "correction.json").read_text(encoding="utf-8"))
    own = about["methods"].get(method)
    return Correction(about["groups"], own["temperatures"], own["set_scores"]) if own else Correction()
