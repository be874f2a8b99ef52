"""Is what a GPU computes right? Against float64 on the CPU, against itself cut otherwise, against a training not cut short."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import os
import re
import subprocess
import sys

import fisher as fisher_benchmark
import pandas as pd
import torch
import train
from peers import ours
from torch import Tensor

from osdtw_lib.backend.compiled import kernels
from osdtw_lib.backend.precision import no_tf32
from osdtw_lib.config import schema as cfg
from osdtw_lib.fisher.sums import add_squared_products
from osdtw_lib.models.weights import weights
from osdtw_lib.training import loop
from osdtw_lib.training.phase import Phase

from .rows import Step

STEPS, RATE = 5, 1e-2
CHANGE, LOSS = 1e-4, 1e-5  # bars: of fp32 against float64, of the same arithmetic in another order
FISHER, FISHER_BF16 = 1e-5, 1e-2
SHAPES = {False: [(16, 197, 768, 3072), (5, 50, 96, 40)], True: [(3, 17, 40, 24)]}  # samples, tokens, outputs, inputs
TESTS = ("tests/fisher", "tests/training", "tests/models/test_masked_autoencoder.py", "tests/stages/test_stages.py")
TESTS_SECONDS = 400


def correct(step: Step) -> None:
    no_tf32()
    with step.attempt("training steps"):
        training(step)
    with step.attempt("parts"):
        parts(step)
    with step.attempt("resuming"):
        resumed(step)
    with step.attempt("Fisher"):
        fisher(step)
    with step.attempt("kernel"):
        kernel(step)
    with step.attempt("tests"):
        tests(step)


# training -------------------------------------------------------------------------------------------------------


def setup_of(step: Step, batch_size: int) -> train.Setup:
    """Nothing random in a step: what is compared are sums."""
    if step.quick:
        small = dataclasses.replace(train.setups(True)[0], batch_size=4)
    else:
        small = train.Setup("ViT-B/16", cfg.Model(), 1000, batch_size, warm_up=0, steps=STEPS, rounds=1)
    return dataclasses.replace(small, warm_up=0, steps=STEPS, device=str(step.device), drop_path=0.0)


def trained(
    setup: train.Setup, dtype=torch.float32, cut=1, momentum=None, epochs=1, checkpoint=None, names=("head", "tail")
) -> tuple[Tensor, pd.DataFrame]:
    """Stage 1's two networks, or one, by `fit`: how far all weights have moved, float64 on the CPU, and the curves."""
    networks = setup.networks(names).to(dtype)
    one = setup.batches()
    batches = train.InMemory(one.images.to(dtype), one.one, 0, setup.steps, cut)
    before = flat(networks)
    phase = Phase(cfg.Training(epochs=epochs, learning_rate=RATE if momentum else None), train.losses, momentum=momentum)
    with contextlib.redirect_stdout(io.StringIO()):
        curves = loop.fit(networks, phase, batches, setup.recipe(), checkpoint or train.Nowhere(), 0, "acceptance")
    return flat(networks) - before, curves


def flat(networks: torch.nn.Module) -> Tensor:
    return torch.cat([t.detach().double().cpu().reshape(-1) for t in weights(networks).values()])


def apart(found: Tensor, expected: Tensor) -> float:
    """In L2, relative."""
    return float((found - expected).norm() / expected.norm())


def losses_apart(found: pd.DataFrame, expected: pd.DataFrame) -> float:
    """The largest relative difference of any epoch's loss; infinite where an epoch is missing."""
    names = [name for name in expected if name not in ("epoch", "learning_rate")]
    if found.shape != expected.shape:
        return float("inf")
    return float((found[names] / expected[names] - 1).abs().max(axis=None))


def training(step: Step) -> None:
    """SGD, whose step is in proportion to the gradient: AdamW makes rounding alone a whole step where a gradient is nought."""
    setup = setup_of(step, 8)
    found, curves = trained(setup, momentum=0.9)
    expected, reference = trained(dataclasses.replace(setup, device="cpu"), torch.float64, momentum=0.9)
    what = f"{STEPS} steps, fp32 : float64 on the CPU"
    step.add(f"{what}: change of the weights", apart(found, expected), "L2", most=CHANGE)
    step.add(f"{what}: losses", losses_apart(curves, reference), "relative", most=CHANGE)


def parts(step: Step) -> None:
    setup = setup_of(step, 128)
    one = {"momentum": 0.9, "names": ("all",)}  # network: two in fp32 would need more than a 24 GB card
    (whole, curves), (cut, again) = trained(setup, **one), trained(setup, cut=4, **one)
    size = setup.batch_size
    what = f"one part of {size} = 4 parts of {size // 4}, fp32"
    step.add(f"{what}: change of the weights", apart(cut, whole), "L2", most=CHANGE)
    step.add(f"{what}: losses", losses_apart(again, curves), "relative", most=LOSS)


class Killed(Exception):
    pass


class Kept:
    """A checkpoint in memory; the training ends with the second."""

    def __init__(self):
        self.kept, self.saves = None, 0

    def load(self):
        return self.kept

    def require_room(self, *_) -> None:
        pass

    def save(self, tensors: dict, state: dict) -> None:
        self.kept = {name: t.detach().cpu().clone() for name, t in tensors.items()}, {"history": list(state["history"])}
        self.saves += 1
        if self.saves == 2:
            raise Killed


def resumed(step: Step) -> None:
    """AdamW, dropped paths as in a real training."""
    setup, checkpoint = dataclasses.replace(setup_of(step, 32), drop_path=0.1, steps=2), Kept()
    whole, curves = trained(setup, epochs=4)
    often, loop.CHECKPOINT_SECONDS = loop.CHECKPOINT_SECONDS, 0.0
    try:
        trained(setup, epochs=4, checkpoint=checkpoint)
        raise RuntimeError("no checkpoint was written")
    except Killed:
        found, again = trained(setup, epochs=4, checkpoint=checkpoint)
    finally:
        loop.CHECKPOINT_SECONDS = often
    step.add("killed after 2 of 4 epochs, resumed = not killed: losses", losses_apart(again, curves), "relative", most=LOSS)
    step.add("killed after 2 of 4 epochs, resumed = not killed: change of the weights", apart(found, whole), "L2")


# Fisher ---------------------------------------------------------------------------------------------------------


def fisher(step: Step) -> None:
    setup = fisher_benchmark.setups(True)[0]
    if not step.quick:
        setup = fisher_benchmark.Setup("ViT-B/16", cfg.Model(), 1000, batch_size=4, n_batches=4, rounds=1)

    def diagonal(device, precision: str, dtype=torch.float32) -> dict[str, Tensor]:
        there = dataclasses.replace(setup, device=str(device))
        batches = [(images.to(dtype), labels) for images, labels in there.batches()]
        return ours(there.network().to(dtype), there.likelihood(), precision)(batches)

    expected, single, half = diagonal("cpu", "fp32", torch.float64), diagonal(step.device, "fp32"), diagonal(step.device, "bf16")
    what = "Fisher, the worst tensor, "
    step.add(f"{what}fp32 : float64 on the CPU", furthest(single, expected), "L1", most=FISHER)
    step.add(f"{what}bf16 : fp32", furthest(half, single), "L1", most=FISHER_BF16)


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Over the tensors: the relative difference in L1."""
    pairs = ((found[name].double().cpu(), t.double().cpu()) for name, t in expected.items())
    return max(float((a - b).abs().sum() / b.abs().sum()) for a, b in pairs)


def products(g: Tensor, x: Tensor) -> Tensor:
    """What the kernel computes, written out in the numbers' own precision."""
    return torch.bmm(g.transpose(1, 2), x).square().sum(0)


def which_sums(step: Step) -> str:
    """What the library takes for sums of squared products."""
    if step.on_gpu:
        return "Triton kernel" if importlib.util.find_spec("triton") else "plain PyTorch: there is no Triton"
    return "compiled loops" if kernels("fisher.kernels_cpu") else "plain PyTorch"


def kernel(step: Step) -> None:
    for shape in SHAPES[step.quick]:
        for dtype in (torch.float32, torch.bfloat16):
            samples, tokens, outs, ins = shape
            generator = torch.Generator().manual_seed(0)
            g = torch.randn(samples, tokens, outs, generator=generator).to(step.device, dtype)
            x = torch.randn(samples, tokens, ins, generator=generator).to(step.device, dtype)
            total = torch.zeros(outs, ins, device=step.device)
            add_squared_products(total, g, x, 1 << 28)
            exact, plain = products(g.double(), x.double()), products(g.float(), x.float())
            what = f"{which_sums(step)}, {str(dtype).removeprefix('torch.')}, {'x'.join(map(str, shape))}"
            step.add(f"{what}: against float64", furthest({"": total}, {"": exact}), "L1", most=FISHER)
            step.add(f"{what}: against plain PyTorch", furthest({"": total}, {"": plain}), "L1", most=FISHER)


# tests ----------------------------------------------------------------------------------------------------------


def tests(step: Step) -> None:
    """Parameter files without a device take the GPU there is, so these train, resume and predict on it."""
    chosen = ("tests/test_house.py", "-k", "circle", "--noconftest") if step.quick else TESTS
    command = [sys.executable, "-m", "pytest", "--tb=short", "-p", "no:cacheprovider", *chosen]
    environment = os.environ | ({} if step.on_gpu else {"CUDA_VISIBLE_DEVICES": ""})
    done = subprocess.run(
        command,
        cwd=cfg.PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TESTS_SECONDS,
    )
    (step.work / "pytest.log").write_text(done.stdout, encoding="utf-8")
    lines = done.stdout.splitlines()
    failed = [line.split(" - ")[0].split("::", 1)[-1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    passed = re.search(r"(\d+) passed", lines[-1] if lines else "")
    if done.returncode not in (0, 1) or not passed:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {' / '.join(lines[-2:])}")
    print("\n".join(lines[-40:]) if failed else lines[-1], flush=True)
    note = f"{passed[1]} passed; {', '.join(failed[:8])}".rstrip("; ")
    step.add("tests that failed", len(failed), "tests", most=0, note=note)
