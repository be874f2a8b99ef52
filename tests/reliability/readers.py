"""What reads a finished run without making it: prediction and report. Neither shows what is damaged as if it were whole."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import tempfile
from pathlib import Path

from osdtw_lib.errors import UserError
from osdtw_lib.report.index import write_index

from .runs import Finished, call, sound
from .trials import Failed

NAMES = ("small", "whole")  # a run that was damaged, and another beside it


def predicted(damaged: Path, run: Finished) -> None:
    """`predict` on a damaged run: one line, or what it says of the whole one. Raises Failed."""
    image = run.folder.parent.parent / "image" / "image.png"
    answer = call("predict", damaged, image, "--top", 3)
    if sound(answer, "predict") and answer.out != call("predict", run.folder, image, "--top", 3).out:
        raise Failed(f"predict says something else without a word: {answer.out!r}")


def reported(outputs: Path, run: Finished) -> None:
    """The report over a damaged run beside a whole one: its page is as ever, the other's too or it is said. Raises Failed."""
    shutil.copytree(run.folder, outputs / "whole")
    page = outputs / "small" / "index.html"
    if page.is_file():
        page.unlink()
    said = _index(outputs)
    before = pages(run.folder)
    if _text(outputs / "whole" / "index.html") != before["whole"]:
        raise Failed("the page of another run is not as ever")
    if _text(page) != before["small"] and "small" not in said:
        raise Failed("the damaged run's page has changed without a word")


@functools.cache  # called before trials are forked, so that they find it
def pages(run: Path) -> dict[str, str]:
    """What the report says of a run under both names when all is whole."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            shutil.copytree(run, Path(folder) / name)
        _index(Path(folder))
        return {name: _text(Path(folder) / name / "index.html") for name in NAMES}


def _text(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except OSError:
        return ""


def _index(outputs: Path) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for run in (outputs / "whole", outputs / "small"):
            try:
                write_index(run)
            except UserError as error:
                print(f"error: {run.name}: {error}")
            except Exception as error:
                raise Failed(f"the report stops: {type(error).__name__}: {error}") from error
    return said.getvalue()
