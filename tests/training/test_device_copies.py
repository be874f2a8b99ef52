"""What crosses between CPU and accelerator for a part, from its images to its gradients: each copy of the first kind that is not
prepared stops the CPU until the accelerator has caught up. The meta device stands in for the accelerator."""

import dataclasses
import traceback

import numpy as np
import pytest
import torch
from small_run import write_small
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from osdtw_lib import methods
from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import Config, Digits, Files, Recipe
from osdtw_lib.data import readers as module
from osdtw_lib.data.augment import sent
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.methods import osdtw
from osdtw_lib.methods._base import Problem
from osdtw_lib.models.vit import build_vit
from osdtw_lib.planning.steps import steps_of, synthetic
from osdtw_lib.training.frozen_features import Views
from osdtw_lib.training.phase import means

pytestmark = pytest.mark.journey  # long: every data path and method

META = torch.device("meta")
COUNTS = np.array([40, 36, 32, 28, 24, 20, 16, 12, 8, 4])
FULL = {"random_crop": (0.08, 1.0), "flip": True, "rand_augment": (9.0, 0.5), "mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5}


class Copies(TorchDispatchMode):
    """Inside: the copies that leave the CPU or come back to it, by the line of the package that asks for each."""

    def __enter__(self):
        self.there, self.back = [], []
        self.made = Made(self)
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function.name() in ("aten::_to_copy", "aten::copy_"):
            source, to = (args[1], args[0]) if function.name() == "aten::copy_" else (args[0], found)
            if source.device != to.device:
                (self.back if to.device.type == "cpu" else self.there).append(line())
        else:  # an index on the CPU, into what is not: copied on the way; a number is passed as it is
            used = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim]
            if len({t.device for t in used}) > 1:
                self.there.append(line())
        return found


class Made(TorchFunctionMode):
    """Tensors that are made of numbers, on the CPU first, wherever they are asked for."""

    def __init__(self, copies):
        self.copies = copies

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and found.device == META:
            if not isinstance(args[0], torch.Tensor):  # else the other mode has seen it
                self.copies.there.append(line())
        return found


def line() -> str:
    lines = [f"{f.filename}:{f.lineno}" for f in traceback.extract_stack() if "osdtw_lib" in f.filename]
    return lines[-1] if lines else "here"


def batches(device="meta", channels=3, side=20, sampling="images", streams=(), **recipe):
    pixels = np.random.default_rng(0).integers(0, 256, (120, side, side, channels), dtype=np.uint8)
    ours = Digits(dataset="digits") if channels == 1 else Files(dataset="files", train="x")
    config = Config.model_construct(seed=0, data=ours, recipe=Recipe(batch_size=40, micro_batch=20, **recipe))
    images = LabelledImages(pixels, np.repeat(np.arange(10), 12))
    return Batches(images, config, (side, side), 10, device=device, sampling=sampling, streams=streams)


def test_copies_are_counted_both_ways_and_by_line():
    with Copies() as copies:
        torch.zeros(3).to(META)
        torch.tensor([1.0, 2.0], device=META)
        torch.zeros(3, device=META)[torch.arange(2)]
        torch.zeros(3, device=META) + 1 + torch.tensor(2.0)
        torch.zeros(3).copy_(torch.zeros(3))
        sent({"a": torch.arange(3), "b": torch.ones(2, 1, dtype=torch.bool)}, META)
        with pytest.raises(NotImplementedError):
            torch.zeros(3, device=META).cpu()
    assert len(copies.there) == 4 and copies.there[:3] == ["here"] * 3 and "augment.py" in copies.there[3]


@pytest.mark.parametrize("whole", [True, False], ids=["on the device", "in a memory map"])
@pytest.mark.parametrize(
    "recipe", [FULL, FULL | {"random_crop": None}, {"random_shift": 2}, {}], ids=["full", "centred", "shift", "plain"]
)
def test_a_part_goes_to_the_device_by_two_copies_and_nothing_comes_back(monkeypatch, recipe, whole):
    if not whole:
        monkeypatch.setattr(module, "ON_DEVICE_BYTES", 0)
    made = batches(**recipe)
    with Copies() as copies:
        parts = [part for step in made.epoch(0) for part in step]
    assert len(parts) == 6 and {part.images.device for part in parts} == {META}
    assert copies.back == [] and len(copies.there) == 2 * len(parts), sorted(copies.there)
    assert {t.device for t in (parts[0].labels, parts[0].own, parts[0].indices, parts[0].batch)} == {META}


def test_images_as_they_are_go_to_the_device_by_two_copies_a_batch():
    made = batches()
    with Copies() as copies:
        count = len(list(made))
    assert count == 6 and copies.back == [] and len(copies.there) == 2 * count


def test_packed_tensors_come_out_as_they_went_in():
    packed = {"a": torch.arange(3), "b": torch.tensor([[True], [False]]), "c": torch.randn(2, 3), "d": torch.zeros(0)}
    for name, there in sent(packed, META).items():
        assert there.shape == packed[name].shape and there.dtype == packed[name].dtype and there.device == META
    assert sent(packed, torch.device("cpu")) is packed


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    config = load_config(write_small(tmp_path_factory.mktemp("copies")))
    return Problem(config, tuple("abcdefghij"), COUNTS, lambda outputs: build_vit(config.model, outputs, 0.1).to(META), META)


def copies_of(phase, network, late=True):
    """Of the phase's losses and their gradients, over a step of an epoch."""
    phase.prepared(network).train()
    mixing = {"mixup": 0.8, "cutmix": 1.0}
    mixing |= {name: value for name, value in phase.recipe.items() if name in mixing}
    made = batches(channels=1, side=28, sampling=phase.sampling, streams=phase.streams, random_shift=1, **mixing)
    epoch = phase.length.epochs - 1 if late else 0
    seen = list(next(made.epoch(epoch)))
    seen = [dataclasses.replace(part, images=phase.seen(network, part.images)) for part in seen]
    for part in seen:  # a constant may go there once
        sum(means(phase, network, part).values()).backward()
    with Copies() as copies:
        for part in seen:
            sum(means(phase, network, part).values()).backward()
        if phase.after_step:
            phase.after_step(network)
    return copies.there + copies.back


@pytest.mark.parametrize("name", methods.names())
def test_a_methods_losses_copy_nothing(problem, name):
    kind = methods.load(name)
    method = kind(problem)
    network = method.build()
    for phase in method.phases():
        late = name != "rsg"  # which of its images are rare it asks the device, once a part, when it makes new maps
        assert copies_of(phase, network, late) == [], phase.name


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
@pytest.mark.parametrize("samples, refined", [("all", "separate"), ("own", "joint")])
def test_osdtws_losses_copy_nothing(problem, likelihood, samples, refined):
    config = problem.config
    changes = {
        "likelihood": likelihood,
        "stage1": config.stage1.model_copy(update={"samples": samples}),
        "stage3": config.stage3.model_copy(update={"likelihood": refined}),
    }
    ours = dataclasses.replace(problem, config=config.model_copy(update=changes))
    assert copies_of(osdtw.alone(ours), osdtw.two_networks(ours)) == []
    assert copies_of(osdtw.joint(ours, 0.4), osdtw.two_branches(ours)) == []
    assert copies_of(osdtw.refine(ours), osdtw.two_branches(ours, 2)) == []


def test_a_part_of_kept_features_goes_there_by_one_copy():
    views = Views(batches(), batches(), lambda images: images.flatten(1), 1, "fp32")
    views.made[0] = torch.zeros(120, 4, device=META)
    with Copies() as copies:
        parts = [part for step in views.epoch(0) for part in step]
    assert len(parts) == 6 == len(copies.there) and copies.back == []


def test_a_step_that_is_planned_or_measured_copies_nothing(tmp_path):
    config = load_config(write_small(tmp_path, {"baselines": ["ce", "ldam_drw"]}))
    for step in steps_of(config, 10, META):
        with META:
            network = step.prepared().train()
            images, labels = synthetic(network, 2, META)
            part = step.phase.part_of(step.phase.seen(network, images), labels)
        with Copies() as copies:
            sum(means(step.phase, network, part).values()).backward()
        assert not copies.there and not copies.back, step.name
