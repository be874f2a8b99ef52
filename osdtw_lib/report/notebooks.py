"""The batch: every notebook of every parameter file through papermill, then the report."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from .. import methods
from ..artifacts.files import make_folder, remove, write_text
from ..artifacts.lock import held
from ..artifacts.manifest import MANIFEST
from ..backend import gpus, reproducible
from ..backend.progress import clock
from ..config.load import dump_config, load_config
from ..config.paths import PROJECT
from ..errors import DivergedError, UserError
from ..evaluation.accuracy_table import how_to_run_missing, shown
from ..legible import legible
from ..stages import CONTENTS, NOTEBOOKS, OPTIONAL, execute
from ..stages.networks import titles_of
from ..stages.pipeline import require
from ..stages.run import Run, module_of
from ..verdict.rows import taken_from_elsewhere
from . import index as overview
from . import page as report
from . import several, written

FOLDER = PROJECT / "notebooks"


def run_all(
    params_files: list[str],
    overrides: list[str] = (),
    first: str | None = None,
    optional: tuple[str, ...] = (),
    wait: bool = False,
    verify: bool = False,
    gpus_per_run: int | None = None,
) -> int:
    """Run the notebooks for each parameter file, from `first` on ("05": redo Stage 2 and what follows), with
    `optional` ones ("08", "09") too; where another process works on the same run, `wait` for its end. verify: every
    image file is read again before.

    Several files on a machine of several GPUs run at once, each on `gpus_per_run` of them, or in as many groups as there
    are files (several.py); otherwise one after the other. A failure of one parameter file is reported and the next still
    runs. Returns the exit status: 0, 2 where the input was bad, 1 for any other failure.
    """
    status, names, jobs = 0, {}, {}
    here = gpus.visible()
    at_once = gpus_per_run is not None or min(len(params_files), len(here)) > 1
    if gpus_per_run:
        several.groups_of(here, 1, gpus_per_run)  # too many are refused before anything runs
    for params_file in params_files:
        try:
            config = load_config(params_file, overrides)
            twin = names.setdefault(config.folder, params_file)
            if twin != params_file:
                raise UserError(f"{params_file}: writes {config.folder}, as {twin} does; give it another `name`")
            _refuse_illegible(config)
            if at_once and config.device != "cpu":
                command = several.command_of(params_file, overrides, first, optional, wait, verify)
                jobs[params_file] = several.Job(Path(params_file).stem, config.folder, command)
                continue
            run = Run(config)
            with held(run.folder, wait):
                _run_one(run, first, optional, verify)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            status = status or 2
        except Exception as error:
            print(f"error: {params_file}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            status = 1
    return max(status, _at_once(jobs, several.groups_of(here, len(jobs), gpus_per_run)), key=[0, 2, 1].index) if jobs else status


def _at_once(jobs: dict[str, several.Job], groups: list[list[str]]) -> int:
    """The exit status of all; one index over all that have ended well, as each wrote it while others were at work."""
    statuses = several.run_side_by_side(list(jobs.values()), groups)
    for folder in {job.folder.parent: job.folder for job, status in statuses.items() if not status}.values():
        print(f"report: {overview.write_index(folder)}", flush=True)
    for params_file, job in jobs.items():
        if statuses[job]:
            where = f"; {job.log} says why" if job.log.exists() else ""
            print(f"error: {params_file}: ended with status {statuses[job]}{where}", file=sys.stderr, flush=True)
    failed = {status for status in statuses.values() if status}
    return 0 if not failed else 2 if failed == {2} else 1


def _refuse_illegible(config) -> None:
    if str(config.folder) != legible(str(config.folder)):  # the path goes into the notebooks, which are UTF-8
        raise UserError(f"outputs: {config.folder}: this path is no text in UTF-8; set `outputs` to a folder whose path is")


def _run_one(run: Run, first: str | None, optional: tuple[str, ...], verify: bool) -> None:
    from .beside import beside

    started, config = time.monotonic(), run.config
    if verify:
        run.verify()
    asked = _optional(first, optional)
    if CONTENTS["verdict"].notebook in asked:
        taken_from_elsewhere(run)  # what cannot be taken is said before anything is removed or trained
    if CONTENTS["ablation"].notebook in asked:
        module_of("ablation").parameters(run)  # and depths that the model has not
    module_of("baselines").before(run)  # and what cannot be trained
    books = _books_from(run, first, optional)
    resolved = run.folder / "params.yaml"
    make_folder(run.folder)
    write_text(resolved, dump_config(config))
    with beside(run, books):
        for number, book in enumerate(books, start=1):
            print(f"\n{config.name}: notebook {book} ({number} of {len(books)})", flush=True)
            with reproducible.environment(config.reproducible):
                _execute(book, resolved, run.folder, forked=run.device.type == "cpu" and not config.reproducible)
    index = overview.write_index(run.folder)
    print(f"\n{config.name}: accuracy (%) on {len(run.test)} test images, {clock(time.monotonic() - started)} in all")
    accuracy = require(run, "tables").table("accuracy")
    said = shown(accuracy, titles_of(run)).to_string(index=False), how_to_run_missing(accuracy, methods.names())
    print("\n".join(filter(None, said)))
    print(f"report: {index}", flush=True)


def _optional(first: str | None, optional: tuple[str, ...]) -> list[str]:
    """The notebooks beside the run that are asked for, by their own options or as the first of --from."""
    return [book for book in OPTIONAL if book.startswith((*optional, *([first] if first else ())))]


def _books_from(run: Run, first: str | None, optional: tuple[str, ...]) -> list[str]:
    """The notebooks to run; with `first`, checks what it stands on and removes what it will make anew."""
    named = _optional(first, ())
    stages_of = NOTEBOOKS | {book: OPTIONAL[book] for book in _optional(first, optional)}
    books = list(stages_of)
    if first is None:
        return books
    chosen = [book for book in books if book.startswith(first) and len(first) > 1]  # 1 is not 10
    if len(chosen) != 1:
        raise UserError(f"--from {first}: no such notebook; one of {', '.join(b[:2] for b in books)}")
    position = books.index(chosen[0])
    before = [book for book in books[:position] if book not in OPTIONAL]
    for book in [] if named else before:  # an optional one makes what it lacks
        for stage in stages_of[book]:
            for name in run.artifacts_of(stage) if not CONTENTS[stage].on_the_way else ():
                execute(run, name, quiet=True) if CONTENTS[stage].light else require(run, name)
        if not (run.folder / f"{book}.html").exists():
            print(f"note: {book} has results but no page yet; ./run_all.sh without --from makes it")
    for book in books[position:]:
        for stage in stages_of[book] if book in named or book not in OPTIONAL else ():  # hours: they know what is stale
            remove(run.folder / stage / MANIFEST if CONTENTS[stage].keeps else run.folder / stage)
    asked = [book for book in books[:position] if book in OPTIONAL]  # by their own option
    return asked + books[position:]


def _execute(book: str, resolved: Path, folder: Path, forked: bool = True) -> None:
    """One notebook through papermill, in a kernel that is forked or started anew. Half-run notebooks are kept as
    BOOK.failed.ipynb, never as BOOK.ipynb."""
    import papermill

    from nbclient.exceptions import DeadKernelError

    from .kernels import ForkedKernels, Kernels

    logging.getLogger("papermill").setLevel(logging.WARNING)
    for name in ("asyncio", "traitlets"):  # what they say of a kernel that is gone is said below
        logging.getLogger(name).disabled = True
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's python3 kernel, not a user-wide one
    half, done, failed = (folder / f"{book}{end}.ipynb" for end in (".running", "", ".failed"))
    failed.unlink(missing_ok=True)
    make_folder(folder)
    try:
        papermill.execute_notebook(
            str(FOLDER / f"{book}.ipynb"),
            str(half),
            parameters={"params_file": str(resolved)},
            kernel_name="python3",
            cwd=str(FOLDER),
            progress_bar=False,
            store_widget_state=False,
            stdout_file=_Indented(),
            extra_arguments=["--IPKernelApp.log_level=50"],  # its warnings and, where it is interrupted, tracebacks are not ours
            kernel_manager_class=ForkedKernels if forked else Kernels,
        )
    except papermill.PapermillExecutionError as error:
        half.rename(failed)
        if error.ename in (UserError.__name__, DivergedError.__name__):
            raise UserError(error.evalue) from None
        raise RuntimeError(f"{book} failed with {error.ename}: {error.evalue}; the notebook as it stopped: {failed}") from None
    except DeadKernelError:
        half.rename(failed)
        raise RuntimeError(
            f"{book}: its process was killed, often for want of memory; the same command goes on from the last "
            f"checkpoint. The notebook as it stopped: {failed}"
        ) from None
    except OSError as error:
        half.unlink(missing_ok=True)  # cut short
        raise UserError(f"{half}: cannot be written ({error}); make room or give rights, then run again") from None
    half.rename(done)
    written.remember(done)
    report.write_page(done, folder / f"{book}.html")


class _Indented:
    """Where papermill sends what cells print."""

    def write(self, text: str) -> None:
        for line in text.splitlines():
            if line.strip():
                print(f"  {line}", flush=True)

    def flush(self) -> None:
        sys.stdout.flush()
