"""What a finished run has measured of a row on its test images: accuracy by group with intervals, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..artifacts.manifest import damage, read_manifest
from ..artifacts.tables import read_table
from ..errors import UserError
from ..evaluation.intervals import wilson
from ..longtail import shot_groups
from ..methods._base import Row
from ..methods.osdtw import ROWS


@dataclass(frozen=True)
class Accuracy:
    """A group's: classes, their training images, test images, % right and its 95 % interval."""

    group: str
    classes: int
    training: int
    test: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """caption, start: of data and starting point, in words; all of it empty where nothing was measured of these weights."""

    caption: str = ""
    start: str = ""
    accuracy: tuple[Accuracy, ...] = ()
    ece: float | None = None  # points of %
    seed: int | None = None


def measured(run: Path, row: Row) -> Measured:
    """Of the row of that run. Raises UserError where its tables were damaged."""
    manifest = _of_these_weights(run, "tables", row)
    if manifest is None:
        return Measured(ece=_ece(run, row))
    table, counts = (read_table(run / "tables" / f"{name}.csv") for name in ("accuracy", "classes"))
    found = table[table["method"] == row.name]
    if not len(found):
        return Measured(ece=_ece(run, row))
    values, training, notes = found.iloc[0], row.problem.class_counts, manifest["notes"]
    groups = shot_groups(training) | {"all": range(len(training))}
    accuracy = []
    for group, classes in groups.items():
        test = int(counts["test_images"].to_numpy()[list(classes)].sum())
        if test:
            right = round(float(values[group]) * test / 100)
            interval = wilson(right, test)
            accuracy.append(
                Accuracy(group, len(classes), int(training[list(classes)].sum()), test, 100 * right / test, *interval)
            )
    return Measured(notes["caption"], notes["start"], tuple(accuracy), _ece(run, row), int(values["seed"]))


def _of_these_weights(run: Path, stage: str, row: Row) -> dict | None:
    """The manifest of what was measured, or None where it is not there or of other weights. Raises UserError where damaged."""
    manifest = read_manifest(run / stage)
    if manifest is None:
        return None
    if wrong := damage(run / stage, manifest):
        raise UserError(f"{run / stage}: {wrong}; run ./run_all.sh --from 06 with its parameter file")
    made = ("stage1", "stage2", "stage3") if row.name in ROWS else (f"baselines/{row.name}",)
    keys = {one: (read_manifest(run / one) or {}).get("key") for one in made}
    return manifest if all(manifest["inputs"].get(one) == key for one, key in keys.items()) else None


def _ece(run: Path, row: Row) -> float | None:
    """Expected calibration error of the row without temperatures, over all test images and under their class mix; None where none
    was measured of these weights."""
    if _of_these_weights(run, "calibration", row) is None:
        return None
    table = read_table(run / "calibration" / "calibration.csv")
    found = table[(table["method"] == row.name) & (table["group"] == "all") & (table["measure"] == "ece_equal_mass")]
    return float(found["before"].iloc[0]) if len(found) else None
