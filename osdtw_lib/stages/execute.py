"""How a stage's results come about: found as they are, made here, or made by several processes together."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..artifacts.artifact import Artifact, Writer
from ..backend import distributed, reproducible
from ..backend.progress import clock
from ..config.schema import Config, Recipe
from ..models.flops import step_flops
from ..training.loop import fit
from .run import Run, notebook_of


def require(run: Run, stage: str, **where) -> Artifact:
    """The results of an earlier stage. Raises UserError naming the notebook to run where they are not there."""
    artifact = run.artifact(stage, **where if stage in ("stage2", "stage3") else {})
    return artifact.require(f"run notebook {notebook_of(stage)} first (./run_all.sh --from {notebook_of(stage)[:2]})")


def made(run: Run, artifact: Artifact, function: Callable[[Writer], None], together: Callable | None = None) -> Artifact:
    """The artifact, made by function(writer) where it is not done; says in one line why it ran or did not.

    together: the stage function this is called from, if several processes can share its work. They are started here
    (`workers` in the parameter file; by default one a GPU) and each calls it again, unless torchrun has started them.
    """
    reason = distributed.from_first(artifact.why_not_done() if distributed.rank() == 0 else None)
    if reason is None:
        print(f"{artifact.name}: up to date (took {clock(artifact.seconds())})", flush=True)
        return artifact
    if run.config.reproducible:
        reproducible.require()
    for before in artifact.inputs:
        before.require(f"run notebook {notebook_of(before.name)} first (./run_all.sh --from {notebook_of(before.name)[:2]})")
    if together and run.workers > 1 and distributed.world_size() == 1:
        print(f"{artifact.name}: {run.workers} processes start", flush=True)
        distributed.launch(_again, (together, run.config), run.workers, run.config.device)
        return artifact.require()
    if together or distributed.rank() == 0:
        print(f"{artifact.name}: runs, {reason}", flush=True)
        with artifact.making(str(run.device)) as writer:
            function(writer)
    distributed.wait_for_all()
    print(f"{artifact.name}: done in {clock(artifact.seconds())}", flush=True)
    return artifact


def _again(stage: Callable[[Run], object], config: Config) -> None:
    stage(Run(config))


def train(run: Run, write: Writer, network: nn.Module, losses, stage: str, depths: dict[str, int], label: str,
          recipe: Recipe | None = None) -> None:
    """Train with the parameters of a stage; the history becomes the table "curves"."""
    recipe, length = recipe or run.config.recipe, getattr(run.config, stage)
    flops = step_flops(network, losses, (run.config.model.channels, *run.image_size), run.device)
    if recipe.compile:
        for called in network.values() if isinstance(network, nn.ModuleDict) else [network]:
            called.compile()
    checkpoint, seed, batches = write.checkpoint("training"), run.seed(stage), run.batches(run.train, recipe=recipe)
    write.table("curves", fit(network, losses, batches, recipe, length, depths, checkpoint, seed, label, flops))
