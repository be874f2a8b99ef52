"""What is made beside the notebooks: the same as they would make, waited for where it is not done, and never in the way."""

import fcntl
import os
import shutil
import sys
import threading
import time

import pytest
import torch

from osdtw_lib.artifacts.manifest import MANIFEST
from osdtw_lib.config.load import load_config
from osdtw_lib.models.flops import is_small
from osdtw_lib.report import beside as module
from osdtw_lib.report.beside import STAGES, beside
from osdtw_lib.stages import CONTENTS, NOTEBOOKS, execute
from osdtw_lib.stages.run import Run

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")]
BOOKS = list(NOTEBOOKS)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    processes, forked = [], module.forked
    monkeypatch.setattr(module, "forked", lambda *work: processes.append(forked(*work)) or processes[-1])
    return processes


def undone(finished_copy, changes=None, stages=STAGES[1:]):
    """A run without what is made beside the notebooks (but for the simulation, which takes long), and the manifests it had."""
    run = finished_copy(changes)
    had = {name: run.folder / name / MANIFEST for stage in stages for name in run.artifacts_of(stage)}
    had = {name: path.read_text() for name, path in had.items()}
    for name in had:
        shutil.rmtree(run.folder / name)
    return run, had


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_it_makes_what_the_notebooks_would(finished_copy, two_cores):
    run, had = undone(finished_copy)
    with beside(run, BOOKS):
        until(lambda: not any(run.artifact(name).why_not_done() for name in had))
    for name, manifest in had.items():
        other = (run.folder / name / MANIFEST).read_text()
        assert manifest.split('"files"')[1].split('"notes"')[0] == other.split('"files"')[1].split('"notes"')[0], name
    assert {path.name for path in run.folder.rglob(".*")} == set(), "nothing is left lying"


def test_it_says_a_line_of_what_it_has_made(finished_copy, capsys):
    run = finished_copy()
    shutil.rmtree(run.folder / "baselines" / "ce")
    module._make_all(run.config, list(STAGES))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("  beside: baselines/ce: done in ")


def test_it_waits_for_what_a_stage_stands_on_and_keeps_to_the_notebooks_asked_for(finished_copy, two_cores):
    run, _ = undone(finished_copy, stages=STAGES)
    aside = run.folder.parent / "start"
    (run.folder / "start").rename(aside)
    with beside(run, BOOKS):
        until(lambda: not run.artifact("simulation").why_not_done())
        time.sleep(0.5)
        assert not list(run.folder.glob("baselines/*/*"))
        aside.rename(run.folder / "start")
        until(lambda: not run.artifact("label_dependence").why_not_done())
    shutil.rmtree(run.folder / "simulation")
    with beside(run, ["06_stage3_tables"]):
        time.sleep(2)
    assert not (run.folder / "simulation").exists()


def test_a_notebook_waits_for_what_is_being_made(finished_copy, capsys):
    run, _ = undone(finished_copy)
    folder = run.folder / "baselines" / "ce"
    folder.mkdir(parents=True)
    maker = os.open(folder, os.O_RDONLY)
    fcntl.flock(maker, fcntl.LOCK_EX)
    threading.Timer(1, os.close, (maker,)).start()  # as a process that has died
    started = time.monotonic()
    execute(run, "baselines/ce")
    assert time.monotonic() - started > 0.9
    said = capsys.readouterr().out
    assert "baselines/ce: another process of this run makes it; waits\nbaselines/ce: runs, no result yet" in said


def test_one_that_was_made_meanwhile_is_not_made_again(finished_copy, capsys, tmp_path):
    run = finished_copy()
    folder, aside = run.folder / "simulation", tmp_path / "aside"
    shutil.copytree(folder, aside)
    (folder / MANIFEST).unlink()
    maker = os.open(folder, os.O_RDONLY)
    fcntl.flock(maker, fcntl.LOCK_EX)

    def makes():
        shutil.copy(aside / MANIFEST, folder)
        os.close(maker)

    threading.Timer(1, makes).start()
    execute(run, "simulation")
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" (took")[0] for line in said] == [
        "simulation: another process of this run makes it; waits",
        "simulation: up to date",
    ]


def test_what_goes_wrong_there_goes_wrong_in_the_notebook_alone(finished_copy, two_cores, started):
    run, _ = undone(finished_copy)
    shutil.rmtree(run.folder / "baselines")
    (run.folder / "baselines").write_text("no folder")
    with beside(run, BOOKS):
        started[0].join(60)
        assert started[0].exitcode == 0
    assert run.artifact("label_dependence").why_not_done() is None and (run.folder / "baselines").is_file()


def test_it_ends_with_the_notebooks(finished_copy, two_cores, started):
    run, _ = undone(finished_copy, {"theory.repetitions": 100_000}, STAGES)
    with pytest.raises(KeyboardInterrupt), beside(run, BOOKS):
        until(lambda: (run.folder / "simulation").exists())
        raise KeyboardInterrupt
    assert not started[0].is_alive()


@pytest.mark.parametrize(
    "threads, changes",
    [
        (1, {}),
        (2, {"workers": 2}),
        (2, {"reproducible": True}),
        (2, {"recipe.batch_size": 32_768}),
    ],
)
def test_without_a_core_for_it_or_where_the_stages_use_all_there_is_none(finished_copy, monkeypatch, threads, changes):
    run = finished_copy(changes)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(module, "forked", lambda *_: pytest.fail("a process was started"))
    with beside(run, BOOKS):
        pass


@pytest.mark.parametrize("batch_size, threads", [(32, 1), (32_768, 7)])
def test_small_networks_are_trained_by_one_thread_and_large_ones_by_all(params, monkeypatch, batch_size, threads):
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    run = Run(load_config(params({"recipe.batch_size": batch_size})))
    execute(run, "split")
    assert seen == [threads, 7]


def test_the_digits_are_small_and_the_papers_networks_are_not(project):
    sizes = {name: is_small(load_config(project / "params" / f"{name}.yaml"), 10) for name in ("mnist_lt", "optdigits_lt")}
    assert all(sizes.values())
    assert not is_small(load_config(project / "params" / "imagenet_lt.yaml"), 1000)


def test_methods_are_made_from_the_other_end_and_those_that_stand_on_another_last(finished_copy):
    run = finished_copy({"baselines": ["ce", "crt", "balanced_bce"]})
    assert module._in_order(run, "baselines") == ["baselines/balanced_bce", "baselines/ce", "baselines/crt"]


def test_what_the_first_notebook_begins_with_is_left_to_it(finished_copy, two_cores, monkeypatch):
    asked, run = [], finished_copy()
    monkeypatch.setattr(module, "forked", lambda function, arguments, environment: asked.append(arguments[1]))
    for first in ("01", "06", "07"):
        with beside(run, [book for book in BOOKS if book >= first]):
            pass
    assert asked == [list(STAGES), list(STAGES), ["label_dependence"]]


def test_what_is_made_beside_stands_on_less_than_the_notebook_before_it():
    order = list(CONTENTS)
    for stage in STAGES:
        earlier = [name for name in order[: order.index(stage)] if not CONTENTS[name].light]
        assert set(CONTENTS[stage].needs) < set(earlier)
