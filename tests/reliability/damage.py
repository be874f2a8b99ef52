"""Each file of a finished run and each checkpoint damaged: noticed and made again, or said in one line; never used as it is."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from .readers import predicted, reported
from .runs import Finished, ends_the_same, victim
from .trials import Failed, Place, Trial, fork, wait

CHECKPOINTS = {  # stage: (checkpoints written before it is killed, what they are called)
    "start": (2, "training"),
    "stage1": (2, "training"),
    "fisher": (2, "head"),
    "direct": (3, "direct"),
    "stage2": (2, "training"),
    "stage3": (2, "training"),
    "baselines": (2, "ce/training"),
}


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))] if data else data)


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def folder(path: Path, rng: random.Random) -> None:
    """In its stead a folder, with a file in it."""
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")


STAGE, BESIDE = "file of a stage", "page or file beside the stages"
WAYS = {f.__name__: f for f in (flip, cut, empty, remove, folder)}


def trials(long: bool, runs: dict[str, Finished], seed: int) -> list[Trial]:
    found = []
    for name, run in runs.items():
        files = [str(p.relative_to(run.folder.parent)) for p in sorted(run.folder.parent.rglob("*")) if p.is_file()]
        files = [file for file in files if name == "small" or _kind(name, file) != STAGE]  # a stage's are small's once more
        found += [
            Trial(
                f"{_kind(name, file)}: {way}",
                f"damage/{name}/{file}/{way}",
                lambda place, run=run, file=file, way=way: _file(place, run, file, way),
                1.5,
            )
            for file in files
            for way in WAYS
        ]
    small = runs["small"]
    found += [
        Trial(
            f"checkpoint: {way}",
            f"damage/checkpoint/{stage}/{which}/{way}-{n}",
            lambda place, stage=stage, which=which, way=way: _checkpoint(place, small, stage, which, way),
            1.5,
        )
        for stage in CHECKPOINTS
        for which in ("newest", "before", "both")
        for way in WAYS
        for n in range(4 if way == "flip" else 1)
    ]
    if not long:
        chosen = random.Random(f"{seed}/damage")
        found = [t for kind in sorted({t.kind for t in found}) for t in chosen.sample([t for t in found if t.kind == kind], 1)]
    return found


def _kind(run: str, file: str) -> str:
    if file.startswith("cache/"):
        return "decoded cache"
    return BESIDE if run == "notebooks" and len(Path(file).parts) < 3 else STAGE


def _file(place: Place, run: Finished, file: str, way: str) -> str | None:
    params = run.copy(place.folder)
    path = place.folder / "outputs" / file
    WAYS[way](path, place.random)
    shutil.copytree(place.folder / "outputs", place.folder / "reported", symlinks=True)
    reported(place.folder / "reported", run)
    predicted(place.folder / "outputs" / "small", run)
    if (
        path.is_dir() and file.startswith("small/") and file.count("/") == 1
    ):  # what lies beside the stages' folders is not theirs to clear away
        shutil.rmtree(path)
    return ends_the_same(params, run)


def _checkpoint(place: Place, run: Finished, stage: str, which: str, way: str) -> str | None:
    saves, name = CHECKPOINTS[stage]
    params = run.copy(place.folder, stage)
    pid = fork(lambda: victim(params, (stage,), True, saves), place.folder / "log.txt")
    if wait(pid, 60) != -9:
        raise Failed("was not killed after its checkpoints")
    both = [place.folder / "outputs" / "small" / stage / f"{name}{end}" for end in (".checkpoint", ".before.checkpoint")]
    for path in both if which == "both" else both[:1] if which == "newest" else both[1:]:
        WAYS[way](path, place.random)
    return ends_the_same(params, run, (stage,))
