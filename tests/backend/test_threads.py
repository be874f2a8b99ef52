"""OpenMP's variables stand before torch is loaded, by whatever way one comes in; threads are counted by what may be used."""

import ast
import json
import math
import os
import sys

import pytest

from osdtw_lib.backend import threads
from osdtw_lib.backend.threads import SPINS, cores, quota
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages import CONTENTS

pytestmark = pytest.mark.journey  # long

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
SAY = f"import os; print(*map(os.environ.get, {VARIABLES}))"
SAY_THREADS = SAY + "; import torch; print(torch.get_num_threads())"
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
HERE = cores()
LIMITED = str(HERE) if HERE < len(CPUS) else "None"  # OMP_NUM_THREADS where these tests run in a container with a quota
linux = pytest.mark.skipif(not CPUS, reason="this system has no affinity")


@pytest.fixture
def outside():
    """The environment of somebody who has set nothing."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}


def spread(tmp_path, group: str, files: dict[str, str]):
    """A root folder whose /proc and /sys say this."""
    said = {"proc/self/cgroup": group} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in said.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


V1 = "4:memory:/job\n3:cpuset:/\n1:cpu,cpuacct:/job/step\n0::/\n"


@pytest.mark.parametrize(
    "group, files, expected",
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),  # the group above limits
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/host/name\n", {"cpu.max": "300000 100000\n"}, 3.0),  # a container that sees another's name
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, math.inf),
        (V1, {"cpu/job/cpu.cfs_quota_us": "250000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 2.5),
        (V1, {"memory/job/cpu.cfs_quota_us": "1000\n", "memory/job/cpu.cfs_period_us": "100000\n"}, math.inf),
        (V1, {"cpu/job/cpu.cfs_quota_us": "250000\n"}, math.inf),  # no period
        ("0::/\n", {"cpu.max": "what is this\n"}, math.inf),
        ("nothing known", {}, math.inf),
    ],
)
def test_the_quota_is_the_least_of_all_groups(tmp_path, group, files, expected):
    assert quota(spread(tmp_path, group, files)) == expected


@linux
def test_cores_are_whole_ones_of_quota_and_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    assert cores(tmp_path / "no such root") == 8
    for allowed, expected in ((250, 2), (50, 1), (1200, 8)):
        assert cores(spread(tmp_path, "0::/\n", {"cpu.max": f"{allowed}000 100000\n"})) == expected


def test_an_import_before_torch_sets_a_short_spin_and_libgomp_takes_it(python, outside):
    code = "import sys, osdtw_lib; assert 'torch' not in sys.modules; " + SAY_THREADS
    done = python("-c", code, env=outside | {"OMP_DISPLAY_ENV": "VERBOSE"})  # it prints what it took as it is loaded
    assert done.stdout.split() == ["None", SPINS, LIMITED, str(HERE)], done.stderr
    assert not sys.platform.startswith("linux") or f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr


@pytest.mark.parametrize("notebook", sorted((PROJECT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_imports_the_package_before_torch(notebook):
    """A kernel that JupyterLab has started from elsewhere has imported nothing yet."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ast.parse("\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code"))
    imports = [node for node in code.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [getattr(node, "module", None) or node.names[0].name for node in imports]
    order = [name.split(".")[0] for name in names if name.split(".")[0] in ("osdtw_lib", "torch", "torchvision", "timm")]
    assert order[0] == "osdtw_lib"


def test_a_module_and_whom_it_starts_have_it(python, outside, tmp_path):
    """A kernel and a launched worker are processes started by one that has imported the package."""
    (tmp_path / "sitecustomize.py").write_text(  # what JupyterLab would be started with
        "import os\nos.execve = lambda file, command, environment: print(command[2], environment['GOMP_SPINCOUNT'])\n"
    )
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    assert python("-m", "osdtw_lib", "lab", env=outside | path).stdout.split() == ["jupyterlab", SPINS]
    code = "import multiprocessing, osdtw_lib; spawn = multiprocessing.get_context('spawn')\n"
    code += f"worker = spawn.Process(target=exec, args=({SAY!r},)); worker.start(); worker.join()"
    assert python("-c", code, env=outside).stdout.split() == ["None", SPINS, LIMITED]


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "77"}, {"OMP_NUM_THREADS": "1"}])
def test_what_the_user_set_stays(python, outside, own):
    said = python("-c", "import osdtw_lib; " + SAY, env=outside | own).stdout.split()
    spins = SPINS if "OMP_NUM_THREADS" in own else own.get("GOMP_SPINCOUNT", "None")
    assert said == [own.get("OMP_WAIT_POLICY", "None"), spins, own.get("OMP_NUM_THREADS", LIMITED)]


@linux
def test_a_process_bound_to_one_core_has_one_thread(python, outside):
    bound = python("-c", "import osdtw_lib; " + SAY_THREADS, env=outside, preexec_fn=lambda: os.sched_setaffinity(0, CPUS[:1]))
    assert bound.stdout.split() == ["None", SPINS, "None", "1"]


@linux
def test_a_quota_of_one_core_gives_one_thread(python, outside, tmp_path):
    root = spread(tmp_path, "0::/\n", {"cpu.max": "100000 100000\n"})
    code = "import pathlib, sys; from osdtw_lib.backend import threads; threads._affinity = lambda: 8; "
    code += f"threads.cores.__defaults__ = (pathlib.Path({str(root)!r}),); threads.prepare(); "
    assert python("-c", code + SAY_THREADS, env=outside).stdout.split() == ["None", SPINS, "1", "1"]


def test_a_stage_of_the_command_line_is_one_of_the_ways_in(python, outside):
    code = f"import runpy, sys; sys.argv = ['osdtw_lib', {next(iter(CONTENTS))!r}, '--help']\n"
    code += (
        "try: runpy.run_module('osdtw_lib', run_name='__main__')\nexcept SystemExit: pass\nassert 'torch' not in sys.modules\n"
    )
    done = python("-c", code + SAY, env=outside)
    assert done.stdout.splitlines()[-1].split() == ["None", SPINS, LIMITED], done.stderr


@pytest.mark.parametrize("said, expected", [("", 5), ("3", 3), ("2,1", 2), ("0", 1), ("all", 5)])
def test_what_works_by_threads_of_its_own_takes_as_many_as_openmp_may(monkeypatch, said, expected):
    monkeypatch.setattr(threads, "cores", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads.allowed() == expected
