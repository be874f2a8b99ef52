"""Several processes: the same training, Fisher and refinement as one; what is printed, what fails, what is interrupted."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from ended_processes import still_alive
from reliability.trials import fork, wait
from several_processes import together
from small_photographs import RECIPE, write_photographs
from small_processes import refuse, stumble, vanish
from small_run import write_small

from osdtw_lib.__main__ import main
from osdtw_lib.backend import distributed
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.errors import UserError
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run

pytestmark = pytest.mark.journey

SHARED = ("start", "stage1", "fisher", "direct", "stage2", "stage3", "baselines/ce", "scores")


def every_shared_stage(path):
    run = Run(load_config(path))
    for stage in ("split", *SHARED[:4], "proxy", "selection", "stage2", "stage3", "baselines", "scores"):
        execute(run, stage)


@pytest.fixture(scope="module")
def alone_and_together(chain, tmp_path_factory):
    """The same parameter file, of photographs, in one process and in two."""
    folder = tmp_path_factory.mktemp("photographs")
    files = {"data": write_photographs(folder), "recipe": RECIPE, "model.channels": 3, "loader_workers": 1}
    files |= {"fisher.batch_size": 8, "baselines": ["ce"]}
    path = write_small(folder, files | {"workers": 2})
    together(every_shared_stage, (path,), 2)
    return chain(files | {"workers": 1}), Run(load_config(path))


@pytest.mark.parametrize("stage", SHARED)
def test_two_processes_make_what_one_makes(alone_and_together, stage):
    tables = [sorted((run.folder / stage).glob("*.csv")) for run in alone_and_together]
    for one, two in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(pd.read_csv(one), pd.read_csv(two), rtol=1e-4, atol=1e-7)
    one, two = (run.artifact(stage) for run in alone_and_together)
    assert one.key == two.key
    for path in one.folder.glob("*.safetensors"):
        expected, found = one.tensors(path.stem), two.tensors(path.stem)
        for name, tensor in expected.items():
            scale = float(tensor.abs().max())
            assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-3 * scale + 1e-12), (path.name, name)


def test_bad_input_met_by_one_process_is_one_line_here():
    with pytest.raises(UserError, match="^no such thing; make one$"):
        distributed.launch(refuse, (1,), 2, "cpu")


def test_a_process_that_fails_leaves_its_traceback_here(capsys):
    with pytest.raises(RuntimeError, match="process 1 .*a stone in the way.*run again"):
        distributed.launch(stumble, (1,), 2, "cpu")
    assert "in stumble" in capsys.readouterr().err


def test_a_process_that_is_killed_is_named():
    with pytest.raises(RuntimeError, match="process 1 .*SIGKILL"):
        distributed.launch(vanish, (1,), 2, "cpu")


def test_signal_handlers_are_as_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    distributed.launch(print, ("hello",), 1, "cpu")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def children(pid):
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout.splitlines()
    rows = [line.split(None, 2) for line in found]
    own = {pid}
    for _ in range(4):
        own |= {int(p) for p, parent, *_ in rows if int(parent) in own}
    return own - {pid}


@pytest.mark.parametrize("number, status, seconds", [(signal.SIGINT, 130, 20), (signal.SIGKILL, -9, 3)])
def test_two_print_once_and_interrupting_stops_both_and_the_next_goes_on(
    params, tmp_path, number, status, seconds, stop_after, capsys
):
    path = params({"workers": 2, "stage0.epochs": 400})
    execute(Run(load_config(path)), "split")
    log = tmp_path / "log.txt"
    pid = fork(lambda: main(["start", str(path)]), log)
    folder = load_config(path).folder / "start"
    deadline = time.monotonic() + 120
    while not list(folder.glob("training.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = children(pid)
    assert len(started) >= 2, log.read_text()
    said = log.read_text().splitlines()
    assert "start: 2 processes start" in said and said.count("start: runs, no result yet") == 1
    assert len(said) == len(set(said)), "no line twice"
    os.kill(pid, number)
    assert wait(pid, 60) == status, log.read_text()
    assert not still_alive(started, seconds)
    run = Run(load_config(path, ["workers=1"]))
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        execute(run, "start")
    assert "resumes after epoch" in capsys.readouterr().out


LAUNCH = "from osdtw_lib.backend import distributed; distributed.launch(print, ('hello',), 2, 'cpu')"


def test_processes_that_still_import_end_with_the_one_that_started_them():
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([sys.executable, "-c", LAUNCH], cwd=PROJECT, env=environment)
    deadline = time.monotonic() + 60
    while len(started := children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # the interpreter itself has to start; torch alone takes longer to import
    process.kill()
    process.wait()
    assert len(started) == 2 and not still_alive(started, 0.5)


POOL = """
from types import SimpleNamespace as Some
from osdtw_lib.stages import side_by_side
from small_networks import waits
side_by_side.torch.set_num_threads(2)
print("starts", flush=True)
side_by_side.everywhere(Some(config=Some(workers="auto", loader_workers=0), device=Some(type="cpu")), waits, [(), ()])
"""


def test_jobs_side_by_side_end_with_the_one_that_started_them():
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
    environment = os.environ | {"PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, "-c", POOL], cwd=PROJECT, stdout=subprocess.PIPE, env=environment)
    said = [process.stdout.readline().strip() for _ in range(3)]  # both have imported torch by then
    started = children(process.pid)  # two, and multiprocessing's own
    process.kill()
    process.wait()
    assert said == [b"starts", b"waits", b"waits"] and len(started) == 3 and not still_alive(started, 3)


def test_torchrun_runs_a_stage_by_hand(params):
    path = params({"recipe.micro_batch": 16, "stage0.epochs": 1})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "osdtw_lib"]
    execute(Run(load_config(path)), "split")
    done = subprocess.run([*launcher, "start", str(path)], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("start: done") == 1
    assert Run(load_config(path)).artifact("start").why_not_done() is None
