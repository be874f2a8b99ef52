"""What a plan is held against: readers that are slower than the GPUs, a card that is too small, single precision."""

import pandas as pd
import pytest
import torch
import yaml

from osdtw_lib.config.load import load_config
from osdtw_lib.errors import UserError
from osdtw_lib.models.flops import PEAK_TFLOPS
from osdtw_lib.planning import limits
from osdtw_lib.planning.limits import CARDS, JPEGS_A_CORE, fp32_flops, memory_line
from osdtw_lib.planning.plan import make_plan

pytestmark = pytest.mark.journey  # long: whole networks, measured or counted

IMAGES = 115_846


@pytest.fixture
def config(tmp_path, monkeypatch):
    """config(recipe={...}) -> ImageNet-LT, which is not here, on a network of 2 blocks."""

    def absent(*_):
        raise UserError("data.train: no such file")

    monkeypatch.setattr("osdtw_lib.data.sets.load_source", absent)

    def write(baselines=(), **data):
        values = {
            "name": "large",
            "data": {"dataset": "files", "train": "no_list.txt", "protocol": "imagenet_lt"} | data,
            "model": {"image_size": 224, "patch_size": 16, "width": 384, "depth": 2, "heads": 6, "init": "scratch"},
            "recipe": {"batch_size": 1024, "micro_batch": 128, "precision": "bf16"},
            "baselines": list(baselines),
        }
        (tmp_path / "large.yaml").write_text(yaml.safe_dump(values))
        return load_config(tmp_path / "large.yaml")

    return write


def line(plan, begin):
    return next(one for one in plan.lines if one.startswith(begin))


def test_cores_that_are_slower_than_the_gpus_make_the_hours(config):
    plan = make_plan(config(cache=False), gpus=8, machine_cores=64)
    stages = plan.stages.set_index("stage")
    assert stages.loc["stage2", "read/s"] == 64 * JPEGS_A_CORE < stages.loc["stage2", "images/s"]
    assert stages.loc["stage2", "hours"] == pytest.approx(100 * IMAGES / 8000 / 3600)
    assert stages.loc["fisher", "read/s"] == 8000  # both tasks' by one reading
    said = line(plan, "reading")
    assert "64 cores, 125 JPEGs/s each, bring it" in said and "the hours of stage1, fisher, stage2, stage3 are those of" in said
    assert "assumed: --cores" in line(make_plan(config(cache=False), gpus=8), "reading: ")


def test_gpus_that_are_slower_than_the_readers_make_the_hours(config):
    plan = make_plan(config(cache=False), gpus=1, gpu="V100", machine_cores=1000)
    stages = plan.stages.set_index("stage")
    assert (stages["images/s"] < stages["read/s"]).all() and "hours" not in line(plan, "reading")
    assert stages.loc["stage2", "hours"] == pytest.approx(100 * IMAGES / stages.loc["stage2", "images/s"] / 3600)


@pytest.mark.parametrize("cache", [True, "auto"])
def test_the_decoded_cache_is_read_by_every_gpus_process(config, cache):
    one, four = (make_plan(config(cache=cache), gpus=gpus).stages.set_index("stage")["read/s"]["stage2"] for gpus in (1, 4))
    assert four == pytest.approx(4 * one) and 2000 < one < 9000


def test_kept_features_are_read_as_often_as_there_are_views_and_streams_beside_the_images(config):
    stages = make_plan(config(["crt", "bbn"]), gpus=1, machine_cores=8).stages.set_index("stage")["read/s"]
    kept, paired = (next(rate for name, rate in stages.items() if method in name) for method in ("crt", "bbn"))
    assert paired == 1000 / 2 and kept == pytest.approx(1000 * 10 / 4)  # 10 epochs of 4 views


def test_nothing_is_read_of_digits_or_for_a_cpu(params):
    plan = make_plan(load_config(params()), gpus=2)
    assert "read/s" not in plan.stages and not any(one.startswith("reading") for one in plan.lines)


def test_a_card_that_is_too_small_is_said(monkeypatch):
    memory = pd.DataFrame([{"stage": "stage1", "sum, computed": 23.0}, {"stage": "stage2", "sum, computed": 12.0}])
    assert memory_line(memory, "NVIDIA GeForce RTX 4090") == (
        "memory: stage1 takes 25.0 GB, 2 of them assumed for CUDA and NCCL; a GPU has 25.8 GB"
    )
    assert "16.0 GB" not in memory_line(memory, "NVIDIA Tesla V100-SXM2-16GB")
    assert memory_line(memory, "NVIDIA Tesla V100-SXM2-16GB").endswith("17.2 GB: it will not fit, lower recipe.micro_batch")
    assert memory_line(memory, None) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: type("Properties", (), {"total_memory": 10e9}))
    assert memory_line(memory, "a card of the future").endswith("10.0 GB: it will not fit, lower recipe.micro_batch")


def test_every_card_whose_peak_is_known_has_its_memory_and_single_precision():
    assert CARDS.keys() == PEAK_TFLOPS.keys()
    for name, (gigabytes, single) in CARDS.items():
        assert 16 <= gigabytes <= 141 and 10 < single < PEAK_TFLOPS[name]
        assert not (sizes := [int(w[:-2]) for w in name.replace("-", " ").split() if w.endswith("GB")]) or sizes == [gigabytes]


def test_the_direct_bias_is_planned_in_single_precision(config):
    direct = make_plan(config(), gpus=1, gpu="A100", mfu=0.5).stages.set_index("stage").loc["direct"]
    assert direct["images/s"] == pytest.approx(0.5 * 19.5e12 / (direct["GFLOP an image"] * 1e9))
    assert fp32_flops("NVIDIA A100-SXM4-80GB") == 19.5e12 and fp32_flops("abacus") is None
    assert "float32" in direct["how"]


def test_cores_are_asked_for_by_a_number(command, refused, params):
    status, out, _ = command("plan", params(), "--gpus", "2", "--cores", "8")
    assert status == 0 and "memory: stage1 takes" in out
    assert command("plan", params(), "--cores", "0")[0] == 2


def test_the_cores_of_this_machine_count_where_its_gpus_are(config, monkeypatch):
    monkeypatch.setattr(limits, "cores", lambda: 24)
    found = limits.reading_of(config(cache=False), 2, None, here=True)
    assert found.rate == 24 * JPEGS_A_CORE and "assumed" not in found.words
    assert limits.reading_of(config(cache=False), 2, None, here=False).rate == 24 * JPEGS_A_CORE  # 12 a GPU
