"""Several parameter files over made-up GPUs: who runs where, what is said and kept, what a failure or a signal leaves."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ended_processes import still_alive

from osdtw_lib.backend import gpus
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.errors import UserError
from osdtw_lib.report import notebooks as batch
from osdtw_lib.report import several
from osdtw_lib.report.several import Job, groups_of, run_side_by_side

pytestmark = pytest.mark.journey

EIGHT = [str(i) for i in range(8)]


@pytest.mark.parametrize(
    "jobs, size, expected",
    [
        (2, None, ["0123", "4567"]),
        (3, None, ["01", "234", "567"]),
        (8, None, list("01234567")),
        (20, None, list("01234567")),
        (1, None, ["01234567"]),
        (20, 2, ["01", "23", "45", "67"]),
        (1, 3, ["012", "345"]),
        (1, 8, ["01234567"]),
    ],
)
def test_gpus_are_shared_out_in_groups(jobs, size, expected):
    assert ["".join(group) for group in groups_of(EIGHT, jobs, size)] == expected


def test_a_group_larger_than_the_machine_is_refused():
    with pytest.raises(UserError, match="--gpus-per-run 3: 2 GPUs are visible"):
        groups_of(["0", "1"], 5, 3)


def test_gpus_are_called_what_they_are_called_outside(monkeypatch):
    monkeypatch.setattr(gpus.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpus.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible() == ["0", "1"]
    for named, expected in (("4,6", ["4", "6"]), ("GPU-aa, GPU-bb", ["GPU-aa", "GPU-bb"]), ("4,6,99", ["4", "6"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert gpus.visible() == expected


# the processes ----------------------------------------------------------------------------------------------

TELLS = """
import os, sys, time
print("begins", os.environ["CUDA_VISIBLE_DEVICES"], *sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"], flush=True)
time.sleep(0.5)
print("naïve, \\n\\n said on stderr", file=sys.stderr, end="")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def job(tmp_path):
    def make(label, code, *arguments):
        return Job(label, tmp_path / label, (sys.executable, "-c", code, *map(str, arguments)))

    return make


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two processes need two cores")
def test_every_job_runs_on_a_free_group_of_gpus_and_cores_of_its_own(job, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setattr(several, "cores", lambda: 2)
    jobs = [job("a", TELLS, 0), job("bcd", TELLS, 2), job("e", TELLS, 0), job("f", TELLS, 1)]
    assert run_side_by_side(jobs, [["0", "1"], ["2", "3"]]) == dict(zip(jobs, (0, 2, 0, 1)))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split("|")[0] for line in lines} == {"a   ", "bcd ", "e   ", "f   "}
    begins = [line.split("begins ")[1].split() for line in lines if "begins" in line]
    assert [where for where, *_ in begins][:2] in (["0,1", "2,3"], ["2,3", "0,1"])
    assert {where: len({tuple(rest) for w, *rest in begins if w == where}) for where in ("0,1", "2,3")} == {"0,1": 1, "2,3": 1}
    assert len({tuple(cores) for _, *cores, _ in begins}) == 2 and all(len(rest) == 3 and rest[-1] == "1" for rest in begins)
    assert sum("naïve," in line for line in lines) == sum("said on stderr" in line for line in lines) == 4
    assert not [line for line in lines if line.endswith("| ")]


def test_what_a_job_prints_is_kept_in_its_log_also_of_an_earlier_run(job):
    one = job("a", "print('one')")
    for _ in range(2):
        run_side_by_side([one], [["0"]])
    said = one.log.read_text()
    assert said.count("  one\n") == 2 and said.count("on GPU 0 and ") == 2


def test_a_job_whose_folder_cannot_be_made_keeps_no_other_from_running(job, tmp_path, capsys):
    (tmp_path / "a").write_text("in the way")
    jobs = [job("a", ""), job("b", "print('here')")]
    assert list(run_side_by_side(jobs, [["0"]]).values()) == [2, 0]
    said = capsys.readouterr()
    assert said.err.startswith("error: a: ") and said.err.count("\n") == 1 and "b | here" in said.out


def test_a_process_that_outlives_its_job_keeps_nobody_waiting(job):
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])"
    started = time.monotonic()
    jobs = [job("a", code), job("b", "")]
    assert list(run_side_by_side(jobs, [["0"]]).values()) == [0, 0]
    assert time.monotonic() - started < 20


WAITS = """
import os, signal, sys, time
folder = sys.argv[1]
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"{folder}/{os.getpid()}.begun", "w").close()
try:
    time.sleep(300)
except KeyboardInterrupt:
    open(f"{folder}/{os.getpid()}.interrupted", "w").close()
"""

STARTS = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # these tests may run where it is ignored
from osdtw_lib.report import several
several.GRACE = 3.0
folder, code, kinds = sys.argv[1], sys.argv[2], sys.argv[3:]
jobs = [several.Job(f"{i}", Path(folder) / f"{i}", (sys.executable, "-c", code, folder, kind)) for i, kind in enumerate(kinds)]
try:
    several.run_side_by_side(jobs, [["0"], ["1"]])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    "number, kinds, status, told",
    [
        (signal.SIGINT, ("hears", "hears", "never begins"), 130, 2),
        (signal.SIGTERM, ("hears", "hears", "never begins"), 143, 0),
        (signal.SIGINT, ("hears", "deaf"), 130, 1),
        (signal.SIGKILL, ("hears", "deaf"), -signal.SIGKILL, 0),
    ],
)
def test_a_signal_reaches_all_jobs_once_and_none_is_left(tmp_path, number, kinds, status, told):
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", STARTS, str(tmp_path), WAITS, *kinds]
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(begun := list(tmp_path.glob("*.begun"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(number)
    assert process.wait(60) == status
    pids = [path.stem for path in begun]
    assert len(begun) == 2 == len(list(tmp_path.glob("*.begun"))) and not still_alive(pids, 5)
    assert len(list(tmp_path.glob("*.interrupted"))) == told


# the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """machine("0", "1"): these GPUs are visible, and instead of a file's run a line says what would run."""
    code = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], *sys.argv[1:]); sys.exit('bad' in sys.argv[1] and 2)"
    command_of = several.command_of

    def make(*names):
        monkeypatch.setattr(gpus, "visible", lambda: list(names))
        stub = lambda *options: (sys.executable, "-c", code, *command_of(*options)[4:])  # noqa: E731
        monkeypatch.setattr(several, "command_of", stub)

    return make


@pytest.fixture
def indexed(monkeypatch):
    """Which runs the index was written for."""
    folders = []
    monkeypatch.setattr(batch.overview, "write_index", lambda folder: folders.append(folder) or folder.parent / "index.html")
    return folders


def test_several_files_run_over_the_gpus_with_their_options_and_one_index_ends_it(machine, indexed, params, command, tmp_path):
    machine("4", "5")
    files = [params({"name": name}) for name in ("one", "two", "bad")]
    status, out, err = command("run", *files, "--set", "seed=1", "--from", "05", "--verdict", "--quick", "--wait")
    assert status == 2 and err == f"error: {files[2]}: ended with status 2; {tmp_path}/outputs/bad/run.log says why\n"
    options = "--set seed=1 --set verdict.quick=true --from 05 --verdict --wait"
    said = {line.split(" | ")[0].strip(): line.split(" | ")[1] for line in out.splitlines() if "--set" in line}
    assert {name: words.split(" ", 1)[1] for name, words in said.items()} == {
        name: f"{tmp_path}/{name}.yaml {options}" for name in ("one", "two", "bad")
    }
    assert {words.split()[0] for words in said.values()} == {"4", "5"}
    assert len(indexed) == 1 and out.endswith(f"report: {tmp_path}/outputs/index.html\n")


def test_a_file_that_cannot_be_read_keeps_no_other_from_running(machine, indexed, params, command, tmp_path):
    machine("0", "1")
    (tmp_path / "broken.yaml").write_text("name: [")
    status, out, err = command("run", tmp_path / "broken.yaml", params({"name": "one"}))
    assert status == 2 and "broken.yaml" in err and err.count("\n") == 1
    assert f"one | 0,1 {tmp_path}/one.yaml\n" in out and indexed == [tmp_path / "outputs" / "one"]


@pytest.mark.parametrize("number, options, at_once", [(0, (), 0), (1, (), 0), (2, (), 2), (1, ("--gpus-per-run", "1"), 2)])
def test_without_several_gpus_files_run_here_one_after_the_other(
    machine, indexed, params, command, monkeypatch, number, options, at_once
):
    machine(*EIGHT[:number])
    ran = []
    monkeypatch.setattr(batch, "_run_one", lambda run, *_: ran.append(run.config.name))
    status, out, _ = command("run", params({"name": "one"}), params({"name": "two"}), *options)
    assert status == 0 and ran == ([] if at_once else ["one", "two"]) and out.count(" on GPU ") == at_once // 2 * 2


def test_a_file_for_the_cpu_runs_here(machine, indexed, params, command, monkeypatch):
    machine("0", "1")
    ran = []
    monkeypatch.setattr(batch, "_run_one", lambda run, *_: ran.append(run.config.name))
    status, out, _ = command("run", params({"name": "one", "device": "cpu"}), params({"name": "two"}))
    assert status == 0 and ran == ["one"] and "two | 0,1" in out


def test_more_gpus_a_run_than_there_are_is_refused_before_anything_runs(machine, params, refused, tmp_path):
    machine("0", "1")
    assert "--gpus-per-run 3: 2 GPUs are visible" in refused("run", params(), "--gpus-per-run", "3")
    machine()
    assert "--gpus-per-run 1: 0 GPUs are visible" in refused("run", params(), "--gpus-per-run", "1")
    assert not (tmp_path / "outputs").exists()
