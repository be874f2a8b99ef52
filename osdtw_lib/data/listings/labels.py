"""What the labels of a CSV or a list are: numbers of classes, or names of classes; never a guess from one of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

from ...errors import UserError

_WHOLE = re.compile(r"(0|[1-9]\d*)(\.0*)?", re.ASCII)  # 7, and 7.0 as a column with a gap is saved
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)
_MISSING = {"nan", "na", "n/a", "#n/a", "<na>", "null", "none"}  # what programs write for a label that is not there
_DIGITS = 18  # of a number that a label may be: what 64 bits hold


def labels_of(where: str, rows: list[tuple[str, int]], named: bool = True) -> list[int] | list[str]:
    """rows: (label as it is spelt, its line). Numbers where all are whole ones, names as they are spelt otherwise.

    named: names may stand there too (a CSV). Labels with noughts in front, as 00001, are names. Raises UserError with
    the lines where a number is far too large, is missing among numbers, or would be two classes by its spelling.
    """
    lines: dict[str, int] = {}
    for label, line in rows:
        lines.setdefault(label, line)
    if not named:
        numbers = {label: label.lstrip("0") or "0" for label in lines}
    else:
        missing = [label for label in lines if label.lower() in _MISSING]
        others = [label for label in lines if label.lower() not in _MISSING]
        if missing and others and all(_NUMBER.fullmatch(label) for label in others):
            raise UserError(
                f"{where}, line {lines[missing[0]]}: the label is '{missing[0]}' where the others are numbers; "
                "give the image's class, or take the line out"
            )
        negative = [label for label in lines if label.startswith("-") and _WHOLE.fullmatch(label[1:])]
        if negative and all(_WHOLE.fullmatch(label.removeprefix("-")) for label in lines):
            raise UserError(
                f"{where}, line {lines[negative[0]]}: the label is '{negative[0]}'; the classes are numbered from 0 "
                "on, and an image without a class is left out"
            )
        if not all(_WHOLE.fullmatch(label) for label in lines):
            _one_spelling(where, lines)
            return [label for label, _ in rows]
        numbers = {label: label.partition(".")[0] for label in lines}
    for label, number in numbers.items():
        if len(number) > _DIGITS:
            raise UserError(
                f"{where}, line {lines[label]}: '{number[:30]}{'...' * (len(number) > 30)}' is too large for the "
                "number of a class; the classes are numbered 0, 1, 2 ... without gaps"
            )
    return [int(numbers[label]) for label, _ in rows]


def same_name(name: str) -> str:
    """One form of names that look the same: é is one character or two, by the system that a folder was named on."""
    return unicodedata.normalize("NFC", name)


def require_apart(where: str, names: Iterable[str]) -> None:
    """Raises UserError where two names of classes look the same."""
    spelt: dict[str, str] = {}
    for name in names:
        before = spelt.setdefault(same_name(name), name)
        if before != name:
            raise UserError(
                f"{where}: the class '{name}' is there in two spellings that look the same ({ascii(before)} and {ascii(name)}, "
                "by their Unicode form) and would be two classes; write it in one way"
            )


def _one_spelling(where: str, lines: dict[str, int]) -> None:
    """Raises UserError where two names are the same number."""
    spelt: dict[Decimal, str] = {}
    for label in lines:
        if _NUMBER.fullmatch(label):
            before = spelt.setdefault(Decimal(label), label)
            if before != label:
                raise UserError(
                    f"{where}, lines {lines[before]} and {lines[label]}: the labels '{before}' and '{label}' are one "
                    "number and would be two classes; write it in one way"
                )
