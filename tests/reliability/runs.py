"""Finished tiny runs to try things on: made once, copied for every trial, and what such a copy must end as."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from small_run import write_small

from osdtw_lib.__main__ import main
from osdtw_lib.artifacts.checkpoint import Checkpoint
from osdtw_lib.data.sets import digits
from osdtw_lib.fisher import diagonal
from osdtw_lib.stages import CONTENTS
from osdtw_lib.training import loop

from .pictures import picture, write_pictures
from .trials import Failed

STAGES = [name for name, stage in CONTENTS.items() if not stage.optional]
# three epochs, so that a stage leaves two checkpoints behind
CHANGES = {f"stage{n}.epochs": 3 for n in range(4)}
TOGETHER = CHANGES | {f"stage{n}.epochs": 30 for n in range(4)} | {"workers": 2, "baselines": ["balanced_bce"]}
PICTURES = CHANGES | {"model.channels": 3, "selection": {"form": "direct"}}
TIMES = {"manifest.json", "runtime.csv"}  # hold times: never the same twice
LEFT_OVER = (".part", ".new", ".checkpoint", ".running.ipynb", ".failed.ipynb")
PAGES = (".ipynb", ".html")


@dataclass(frozen=True)
class Answer:
    """What a command said; status None where an exception escaped it."""

    status: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Finished:
    """outputs/small of a run, what its files hold, and the seconds each stage took."""

    folder: Path
    changes: dict
    digests: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    def copy(self, folder: Path, *without: str) -> Path:
        """A copy of the run without the results of some stages; returns its parameter file."""
        shutil.rmtree(folder / "outputs", ignore_errors=True)
        shutil.copytree(self.folder.parent, folder / "outputs", symlinks=True)
        for stage in without:
            shutil.rmtree(folder / "outputs" / "small" / stage, ignore_errors=True)
        return write_small(folder, self.changes)


def prepare() -> None:
    """Read the digits once for all trials of this process and those forked from it."""
    digits.load()


def make(folder: Path, changes: dict = CHANGES) -> Finished:
    """Every stage, in this process."""
    seconds = {}
    params = write_small(folder, changes)
    for stage in STAGES:
        started = time.monotonic()
        answer = call(stage, params)
        if answer.status != 0:
            raise RuntimeError(f"{stage}: the run to try things on cannot be made: {answer.err}")
        seconds[stage] = time.monotonic() - started
    return kept(folder, changes, seconds)


def make_of_pictures(folder: Path) -> Finished:
    write_pictures(folder / "data")
    data = {"dataset": "files", "train": str(folder / "data" / "images"), "test_per_class": 2, "cache": True}
    return make(folder, PICTURES | {"data": data})


def kept(folder: Path, changes: dict, seconds: dict[str, float]) -> Finished:
    """A finished run below `folder`, with an image to predict, said in a file for the trials."""
    picture(folder / "image" / "image.png", random.Random(0))
    run = Finished(folder / "outputs" / "small", changes, digests(folder / "outputs" / "small"), seconds)
    (folder / "finished.json").write_text(json.dumps(asdict(run), default=str), encoding="utf-8")
    return run


def found(folder: Path) -> Finished:
    values = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
    return Finished(**values | {"folder": Path(values["folder"])})


def call(*arguments) -> Answer:
    """python -m osdtw_lib ARGUMENTS, in this process."""
    out, err, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as leaving:
            status = leaving.code
        except BaseException:
            traceback.print_exc()
    return Answer(status, out.getvalue(), err.getvalue())


def sound(answer: Answer, about: str) -> bool:
    """True for status 0, False for one line and status 2; raises Failed for all else."""
    said = answer.out + answer.err
    if "Traceback (most recent call last)" in said or answer.status is None:
        raise Failed(f"{about}: a traceback: {_last(said)}")
    if answer.status == 0:
        return True
    if answer.status != 2 or not answer.err.startswith("error: ") or answer.err.count("\n") != 1 or not answer.err.endswith("\n"):
        raise Failed(f"{about}: status {answer.status} and not one line: {answer.err[-300:]!r}")
    return False


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    inside = [line.strip() for line in lines if "osdtw_lib" in line and 'File "' in line]
    return " | ".join([lines[-1][:200], *inside[-1:]]) if lines else ""


def finish(params: Path, stages=tuple(STAGES), *options: str) -> Answer:
    """The stages one after the other, as far as they go."""
    out = ""
    for stage in stages:
        answer = call(stage, params, *options)
        out += answer.out
        if answer.status != 0:
            return Answer(answer.status, out, f"{answer.err}")
    return Answer(0, out, "")


def victim(params: Path, stages, eager: bool, die_after: int | None = None) -> int:
    """What is killed: the stages; eager: with a checkpoint at every moment one can be; die_after: so many of them."""
    if eager:
        loop.CHECKPOINT_SECONDS, diagonal.CHECKPOINT_SECONDS, diagonal.CHECK_EVERY = 0, 0, 1
    if die_after is not None:
        save, left = Checkpoint.save, [die_after]

        def save_and_die(self, tensors, state):
            save(self, tensors, state)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)

        Checkpoint.save = save_and_die
    answer = finish(params, stages)
    print(answer.out)
    print(answer.err, file=sys.stderr)
    return answer.status if isinstance(answer.status, int) else 70


def digests(folder: Path) -> dict[str, str]:
    """{path: sha256} of the results of a run, without what holds times, without pages."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.parent != folder and p.name not in TIMES]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.suffix not in PAGES}


def same(folder: Path, expected: dict[str, str], within: tuple[str, ...] = ("",)) -> None:
    """Raises Failed unless a run's results (those of the stages `within`) are the expected ones, to the bit."""
    chosen = lambda files: {n: d for n, d in files.items() if n.startswith(within)}  # noqa: E731
    found, wanted = chosen(digests(folder)), chosen(expected)
    for what, names in (
        ("missing", wanted.keys() - found.keys()),
        ("too many", found.keys() - wanted.keys()),
        ("other than it was", {n for n in wanted.keys() & found.keys() if wanted[n] != found[n]}),
    ):
        if names:
            raise Failed(f"{what}: {', '.join(sorted(names)[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}")


def swept(folder: Path) -> None:
    """Raises Failed where a temporary file lies in a run's folder."""
    left = [p for p in folder.rglob("*") if p.name.endswith(LEFT_OVER) or p.name.startswith(".")]
    if left:
        raise Failed(f"left lying: {', '.join(str(p.relative_to(folder)) for p in left[:4])}")


def ends_the_same(params: Path, run: Finished, stages=tuple(STAGES)) -> str | None:
    """Run the stages again: identical results and nothing left lying, or one line; "refused" for the latter. Raises Failed."""
    folder = params.parent / "outputs" / "small"
    if not sound(finish(params, stages), "run again"):
        return "refused"
    same(folder, run.digests)
    swept(folder)
    again = finish(params, stages)
    if not sound(again, "run a second time") or " runs, " in again.out or "processes start" in again.out:
        raise Failed(f"not up to date after it was run again: {again.err or again.out[-200:]}")
    return None
