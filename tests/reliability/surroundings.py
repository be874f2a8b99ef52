"""The same run in other surroundings: languages, homes, folders, clocks, rights. The files it makes are the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from osdtw_lib.config.paths import PROJECT

from . import mounts
from .kills import CHAIN
from .readers import predicted
from .runs import Finished, finish, same, sound
from .trials import Failed, Place, Trial

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # as older Pythons understand LC_ALL=C
PLACES: dict[str, Callable[[dict], dict]] = {  # the environment, changed
    "LC_ALL=C": lambda e: e | {"LC_ALL": "C"},
    "ASCII": lambda e: e | ASCII,
    "output in latin-1": lambda e: e | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    "LANG=C": lambda e: {k: v for k, v in e.items() if not k.startswith("LC_")} | {"LANG": "C"},
    "no HOME": lambda e: {k: v for k, v in e.items() if k != "HOME"},
    "HOME that is no folder": lambda e: e | {"HOME": "/dev/null/none"},
    "another time zone": lambda e: e | {"TZ": "Pacific/Chatham"},
    "another folder": lambda e: e,
    "a clone under blanks and umlauts": lambda e: e,
}
STAGES = """
import sys
from osdtw_lib.__main__ import main
for stage in sys.argv[2].split(","):
    status = main([stage, sys.argv[1]])
    if status:
        sys.exit(status)
"""


def trials(long: bool, run: Finished, pictures: Finished) -> list[Trial]:
    stages = CHAIN if long else ("split", "start")
    found = [
        Trial(
            f"surroundings: {what}",
            f"surroundings/{what}/{name}",
            lambda place, what=what, of=of: _stages(place, of, what, stages),
            14,
            limit=300,
        )
        for name, of in (("digits", run), ("pictures", pictures))
        for what in PLACES
    ]
    whole = "LC_ALL=C, no HOME, another folder and time zone, a clone under blanks and umlauts"
    if long:
        found.append(
            Trial(
                f"surroundings: the job through the notebooks, {whole}",
                "surroundings/notebooks",
                lambda place: _notebooks(place, run),
                100,
                limit=900,
            )
        )
    else:
        found = [Trial(f"surroundings: {whole}", "surroundings/all", lambda place: _stages(place, pictures, None, stages), 8)]
    found.append(
        Trial(
            "surroundings: outputs that cannot be written",
            "surroundings/read-only/without",
            lambda place: _read_only(place, run, "stage3", "tables"),
            2,
        )
    )
    found.append(
        Trial(
            "surroundings: outputs that cannot be written, all done",
            "surroundings/read-only/done",
            lambda place: _read_only(place, run),
            2,
        )
    )
    return found


def _clone(place: Place) -> Path:
    clone = place.folder / "ein Klon mit Lücken und ß"
    for name in ("osdtw_lib", "notebooks", "params"):
        shutil.copytree(PROJECT / name, clone / name)
    return clone


def _environment(place: Place, what: str | None, project: Path) -> dict:
    environment = dict(os.environ) | {"PYTHONPATH": str(project)}
    for name in PLACES if what is None else [what]:
        if what or name not in ("ASCII", "output in latin-1", "HOME that is no folder"):
            environment = PLACES[name](environment)
    return environment


def _stages(place: Place, run: Finished, what: str | None, stages: tuple[str, ...]) -> None:
    """Some stages in surroundings named in PLACES (None: all at once), from nothing."""
    project = _clone(place) if what is None or "clone" in what else PROJECT
    params = run.copy(place.folder, *(p.name for p in run.folder.iterdir()))
    cwd, given = project, params
    if what is None or what == "another folder":
        cwd = place.folder / "elsewhere"
        cwd.mkdir()
        given = Path("..") / params.name
    done = subprocess.run(
        [sys.executable, "-c", STAGES, str(given), ",".join(stages)],
        cwd=cwd,
        capture_output=True,
        timeout=280,
        env=_environment(place, what, project),
    )
    _went_well(done, place.folder, run, stages)


def _notebooks(place: Place, run: Finished) -> None:
    project = _clone(place)
    params = run.copy(place.folder, *(p.name for p in run.folder.iterdir()))
    values = yaml.safe_load(params.read_text()) | {"outputs": "outputs with ü"}  # counts from the clone
    (project / "here.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [sys.executable, "-m", "osdtw_lib", "run", os.path.relpath(project / "here.yaml", place.folder)],
        cwd=place.folder,
        capture_output=True,
        timeout=880,
        env=_environment(place, None, project),
    )
    shutil.rmtree(place.folder / "outputs")
    if (project / "outputs with ü").is_dir():
        (project / "outputs with ü").rename(place.folder / "outputs")
    _went_well(done, place.folder, run, CHAIN)


def _went_well(done: subprocess.CompletedProcess, folder: Path, run: Finished, stages: tuple[str, ...]) -> None:
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    print(said)
    if done.returncode or "Traceback" in said:
        raise Failed(f"status {done.returncode}: {said[-300:]}")
    same(folder / "outputs" / "small", run.digests, tuple(f"{stage}/" for stage in stages))


def _read_only(place: Place, run: Finished, *without: str) -> str | None:
    params = run.copy(place.folder, *without)
    mounts.alone()
    mounts.read_only(place.folder / "outputs")
    predicted(place.folder / "outputs" / "small", run) if not without else None
    answer = finish(params)
    if sound(answer, "on outputs that cannot be written"):
        if without:
            raise Failed("wrote where nothing can be written")
        return None
    if not without:
        raise Failed(f"all is done, and yet: {answer.err}")
    if str(place.folder / "outputs") not in answer.err:
        raise Failed(f"the line does not name the folder: {answer.err}")
    return "refused"
