"""FLOPs of a training step, peaks of GPUs, and the line at the end of a stage."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from osdtw_lib.config.schema import Model
from osdtw_lib.errors import UserError
from osdtw_lib.models import flops as throughput
from osdtw_lib.models.flops import device_name, known_gpu, mfu, peak_flops, summary_line, training_flops
from osdtw_lib.models.vit import build_vit, depth_of

SMALL = Model(image_size=16, patch_size=4, width=24, depth=3, heads=2, channels=2)


def test_vit_b_at_224_pixels_needs_105_gflop_an_image():
    assert training_flops(Model(), 1000) == pytest.approx(105.4e9, rel=2e-3)


@pytest.mark.parametrize("frozen_depth", range(4))
def test_a_step_costs_what_torch_counts(frozen_depth):
    network = build_vit(SMALL, 5)
    for name, depth in depth_of(network).items():
        network.get_parameter(name).requires_grad_(depth > frozen_depth)
    for block in network.blocks:
        block.attn.fused_attn = False  # a CPU's fused attention is not counted
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 2, 16, 16)).sum().backward()
    images_need_none = 2 * 16 * 24 * 2 * 4 * 4 if frozen_depth == 0 else 0  # no gradient of the first layer's input
    assert training_flops(SMALL, 5, frozen_depth) == counter.get_total_flops() + images_need_none


def test_freezing_every_block_leaves_a_forward_pass_and_the_decoder():
    whole, frozen = training_flops(SMALL, 5), training_flops(SMALL, 5, 3)
    assert whole / 3 < frozen < 1.01 * whole / 3


@pytest.mark.parametrize(
    "name, tera",
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("A100-SXM4-40GB", 312),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Tesla V100-SXM2-16GB", 125),
    ],
)
def test_the_peak_goes_by_torchs_name_of_the_device(name, tera):
    assert peak_flops(name) == tera * 1e12


@pytest.mark.parametrize(
    "name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "", None]
)
def test_what_is_not_known_has_no_peak(name):
    assert peak_flops(name) is None and mfu(100, 1e9, name) is None


def test_a_cpu_has_no_name_and_no_peak():
    assert device_name(torch.device("cpu")) is None and device_name("cpu") is None


def test_mfu_is_the_share_of_all_gpus_peak():
    assert mfu(9380, 105.5e9, "NVIDIA H100 80GB HBM3") == pytest.approx(1.0, abs=1e-3)
    assert mfu(4 * 405, 105.5e9, "NVIDIA GeForce RTX 4090", processes=4) == pytest.approx(0.26, abs=2e-3)


@pytest.mark.parametrize(
    "words, name", [("H100", "NVIDIA H100 80GB HBM3"), ("h100 pcie", "NVIDIA H100 PCIe"), ("4090", "NVIDIA GeForce RTX 4090")]
)
def test_a_gpu_is_found_by_some_words_of_its_name(words, name):
    assert known_gpu(words) == name and peak_flops(name)


@pytest.mark.parametrize("words", ["TPU", "", "H100 4090"])
def test_a_gpu_that_is_not_known_names_those_that_are(words):
    with pytest.raises(UserError, match="H100 80GB HBM3.*L40S"):
        known_gpu(words)


def test_the_line_of_a_cpu_has_no_mfu():
    assert summary_line(1000, 4.0, 0.5, 1e9, "cpu") == "250 images/s, 12 % of the time waiting for data"


def test_the_line_of_gpus(monkeypatch):
    monkeypatch.setattr(throughput, "device_name", lambda device: "NVIDIA H100 80GB HBM3")
    line = summary_line(400_000, 25.0, 0.75, 105.4e9, torch.device("cuda"), 4)
    assert line == "16000 images/s, 3 % of the time waiting for data, MFU 43 % of 4 x NVIDIA H100 80GB HBM3"
    monkeypatch.setattr(throughput, "device_name", lambda device: "NVIDIA H20")
    assert summary_line(10, 1.0, 0.0, 1e9, "cuda").endswith("MFU not known for NVIDIA H20")


def test_no_time_divides_by_nothing():
    assert "images/s" in summary_line(0, 0.0, 0.0, 1e9, "cpu")
