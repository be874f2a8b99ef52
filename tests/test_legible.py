"""What is written out, and what a stream of few letters gets."""

import io
import pickle
import sys

import pytest

from osdtw_lib.errors import UserError
from osdtw_lib.legible import ERRORS, legible, speak_legibly


def test_bytes_that_are_no_text_and_control_characters_are_written_out():
    assert legible("caf\udce9 a\nb\tc\x1b[2J \ud800 \u2028") == "caf\\xe9 a\\nb\\tc\\x1b[2J \\ud800 \\u2028"
    for text in ("", "plain", "日本 “é” = <b> \\n", legible("\udcff\r\x00")):
        assert legible(text) == text
    legible("".join(map(chr, range(0x11000)))).encode("utf-8")


def test_bytes_that_python_kept_are_letters_where_they_are_utf8():
    assert legible("F\udcc3\udcbcchse \udce7\udc8b\udcbc caf\udce9\n") == "Füchse 狼 caf\\xe9\\n"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "form “direct” é 日 \\xe9"),
        ("latin-1", 'form "direct" é \\u65e5 \\xe9'),
        ("ascii", 'form "direct" \\xe9 \\u65e5 \\xe9'),
    ],
)
def test_any_text_can_be_printed(monkeypatch, encoding, expected):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    speak_legibly()
    print("form “direct” é 日 \udce9", flush=True)
    assert raw.getvalue().decode(encoding) == expected + "\n"


def test_only_writing_is_helped():
    with pytest.raises(UnicodeDecodeError):
        b"\xe9".decode("utf-8", ERRORS)


def test_an_error_for_the_user_is_one_line_of_text_wherever_it_goes():
    error = pickle.loads(pickle.dumps(UserError("a\nb/caf\udce9.jpg: cut short")))
    assert str(error) == "a\\nb/caf\\xe9.jpg: cut short"
