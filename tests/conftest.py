"""One tiny parameter file, and one finished run of it that every test may read and none may change."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # so that child processes add up in the same order as this one

import contextlib
import fcntl
import gc
import io
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import run_every_stage, write_small

from osdtw_lib.__main__ import main
from osdtw_lib.artifacts.checkpoint import Checkpoint
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages.run import Run
from osdtw_lib.training import loop

torch.set_num_threads(1)
if not torch.cuda.is_available():  # else it formats the stack for every kind of accelerator there is not
    torch.manual_seed = torch.default_generator.manual_seed
os.fsync = lambda descriptor: None  # what tests write need not survive a power cut

JOURNEYS = {"journeys", "browser", "reliability"}  # folders of tests that go a whole way; --fast leaves them out


READ_THE_BATCH = (
    "tests/browser/test_index_pages.py",
    "tests/browser/test_static_explorer.py",
    "tests/journeys/test_notebook_run.py",
)


def pytest_collection_modifyitems(items):
    """Journeys first: several processes end together only if none has a long one left."""
    for item in items:
        file = item.path.relative_to(PROJECT).as_posix()
        assert file in READ_THE_BATCH or "batch" not in item.fixturenames, (
            f"{file} reads the notebooks' run: name it in conftest.py"
        )
        if JOURNEYS & set(item.path.relative_to(PROJECT / "tests").parts):
            item.add_marker("journey")
    items.sort(key=lambda item: item.get_closest_marker("journey") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests share one process, for the fixtures of its module; and so do all files that read the notebooks' run."""
    from xdist.scheduler import LoadFileScheduling

    class ByRun(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "batch" if file in READ_THE_BATCH else file

    return ByRun(config, log)


def run_all_stages(params: Path) -> Run:
    return run_every_stage(Run(load_config(params)))


@pytest.fixture(scope="session")
def project() -> Path:
    return PROJECT


@pytest.fixture(scope="session")
def write_params():
    """write_params(folder, {"stage1.epochs": 3}) writes the tiny parameter file into a folder of the caller's."""
    return write_small


TINY = (  # any parameter file, down to seconds; its recipe but for the sizes stays what it is
    "model.image_size=32",
    "model.patch_size=16",
    "model.width=16",
    "model.depth=3",
    "model.heads=2",
    "recipe.batch_size=16",
    "recipe.compile=false",
    "fisher.batch_size=16",
    "direct.images=24",
    "baselines=[balanced_bce]",
    "theory.repetitions=400",
    "theory.images=40",
    *(f"{stage}.epochs=1" for stage in ("stage0", "stage1", "stage2", "stage3")),
    *(f"{stage}.warmup_epochs=0" for stage in ("stage0", "stage1", "stage2")),
)


@pytest.fixture
def train(tmp_path):
    """train("places_lt", "data.root=...") runs every stage, or some, of one of the project's parameter files, made tiny."""

    def call(name: str, *overrides: str, stages: tuple[str, ...] = ()) -> Run:
        config = load_config(PROJECT / "params" / f"{name}.yaml", [*TINY, f"outputs={tmp_path / 'outputs'}", *overrides])
        return run_every_stage(Run(config), stages)

    return call


@pytest.fixture
def params(tmp_path):
    """params({"stage1.epochs": 3}) writes a parameter file of this test's own and returns its path."""
    return lambda changes=None: write_small(tmp_path, changes)


@pytest.fixture
def stop_after(monkeypatch):
    """stop_after(3): a checkpoint after every epoch, and with the third somebody interrupts, who does not come again."""

    def patch(saves: int) -> None:
        save, left = Checkpoint.save, [saves]

        def save_and_stop(self, tensors, state):
            save(self, tensors, state)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
        monkeypatch.setattr(Checkpoint, "save", save_and_stop)

    return patch


@pytest.fixture
def picture():
    """picture(path, size=(24, 16), seed=None, **options of Pillow's save) writes a photograph-like image and returns it."""

    def write(path: Path, size=(24, 16), seed=None, mode="RGB", **options) -> Image.Image:
        rng = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
        image = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        image = image.resize(size, Image.Resampling.BICUBIC).convert(mode)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
        return image

    return write


@pytest.fixture
def tree(tmp_path, picture):
    """tree({"cat": 9, "a dog": 3}, "own") writes so many JPEGs into a folder a class and returns the folder."""

    def write(counts: dict[str, int], name: str = "own", suffix: str = ".jpg") -> Path:
        for label, count in counts.items():
            for i in range(count):
                picture(tmp_path / name / label / f"{label} {i}{suffix}", seed=zlib.crc32(f"{name}/{label}/{i}".encode()))
        return tmp_path / name

    return write


@pytest.fixture
def files_params(params):
    """files_params(train=..., test=...) writes the tiny parameter file over image files and returns its path."""

    def write(changes: dict | None = None, **data) -> Path:
        data = {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
        return params({"data": {"dataset": "files"} | data, "model.channels": 3} | (changes or {}))

    return write


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """chain({...}) runs every stage on the tiny configuration in a folder of its own and returns the Run."""
    return lambda changes=None: run_all_stages(write_small(tmp_path_factory.mktemp("chain"), changes))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Run:
    """Every stage done, by the first of the tests' processes that asks. For reading only."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return run_all_stages(write_small(folder))


@pytest.fixture
def finished_copy(finished, tmp_path):
    """finished_copy({...}) opens a parameter file on a copy of the finished results, free to be damaged."""
    shutil.copytree(finished.folder, tmp_path / "outputs" / "small")
    return lambda changes=None: Run(load_config(write_small(tmp_path, changes)))


@pytest.fixture(scope="session")
def batch(tmp_path_factory):
    """All notebooks of two parameter files, the first broken: (exit status, stdout, stderr, the Run with its pages)."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "broken.yaml").write_text("name: broken\nstage_1: {epochs: 3}\n")
    write_small(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["run", str(folder / "broken.yaml"), str(folder / "small.yaml")])
    assert (folder / "outputs" / "small" / "tables" / "manifest.json").exists(), out.getvalue() + err.getvalue()
    return status, out.getvalue(), err.getvalue(), Run(load_config(folder / "small.yaml"))


@pytest.fixture
def command(capsys):
    """command("split", path) -> (exit status, stdout, stderr) of the command line, in this process."""

    def call(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as leaving:  # argparse leaves this way
            status = leaving.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def refused(command):
    """refused("split", path) -> the one line on stderr; fails unless the exit status is 2."""

    def call(*arguments) -> str:
        status, _, err = command(*arguments)
        assert status == 2, err
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        return err

    return call


@pytest.fixture(scope="session")
def python():
    """python("-c", code) -> the finished process, run from the project's folder."""

    def call(*arguments, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, **options)

    return call


def pytest_collection_finish(session):
    """What is imported by now stays: Python need not look through it for garbage again and again."""
    gc.collect()
    gc.freeze()
