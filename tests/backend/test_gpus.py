"""A GPU that this torch cannot use is said in one line, with what to install; drivers and GPUs are made up here."""

import os
import shutil
import stat
from importlib.metadata import version

import pytest
import torch

from osdtw_lib.backend import gpus
from osdtw_lib.errors import UserError

NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Wed Aug 30 05:04:52 UTC 2023\nGCC version: gcc version 12.3.0\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(driver="535.104.05", cuda="13.0", ...): what the machine has and torch was built for."""
    forget = [gpus.unreachable.cache_clear, gpus.without_code.cache_clear]

    def make(driver=None, cuda="13.0", torch_version="2.13.0+cu130", cards=(), code=(), smi=None):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        here = tmp_path / "machine"
        here.mkdir(exist_ok=True)
        for name, text in {"nvidia0": "", "version": NVRM.format(driver)}.items() if driver else ():
            (here / name).write_text(text)
        monkeypatch.setattr(gpus, "DEVICES", f"{here}/nvidia[0-9]*")
        monkeypatch.setattr(gpus, "DRIVER", here / "version")
        monkeypatch.setattr(gpus, "_smi", lambda *arguments: (smi or {}).get(arguments[0], ""))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch, "__version__", torch_version)
        releases = {"torch": torch_version, "torchvision": "0.28.0+cu130"}
        monkeypatch.setattr(gpus.importlib.metadata, "version", lambda name: releases.get(name) or version(name))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: cards[i][0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: cards[i][1])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(code))
        for clear in forget:
            clear()

    yield make
    for clear in forget:
        clear()


def said(device="auto") -> str:
    with pytest.raises(UserError) as caught:
        gpus.choose(device)
    assert "\n" not in str(caught.value) and "device: cpu" in str(caught.value)
    return str(caught.value)


CU126 = "pip install torch==2.13.0+cu126 torchvision==0.28.0+cu126 --index-url https://download.pytorch.org/whl/cu126"
CU130 = "pip install torch==2.13.0+cu130 torchvision==0.28.0+cu130 --index-url https://download.pytorch.org/whl/cu130"
SM_CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
SM_CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_driver_too_old_for_torch_is_named_with_a_build_that_it_can_run(machine, device):
    machine("535.104.05")
    line = said(device)
    assert "driver is 535.104.05" in line and "built for CUDA 13.0, which needs 580 or newer" in line and CU126 in line


def test_a_build_for_the_cpu_on_a_machine_with_a_gpu_is_named_with_the_build_to_take(machine):
    machine("580.65.06", None, "2.13.0+cpu")
    line = said()
    assert "torch 2.13.0+cpu is a build without CUDA" in line and CU130 in line
    machine("550.54.14", None, "2.13.0+cpu")
    assert CU126 in said()


@pytest.mark.parametrize("driver, version", [("470.82.01", "2.13.0+cu130"), ("535.104.05", "2.16.0"), ("535.104.05", "2.5.1")])
def test_no_build_is_named_that_is_not_known_to_be_there(machine, driver, version):
    machine(driver, torch_version=version)
    line = said()
    assert "pip install" not in line and "Installing previous versions of PyTorch" in line and "newer driver" in line


def test_nothing_is_advised_where_driver_and_torch_go_together_and_yet_no_gpu_is_seen(machine):
    machine("580.65.06")
    line = said()
    assert "580.65.06" in line and "CUDA 13.0;" in line and "pip install" not in line


def test_nvidia_smi_alone_says_it_too(machine):
    machine(smi={"-L": "GPU 0: NVIDIA RTX 4090 (UUID: ...)\n", "--query-gpu=driver_version": "550.54.14\n550.54.14\n"})
    assert "driver is 550.54.14" in said()


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(machine):
    machine()
    assert gpus.choose("auto") == gpus.choose("cpu") == "cpu"
    with pytest.raises(UserError, match="none is visible"):
        gpus.choose("cuda")


@pytest.mark.parametrize("value, expected", [("", "cpu"), ("-1", "cpu"), ("0", None)])
def test_gpus_that_were_hidden_on_purpose_are_not_missed(machine, monkeypatch, value, expected):
    machine("535.104.05")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpus.choose("auto") == expected if expected else said()


def test_on_purpose_the_cpu_trains_beside_a_gpu(machine):
    machine("535.104.05")
    assert gpus.choose("cpu") == "cpu"


V100, A100, RTX4090, B200 = ("Tesla V100", (7, 0)), ("A100", (8, 0)), ("RTX 4090", (8, 9)), ("B200", (10, 0))


def test_gpus_that_torch_has_code_for_are_taken(machine):
    machine("580.65.06", cards=[A100, RTX4090, B200, ("of the future", (13, 0))], code=SM_CU130)
    assert gpus.choose("auto") == gpus.choose("cuda") == "cuda"


def test_a_gpu_too_old_for_torch_is_named_with_the_build_that_has_code_for_it(machine):
    machine("580.65.06", cards=[A100, V100], code=SM_CU130)
    line = said()
    assert line.startswith("GPU 1, Tesla V100, has compute capability 7.0") and "has code for 7.5, 8.0, 8.6, 9.0" in line
    assert CU126 in line and "CUDA_VISIBLE_DEVICES" in line


def test_a_gpu_too_new_for_torch_is_named_as_well(machine):
    machine("580.65.06", "12.6", cards=[B200], code=SM_CU126)
    assert CU130 in said()


def test_a_torch_that_does_not_say_what_it_has_code_for_is_believed(machine):
    machine("580.65.06", cards=[V100])
    assert gpus.choose("auto") == "cuda"


def test_a_program_is_asked_and_its_failure_is_no_answer(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus._smi("-L") == ""
    program.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\necho GPU 0: a GPU; exit $1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert gpus._smi("0") == "GPU 0: a GPU\n" and gpus._smi("9") == ""
    os.chmod(program, 0)  # no program any more
    assert gpus._smi("0") == ""


def test_the_command_line_says_it_before_anything_is_made(machine, refused, params, tmp_path):
    machine("535.104.05")
    assert CU126 in refused("split", params())
    assert not (tmp_path / "outputs").exists()
