"""Text that every file, page and terminal can take, whatever bytes a name is made of and whatever letters they know."""

from __future__ import annotations

import codecs
import re
import sys

ERRORS = "legible"  # the name of the way below, for `errors=` of whatever writes text
_CONTROL = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)  # a name with one would end a line, or command the terminal
_UNSEEN = {c: ascii(chr(c))[1:-1] for c in _CONTROL}
_UNSEEN |= {c: f"\\u{c:04x}" for c in range(0xD800, 0xE000)}
_UNSEEN |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # how Python keeps a byte that is no UTF-8
_KEPT_BYTES = re.compile("[\udc80-\udcff]+")
_PLAIN: dict[str, str] = {str(fine): str(plain) for fine, plain in zip(tuple("“”‘’–—−×·"), tuple("\"\"''---x."))} | {
    "±": "+-",
    "→": "->",
    "…": "...",
}


def legible(text: str) -> str:
    """`text` with what cannot be shown written out: a byte that is no UTF-8 as \\xe9, a control character as \\n or \\x1b.

    Bytes that are UTF-8 become their letters, also where the system's language (LC_ALL=C) kept Python from reading them so.
    """
    return _KEPT_BYTES.sub(_as_utf8, text).translate(_UNSEEN)


def _as_utf8(kept: re.Match) -> str:
    return kept[0].encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def speak_legibly(encoding: str | None = None) -> None:
    """Let stdout and stderr write any text: what their encoding (as it is, or this one) lacks comes out in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # one that a caller put in its place may take anything
            stream.reconfigure(encoding=encoding, errors=ERRORS)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(letter, legible(letter)) for letter in lacking)
    return plain.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(ERRORS, _in_ascii)
