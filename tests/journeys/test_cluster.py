"""The Slurm scripts of docs/several-gpus.md with stand-ins for Slurm's commands, and submitit's example where it is installed."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors.torch import load_file

from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages import CONTENTS

PAGE = (PROJECT / "docs" / "several-gpus.md").read_text(encoding="utf-8")
EXAMPLE = PROJECT / "docs" / "examples" / "submit.py"
STANDS_IN = {
    "scontrol": 'case "$1" in show) echo node7; echo node8;; *) echo scontrol "$@" >> "$SAID";; esac',
    "srun": 'echo srun "$@" >> "$SAID"; while [ "${1#--}" != "$1" ]; do shift; done; "$@"',
    "torchrun": 'echo torchrun "$@" >> "$SAID"; case "$*" in *"$LONG"*) sleep 60;; *"$BAD"*) exit 3;; esac',
}
SLURM = {"SLURM_JOB_ID": "1234567", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_PER_TASK": "64"}


@pytest.fixture
def job(tmp_path):
    """job("first line", LONG="stage2") starts the page's script that has this line; (the process, what Slurm was told)."""
    for name, text in STANDS_IN.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    said, started = tmp_path / "said", []

    def start(line, **changes):
        (tmp_path / "job.sh").write_text(_script(line))
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SAID": str(said), "LONG": "none", "BAD": "none"} | SLURM | changes
        process = subprocess.Popen(["bash", tmp_path / "job.sh"], cwd=tmp_path, env=environment, start_new_session=True)
        started.append(process)
        return process, lambda: said.read_text().splitlines() if said.exists() else []

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _script(line: str) -> str:
    """The indented block of the page in which the line stands."""
    lines = PAGE.splitlines()
    at = next(i for i, text in enumerate(lines) if text.strip() == line)
    inside = lambda i: lines[i].startswith("    ") or not lines[i]  # noqa: E731
    first = last = at
    while inside(first - 1):
        first -= 1
    while inside(last + 1):
        last += 1
    return textwrap.dedent("\n".join(lines[first : last + 1])).strip() + "\n"


def test_every_stage_that_several_machines_share_is_started_once_in_order(job):
    process, said = job("#!/bin/bash")
    assert process.wait(60) == 0
    told = [line.split() for line in said() if line.startswith("torchrun")]
    stages = [words[words.index("osdtw_lib") + 1] for words in told]
    assert stages == [name for name in CONTENTS if name in stages]
    done = set()
    for name in stages:  # whatever it needs has been made
        assert set(CONTENTS[name].needs) <= done
        done.add(name)
    assert {name for name, stage in CONTENTS.items() if stage.together} <= done
    assert {word for words in told for word in words if "endpoint" in word} == {"--rdzv-endpoint=node7:24567"}
    assert all(
        "--cpus-per-task=64 --kill-on-bad-exit=1 torchrun --nnodes=2" in line for line in said() if line.startswith("srun")
    )


def test_a_stage_that_fails_ends_the_job(job):
    process, said = job("#!/bin/bash", BAD="stage1")
    assert process.wait(60) == 1
    assert "fisher" not in "".join(said()) and not [line for line in said() if "requeue" in line]


@pytest.mark.parametrize(
    "line, changes, number",
    [
        ("#!/bin/bash", {"LONG": "stage1"}, "1234567"),
        ("#SBATCH --array=0-2", {"SLURM_ARRAY_JOB_ID": "900", "SLURM_ARRAY_TASK_ID": "1"}, "900_1"),
    ],
)
def test_before_the_time_limit_the_job_is_queued_again(job, tmp_path, line, changes, number):
    (tmp_path / "run_all.sh").write_text('#!/bin/bash\necho run_all "$@" >> "$SAID"; sleep 60\n')
    (tmp_path / "run_all.sh").chmod(0o755)
    process, said = job(line, **changes)
    deadline = time.monotonic() + 60
    while not [text for text in said() if "stage1" in text or "run_all params" in text] and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGUSR1)
    assert process.wait(20) == 0
    assert said()[-1] == f"scontrol requeue {number}"
    assert line == "#!/bin/bash" or "run_all params/places_lt.yaml" in said()


def test_two_machines_that_are_this_one_train_as_one_process_does(params, command, tmp_path):
    """As the script starts them, but with one process each and gloo."""
    path = params({"recipe.micro_batch": 16})
    for name in ("split", "start"):
        assert command(name, path, "--set", "name=alone")[0] == 0
    assert command("split", path)[0] == 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-id=1-start"]
    launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "-m", "osdtw_lib", "start", str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    machines = [subprocess.Popen([sys.executable, *launcher], cwd=PROJECT, **pipes) for _ in range(2)]
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert "".join(said).count("start: done") == 1
    one, two = (load_file(tmp_path / "outputs" / name / "start" / "weights.safetensors") for name in ("alone", "small"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, msg=name)


# submitit -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("submit", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_job_is_a_file_or_a_seed_of_the_verdict(example):
    assert example.commands(["a.yaml", "b.yaml"], []) == [[["run", "a.yaml"]], [["run", "b.yaml"]]]
    jobs = example.commands(["params/mnist_lt.yaml"], [0, 3])
    options = ["params/mnist_lt.yaml", "--set", "name=mnist_lt_seed3", "--set", "verdict.seeds=[3]"]
    assert len(jobs) == 2 and jobs[1] == [["split", *options], ["verdict", *options]]


def test_rows_of_seeds_that_were_made_apart_stand_in_one_verdict(example, params, command, tmp_path):
    path = params({"baselines": ["ce"], "verdict.methods": ["ce"], "verdict.seeds": [0, 1], "name": "small"})
    for job in example.commands([str(path)], [0, 1]):
        for words in job:
            status, _, err = command(*words)
            assert status == 0, err
    rows = sorted((tmp_path / "outputs").glob("small_seed*/verdict/rows/*/*/*/row.json"))
    assert command("split", path)[0] == 0
    given = ["--set", f"verdict.others=[{','.join(map(str, rows))}]"]
    status, out, err = command("verdict", path, *given)
    assert status == 0 and "trainings to do" not in out, err
    table = (tmp_path / "outputs" / "small" / "tables" / "verdict_summary_epochs.csv").read_text()
    assert "ce" in table and not (tmp_path / "outputs" / "small" / "baselines").exists()


def test_submitit_runs_the_jobs_here(tmp_path, params):
    pytest.importorskip("submitit", reason="submitit is not installed (pip install -e '.[slurm]')")
    path = params({"stage0.epochs": 1})
    command = [sys.executable, EXAMPLE, str(path), "--verdict-seeds", "0", "--cluster", "debug", "--gpus", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "small_seed0" / "verdict" / "manifest.json").exists()
