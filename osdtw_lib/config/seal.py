"""The first line of outputs/NAME/params.yaml: a checksum of what follows, so that a copy that was damaged is not used."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import UserError

MARK = "# sha256 of what follows: "


def sealed(text: str) -> str:
    return f"{MARK}{_digest(text)}\n{text}"


def require_whole(text: str, path: str | Path) -> None:
    """Raises UserError where the first line holds a checksum of something else; a text without one is as good as any."""
    first, _, rest = text.partition("\n")
    if first.startswith(MARK) and first.removeprefix(MARK) != _digest(rest):
        raise UserError(
            f"{path}: was changed after it was written; run again with the parameter file it came from, or, to use "
            "it as it is, delete its first line"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
