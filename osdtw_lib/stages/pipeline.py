"""How a stage's results come about: found as they are, made here, or made by several processes together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from types import ModuleType

import pandas as pd
import torch
from torch import nn

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import make_folder
from ..artifacts.lock import held
from ..backend import distributed, gpus, reproducible, threads
from ..backend.progress import clock
from ..backend.torch_compile import compile_networks
from ..config.schema import Config
from ..errors import UserError
from ..models.flops import counted, step_flops
from ..models.weights import load_weights, weights
from ..training.frozen_features import Views
from ..training.loop import fit
from ..data.augment import UNMIXED
from ..training.phase import Phase, means
from . import CONTENTS
from .run import Run, first_make, module_of, remedy


VISIBLE_SECONDS = 120  # NFS keeps what it knows of a file for up to 60


def execute(run: Run, name: str, quiet: bool = False) -> Artifact | list[Artifact]:
    """The results of a stage, made where they are not done; says in one line why it ran or, unless quiet, did not.

    "baselines" is a list, one Artifact a method. What a stage needs has to be there, but for light stages and, where it has to
    be made, those marked so: they are made on the way. Raises UserError naming the notebook to run first.
    """
    if name == "baselines":
        return [execute(run, method) for method in run.artifacts_of(name)]
    for need in run.needs_of(name):
        if CONTENTS[need].light:
            execute(run, need, quiet=True)
    return _found_or_made(run, name, quiet)


def require(run: Run, name: str) -> Artifact:
    """The results of an earlier stage. Raises UserError where they are not there, or stale, of the earliest stage that is at
    fault: what it says against its results, and the notebook to run."""
    artifact = run.artifact(name)
    if artifact.why_not_done() is not None:
        needs = [one for need in run.needs_of(name) for one in run.artifacts_of(need)]
        for one in dict.fromkeys((*needs, *(before.name for before in artifact.inputs))):
            require(run, one)
    return artifact.require(first_make(name))


def _found_or_made(run: Run, name: str, quiet: bool = False) -> Artifact:
    module = module_of(name.split("/")[0])
    if hasattr(module, "before"):
        module.before(run)
    artifact = _as_first_sees_it(run, name)
    if not distributed.same_everywhere(artifact.key):
        raise UserError(
            f"{name}: the processes have different parameters, choices or data; start all of them with the same parameter file "
            "and --set, from one version of the code, on files that all share"
        )
    if _why_not_done(artifact) is not None:
        with held(run.locked):
            _require_what_it_needs(run, artifact)
            with _claimed(artifact):
                _make(run, artifact, module)
    elif not quiet:
        _say_up_to_date(artifact)
    if hasattr(module, "publish"):
        module.publish(run, artifact)
    return artifact


def _require_what_it_needs(run: Run, artifact: Artifact) -> None:
    """Raises UserError before anything is touched; not where another process has made it while this one waited for the lock."""
    light = CONTENTS[artifact.name.split("/")[0]].light  # it adds nothing up, and `run` makes it itself
    if _why_not_done(artifact) is None:
        return
    if run.config.reproducible and not light:
        reproducible.require()
    for need in run.needs_of(artifact.name):
        if CONTENTS[need].on_the_way:
            execute(run, need, quiet=True)
    _require_all(run, [one for need in run.needs_of(artifact.name) for one in run.artifacts_of(need)])


@contextlib.contextmanager
def _claimed(artifact: Artifact) -> Iterator[None]:
    """Inside, no other process of the same run makes this; waits for one that does (report/beside.py). One that dies lets go."""
    if distributed.world_size() > 1:
        yield
        return
    make_folder(artifact.folder)
    folder = os.open(artifact.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{artifact.name}: another process of this run makes it; waits", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:  # a file system where a folder has no lock: nothing is made beside there
            pass
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)  # of readers' copies too
        os.close(folder)


def _why_not_done(artifact: Artifact) -> str | None:
    return distributed.from_first(artifact.why_not_done() if distributed.rank() == 0 else None)


def _say_up_to_date(artifact: Artifact) -> None:
    print(f"{artifact.name}: up to date (took {clock(artifact.seconds())})", flush=True)


def _make(run: Run, artifact: Artifact, module: ModuleType) -> None:
    reason, stage = _why_not_done(artifact), CONTENTS[artifact.name.split("/")[0]]
    if reason is None:  # another process has made it meanwhile
        return _say_up_to_date(artifact)
    if stage.together and run.workers > 1 and distributed.world_size() == 1:
        print(f"{artifact.name}: {run.workers} processes start", flush=True)
        distributed.launch(_again, (artifact.name, run.config), run.workers, run.config.device)
        artifact.require()
        return
    if stage.together or distributed.rank() == 0:
        print(f"{artifact.name}: runs, {reason}", flush=True)
        with contextlib.nullcontext() if stage.together else distributed.alone(), artifact.making(str(run.device)) as writer:
            alone = run.by_one_thread and not stage.optional  # those train several networks at once
            with gpus.memory_suffices(artifact.name, remedy(run.config, artifact.name)), threads.one(alone):
                module.make(run, writer)
            if stage.together:
                distributed.wait_for_all()  # nothing is called done while another process has still to come to its end
    distributed.wait_for_all()
    print(f"{artifact.name}: done in {clock(artifact.seconds())}", flush=True)


def _require_all(run: Run, names: list[str]) -> None:
    """Raises UserError for what is not there. The first process looks; the others wait until their machines see it too,
    which over a network file system takes a while."""
    distributed.by_first(lambda: [require(run, name) for name in names])
    deadline = time.monotonic() + VISIBLE_SECONDS
    while distributed.rank() > 0 and any(run.artifact(name).why_not_done() for name in names):
        if time.monotonic() > deadline:
            raise UserError(f"{run.folder}: not every machine sees what stands there; is it on a file system that all share?")
        time.sleep(1)


def _as_first_sees_it(run: Run, name: str) -> Artifact:
    """run.artifact(name). Where its key says what was selected, the other processes wait until their machines see the selection
    that the first sees. Raises UserError where nothing is selected."""
    if distributed.world_size() == 1 or "selection" not in run.needs_of(name):
        return run.artifact(name)
    seen: list[Artifact] = []
    distributed.by_first(lambda: seen.append(run.artifact(name)))
    key, deadline = distributed.from_first(seen[0].key if seen else None), time.monotonic() + VISIBLE_SECONDS
    while not seen:
        try:
            artifact = run.artifact(name)
        except UserError:
            if time.monotonic() > deadline:
                raise
        else:
            if artifact.key == key or time.monotonic() > deadline:
                return artifact
        time.sleep(1)
    return seen[0]


def _again(name: str, config: Config) -> None:
    _found_or_made(Run(config), name)


# training -------------------------------------------------------------------------------------------------------


def train(run: Run, write: Writer, network: nn.Module, phases: list[Phase], purpose: str, label: str) -> None:
    """One phase after the other, each from where the last one left the network; the history becomes the table "curves".

    purpose: what the seed is drawn for; phases after the first draw their own. A killed run goes on in its phase.
    """
    curves = []
    count_flops(write, 0.0)
    for i, phase in enumerate(phases):
        seed = run.seed(f"{purpose}/{phase.name}" if i else purpose)
        phase.prepared(network, seed)
        if len(phases) == 1:
            curves.append(_trained(run, write, network, phase, seed, label))
            continue
        end = write.checkpoint(f"{phase.name}.end")
        saved = end.load()
        if saved:
            load_weights(network, saved[0])
            count_flops(write, saved[1]["flops"])
            curves.append(pd.DataFrame(saved[1]["curve"]))
            continue
        before = write.notes["flops"]
        curves.append(_trained(run, write, network, phase, seed, f"{label}, {phase.name}").assign(phase=phase.name))
        end.save(weights(network), {"curve": curves[-1].to_dict("records"), "flops": write.notes["flops"] - before})
    nothing = [pd.DataFrame(columns=["epoch", "learning_rate"], dtype=float)]  # a method that trains nothing of its own
    write.table("curves", pd.concat(curves or nothing, ignore_index=True))


def _trained(run: Run, write: Writer, network: nn.Module, phase: Phase, seed: int, label: str) -> pd.DataFrame:
    recipe = run.config.recipe.model_copy(update=phase.recipe)
    how = {"sampling": phase.sampling, "streams": phase.streams, "draw": phase.draw, "unmixed_from": phase.unmixed_from}
    batches = run.batches(run.train, recipe=recipe, epochs=phase.length.epochs, **how)
    flops, whole = phase_flops(run, network, phase)
    if phase.frozen:
        plain = recipe.model_copy(update=UNMIXED)
        shown = run.batches(run.train, recipe=plain, draw=phase.draw, epochs=phase.views)
        network.eval()
        batches = Views(shown, batches, lambda images: phase.seen(network, images), phase.views, recipe.precision)
    if recipe.compile:
        compile_networks(network)
    count_flops(write, whole)
    return fit(network, phase, batches, recipe, write.checkpoint(phase.name), seed, label, flops)


def phase_flops(run: Run, network: nn.Module, phase: Phase) -> tuple[float, float]:
    """FLOPs an image of a training step, and of the whole phase, what is made of a view of an image before it included; counted
    over two black images."""
    images = torch.zeros(2, run.config.model.channels, *run.image_size, device=run.device)
    with counted() as counter:
        black = phase.seen(network, images)

    def losses(images, labels):
        return means(phase, network, phase.part_of(images, labels))

    step, epochs = step_flops(network, losses, tuple(black.shape[1:]), run.device), phase.length.epochs
    return step, len(run.train) * (step * epochs + counter.get_total_flops() / 2 * min(phase.views, epochs))


def count_flops(write: Writer, flops: float) -> None:
    """Add to the FLOPs that a stage's notes say it took: matrix products and convolutions, two a multiply-add."""
    write.notes["flops"] = write.notes.get("flops", 0.0) + flops
