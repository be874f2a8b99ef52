"""What a parameter file will take: each figure against one got another way, and where it says it comes from."""

import numpy as np
import pytest
import torch
import yaml

from osdtw_lib.config.load import load_config
from osdtw_lib.errors import UserError
from osdtw_lib.models.flops import training_flops
from osdtw_lib.models.likelihoods import categorical
from osdtw_lib.models.vit import build_vit
from osdtw_lib.planning import plan as library
from osdtw_lib.planning.plan import make_plan

pytestmark = pytest.mark.journey  # long: whole networks, measured or counted


@pytest.fixture
def config(params):
    """config({...}) -> the tiny parameter file as a Config."""
    return lambda changes=None: load_config(params(changes))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """published("imagenet_lt", recipe={...}) -> a Config of a data set that is not here, on a tiny network."""

    def absent(*_):
        raise UserError("data.train: no such file")

    monkeypatch.setattr("osdtw_lib.data.sets.load_source", absent)

    def write(protocol, **sections):
        values = {
            "name": "large",
            "data": {"dataset": "files", "train": "no_list.txt", "protocol": protocol},
            "model": {"image_size": 32, "patch_size": 16, "width": 24, "depth": 1, "heads": 2, "init": "scratch"},
        } | sections
        (tmp_path / "large.yaml").write_text(yaml.safe_dump(values))
        return load_config(tmp_path / "large.yaml")

    return write


def test_on_a_cpu_every_training_is_measured(config):
    plan = make_plan(config(), gpus=0)
    stages = plan.stages.set_index("stage")
    assert stages.index.tolist() == ["start", "stage1", "fisher", "direct", "stage2", "stage3", "baselines"]
    assert (stages[["images/s", "hours", "GFLOP an image"]] > 0).all(axis=None)
    assert all("measured" in how for how in stages["how"]) and "nothing compiled, measured" in plan.lines[0]
    images = {"start": 2, "stage1": 2, "stage2": 2, "stage3": 2, "baselines": 6, "fisher": 1}
    counted = len(library.Run(config()).train)
    for stage, epochs in images.items():
        row = stages.loc[stage]
        assert row["epochs"] == epochs and row["hours"] * 3600 * row["images/s"] == pytest.approx(epochs * counted)


def test_each_phase_of_a_method_has_a_time_of_its_own(config):
    """A head on kept features takes a small part of what training the network does."""
    stages = make_plan(config({"baselines": ["mislas"]}), gpus=0).stages.set_index("stage")
    first, second = (stages.loc[name] for name in ("baselines (mislas)", "baselines (mislas), second stage"))
    assert second["GFLOP an image"] < first["GFLOP an image"] / 10 and second["images/s"] > 2 * first["images/s"]


def test_a_stage_that_is_not_run_is_not_planned(config):
    plan = make_plan(config({"model.init": "scratch", "baselines": []}), gpus=4)
    assert not {"start", "baselines"} & set(plan.stages["stage"])


def test_flops_are_those_of_the_networks_trained(config):
    asked = config()
    stages = make_plan(asked, gpus=1).stages.set_index("stage")["GFLOP an image"] * 1e9
    one = training_flops(asked.model, 5)
    images = 2 * 4 * 14**2 * 16  # the product of the patch embedding that would be the images' gradient, which nobody needs
    assert stages["stage1"] == 2 * (one - images) and stages["baselines"] == training_flops(asked.model, 10) - images
    assert stages["stage2"] == pytest.approx(one - images, rel=0.01)
    # the first two of three depths are shared and frozen, and so run once, forward
    assert stages["stage3"] == pytest.approx(2 * training_flops(asked.model, 5, 2) - one / 3 * 2 / 3, rel=0.1)


def test_without_the_data_the_published_counts_stand_in_and_are_called_known(published):
    for protocol, images, classes in (("imagenet_lt", 115_846, 1000), ("places_lt", 62_500, 365)):
        plan = make_plan(published(protocol), gpus=4, gpu="A100", mfu=0.3)
        assert f"{images} training images, {classes} classes (known from publications" in plan.lines[1]
        stage1 = plan.stages.set_index("stage").loc["stage1"]
        assert stage1["images/s"] == pytest.approx(4 * 0.3 * 312e12 / (stage1["GFLOP an image"] * 1e9))
        assert stage1["hours"] == pytest.approx(100 * images / min(stage1["images/s"], stage1["read/s"]) / 3600)
        assert all(how.startswith("computed at the assumed MFU") for how in plan.stages["how"])
        assert "A100" in plan.lines[0] and "30 % assumed" in plan.lines[0]


def test_cifar_is_counted_from_its_profile(params, tmp_path):
    values = yaml.safe_load(params({"model.channels": 3, "name": "cifar"}).read_text()) | {"data": {"dataset": "cifar100"}}
    (tmp_path / "cifar.yaml").write_text(yaml.safe_dump(values))
    assert "10847 training images, 100 classes (computed" in make_plan(load_config(tmp_path / "cifar.yaml"), gpus=1).lines[1]


def test_data_that_are_neither_here_nor_published_are_one_line(published):
    with pytest.raises(UserError, match="no such file"):
        make_plan(published(None), gpus=1)


@pytest.mark.parametrize(
    "of, micro, gpus, expected",
    [
        (1024, 128, 4, ["8 parts of 128", "at most 2 a process"]),
        (1024, None, 4, ["4 parts of 256", "at most 1 a process"]),
        (1024, None, 1, ["1 part of 1024", "at most 1 a process"]),
        (1024, 128, 3, ["8 parts of 128", "at most 3 a process", "unevenly, 89 %"]),
        (64, 128, 2, ["1 part of 64", "unevenly, 50 %"]),
    ],
)
def test_the_batch_is_split_over_the_processes(published, of, micro, gpus, expected):
    recipe = {"batch_size": of, "precision": "bf16"} | ({"micro_batch": micro} if micro else {})
    words = library._batch_split(published("places_lt", recipe=recipe), gpus)[2]
    assert all(part in words for part in expected)


def test_processes_that_wait_for_others_lower_the_speed(published):
    even, uneven = (
        make_plan(published("places_lt", recipe={"batch_size": 1024, "micro_batch": 128}), gpus=gpus).stages["images/s"][0]
        for gpus in (4, 3)
    )
    assert uneven / even == pytest.approx(3 / 4 * 8 / 9)


def test_memory_is_the_parameters_and_what_autograd_keeps(config):
    asked = config({"recipe.micro_batch": 16})
    memory = make_plan(asked, gpus=1).memory.set_index("stage")
    n = sum(p.numel() for p in build_vit(asked.model, 10).parameters())
    row = memory.loc["baselines"]
    assert row["million parameters"] == n / 1e6 and row["weights"] == row["gradients"] == row["moments"] / 2 == 4 * n / 1e9
    assert row["sum, computed"] == pytest.approx(row["weights"] * 4 + row["activations of 16 images"])
    assert memory.loc["stage3", "gradients"] < memory.loc["stage3", "weights"] < memory.loc["stage1", "weights"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_activations_are_those_of_a_real_forward_pass(config, precision):
    asked = config({"recipe.precision": precision, "recipe.drop_path": 0.0})
    planned = make_plan(asked, gpus=1).memory.set_index("stage").loc["baselines", "activations of 32 images"] * 1e9
    network, kept = build_vit(asked.model, 10).train(), {}
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), torch.autocast("cpu", enabled=precision == "bf16"):
        likelihood = categorical(np.arange(10), np.ones(10))
        loss = -likelihood(network(torch.randn(32, 1, 28, 28)), torch.zeros(32, dtype=torch.int64)).mean()
    assert planned == pytest.approx(sum(kept.values()), rel=0.02)
    del loss


def test_half_precision_is_assumed_and_single_precision_is_warned_of(published):
    assert not any("fp32" in line for line in make_plan(published("places_lt", recipe={"precision": "bf16"}), gpus=1).lines)
    assert any("fp32" in line for line in make_plan(published("places_lt", recipe={"precision": "fp32"}), gpus=1).lines)


def test_several_gpus_of_a_machine_that_has_one_are_said_to_be_assumed(config, monkeypatch):
    """The step is the CPU's here: only what is said and how it is scaled is looked at."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(library.throughput, "device_name", lambda device: "NVIDIA L40S")
    monkeypatch.setattr(library, "measure", lambda step, config, micro, device: library.Measured(8, 0.5, 10**9))
    monkeypatch.setattr(library, "seconds_of", lambda run, device: 0.25)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    monkeypatch.setattr(library.Bernoulli, "to", lambda self, device: self)
    monkeypatch.setattr(library, "steps_of", lambda config, n, device, real=library.steps_of: real(config, n))
    monkeypatch.setattr(
        library,
        "synthetic",
        lambda network, size, device, real=library.synthetic: real(network, size, "cpu" if str(device) == "cuda" else device),
    )
    plan = make_plan(config(), gpus=2)
    stages = plan.stages.set_index("stage")
    assert "2 x NVIDIA L40S; one is measured, that each does as much is assumed" in plan.lines[0]
    # 32 images in 2 parts of 16 for 2 processes
    assert stages.loc["stage1", "images/s"] == 2 * 8 / 0.5 and stages.loc["fisher", "images/s"] == 2 * 8 / (2 * 0.25)
    assert plan.memory["peak, measured"].tolist() == [1.0] * 5 and plan.memory["at images"].tolist() == [8] * 5


def test_the_command_prints_it(command, params):
    status, out, err = command("plan", params(), "--gpus", "2", "--gpu", "4090", "--mfu", "0.25")
    assert (status, err) == (0, "")
    assert "2 x NVIDIA GeForce RTX 4090, not here; MFU 25 % assumed" in out
    assert "stage1" in out and "total" in out and "nan" not in out.lower()


@pytest.mark.parametrize("arguments", [["--gpus", "-1"], ["--gpus", "1", "--gpu", "abacus"], ["--mfu", "0"], ["--mfu", "2"]])
def test_what_cannot_be_planned_is_one_line(refused, params, arguments):
    refused("plan", params(), *arguments)
