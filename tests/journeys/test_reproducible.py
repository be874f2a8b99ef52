"""reproducible: true prints one digest, whatever instruction sets and number of threads a process is told to use."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from osdtw_lib.backend import reproducible
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.errors import UserError
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run

# what a launcher or a batch system may have set; oneDNN's and glibc's are no settings of ours and stay as they are forced
NARROW = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NUMBA_CPU_NAME": "generic",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
MIDDLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OMP_NUM_THREADS": "2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ",
}
WIDE = {
    "ATEN_CPU_CAPABILITY": "avx512",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    "MKL_CBWR": "AUTO",
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
}
STAGES = """
import sys
from osdtw_lib.config.load import load_config
from osdtw_lib.stages import CONTENTS, execute
from osdtw_lib.stages.run import Run
run = Run(load_config(sys.argv[1]))
for name in sys.argv[2:] or [name for name, stage in CONTENTS.items() if not stage.optional]:
    execute(run, name)
"""


def computed(params: Path, forced: dict, *stages: str, emulator=()) -> dict[str, str]:
    """{file: digest} of what the stages (all by default) make in a process started as `run` starts a notebook's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in reproducible.SETTINGS:
            patch.delenv(name, raising=False)
        for name, value in forced.items():
            patch.setenv(name, value)
        config = load_config(params)
        with reproducible.environment(config.reproducible):
            command = [*emulator, sys.executable, "-c", STAGES, str(params), *stages]
            done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    return digests(config.folder)


def digests(folder: Path) -> dict[str, str]:
    files = [f for kind in ("*.safetensors", "*.csv", "selection.json") for f in sorted(folder.rglob(kind))]
    files = [f for f in files if f.name != "runtime.csv"]  # seconds
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def changed(one: dict, other: dict) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if one[name] != other[name]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, write_params):
    params = write_params(tmp_path_factory.mktemp("reference"), {"reproducible": True})
    return params, computed(params, {})


@pytest.mark.parametrize("forced", [NARROW, MIDDLE, WIDE], ids=["narrow, 1 thread", "middle, 2 threads", "wide, 2 threads"])
def test_every_stage_comes_out_the_same(reference, params, forced):
    _, expected = reference
    assert len(expected) > 30
    assert changed(expected, computed(params({"reproducible": True}), forced)) == []


def test_without_it_they_differ(params):
    stages = "split", "start"
    run = Run(load_config(params({"name": "one"})))  # in this process: with what its processor has
    for stage in stages:
        execute(run, stage)
    other = computed(params({"name": "other"}), NARROW, *stages)
    assert "start/autoencoder.safetensors" in changed(digests(run.folder), other)


def test_a_stage_by_itself_starts_again_with_the_settings(reference, params):
    _, expected = reference
    path = params({"reproducible": True})
    for stage in ("split", "start"):
        command = [sys.executable, "-m", "osdtw_lib", stage, str(path)]
        done = subprocess.run(command, cwd=PROJECT, env=os.environ | WIDE, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    found = digests(load_config(path).folder)
    assert found.keys() > {"start/weights.safetensors", "start/curves.csv"}
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-x86_64 to be another processor")
def test_another_makers_processor_comes_out_the_same(reference, params):
    emulator = ("qemu-x86_64", "-cpu", "Haswell-noTSX-IBRS")
    assert changed(reference[1], computed(params({"reproducible": True}), {}, emulator=emulator)) == []


def test_a_process_without_the_settings_computes_nothing(params, monkeypatch):
    run = Run(load_config(params({"reproducible": True})))
    for name in reproducible.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"reproducible: true, but .* is not .* in this process; start it by") as refused:
        execute(run, "split")
    assert "\n" not in str(refused.value)
    assert not (run.folder / "split").exists()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    for name, value in reproducible.SETTINGS.items():  # too late
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    with pytest.raises(UserError, match="torch was loaded before the settings"):
        execute(run, "split")


def test_a_choice_by_hand_needs_no_settings(reference, params):
    """What the explorer and `run --from` do in their own process; the stages after it still refuse."""
    path = params({"reproducible": True})
    shutil.copytree(load_config(reference[0]).folder, load_config(path).folder)
    run = Run(load_config(path))
    shutil.rmtree(run.folder / "selection", ignore_errors=True)
    run.artifact("proxy").require()
    assert execute(run, "selection").why_not_done() is None
    shutil.rmtree(run.folder / "stage2")
    with pytest.raises(UserError, match="reproducible: true, but"):
        execute(run, "stage2")


def test_other_processors_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UserError, match="needs an x86-64 processor with AVX2"):
        reproducible.require()


@pytest.mark.parametrize("change", [{"device": "cuda"}, {"recipe.compile": True}, {"recipe.precision": "bf16"}])
def test_what_is_different_anyway_is_refused(refused, params, change):
    assert "reproducible: true needs device: cpu" in refused("split", params({"reproducible": True} | change))


def test_only_a_reproducible_run_has_keys_of_its_own(params):
    choice = {"shared_depth": 2, "head_weight": 0.4}
    settings = ({"reproducible": False}, {}, {"reproducible": True})
    plain, unsaid, own = (Run(load_config(params(changed))).at(choice) for changed in settings)
    computing = (
        "start",
        "stage1",
        "fisher",
        "direct",
        "proxy",
        "stage2",
        "stage3",
        "baselines/ce",
        "simulation",
        "label_dependence",
    )
    for name in ("split", *computing):
        artifacts = [run.artifact(name) for run in (plain, unsaid, own)]
        assert artifacts[0].key == artifacts[1].key
        assert "reproducible" not in artifacts[0].parameters
        assert (artifacts[2].key != artifacts[0].key) == (name in computing), name


def test_what_was_computed_otherwise_is_stale(finished_copy):
    reason = finished_copy({"reproducible": True}).artifact("stage1").why_not_done()
    assert "reproducible unset -> True" in reason


def test_jupyterlab_is_started_with_the_settings(monkeypatch, command):
    started = []
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "execve", lambda program, arguments, environment: started.append(environment))
    command("lab", "--reproducible")
    command("lab")
    assert started[0].items() >= reproducible.SETTINGS.items()
    assert not started[1].items() >= reproducible.SETTINGS.items()


def test_run_gives_its_notebooks_the_settings(params, monkeypatch):
    from osdtw_lib.report import notebooks

    class Seen(Exception):
        pass

    def execute(book, resolved, folder, forked):
        given.append({name: os.environ.get(name) for name in reproducible.SETTINGS})
        kernels.append(forked)
        raise Seen

    given: list[dict] = []
    kernels: list[bool] = []  # a forked one has this process's libraries, which have read their settings
    monkeypatch.setattr(notebooks, "_execute", execute)
    before = dict(os.environ)
    for wanted in (True, False):
        with pytest.raises(Seen):
            notebooks._run_one(Run(load_config(params({"reproducible": wanted}))), None, (), False)
        assert dict(os.environ) == before
    assert kernels == [False, True]
    assert given[0] == reproducible.SETTINGS
    assert given[1] == {name: before.get(name) for name in reproducible.SETTINGS}
