"""Notebook 06: the methods OSDTW is compared with, each trained by its phases from the same start on the same batches."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from ..artifacts.artifact import Artifact, Writer
from ..backend import distributed
from ..data.sampling import SAMPLINGS
from ..errors import UserError
from ..methods._base import Method
from ..models.weights import weights
from .networks import started
from .pipeline import train
from .run import Run


def parameters(run: Run, name: str) -> dict:
    method, parameters = run.asked[name]
    own = {"parameters": parameters.model_dump(mode="json")} if method.Parameters.model_fields else {}
    # a file of one's own may read all that a Problem knows
    file = {"file": method.file_sha256()} | run.dump("likelihood", "head_share", "stage1", "stage3") if method.file else {}
    length = run.dump("stage2", "logit_adjustment", "recipe")
    length["stage2"].pop("from_merge", None)  # Stage 2's own
    return {"method": name} | own | file | length


def inputs(run: Run, name: str) -> tuple[Artifact, ...]:
    after = run.asked[name][0].after
    return (run.artifact("start"), *([run.artifact(f"baselines/{after}")] if after else []))


def before(run: Run) -> None:
    """Raises UserError for what cannot be trained, and where several processes would train something else than one."""
    for method in run.methods.values():
        _require_known_sampling(method)
    coupled = [name for name, method in run.methods.items() if any(phase.coupled for phase in method.phases())]
    if coupled and max(run.workers, distributed.world_size()) > 1:
        why = "what one image costs depends on its batch; train in one process: workers: 1, without torchrun"
        raise UserError(f"baselines: {', '.join(coupled)}: {why}")


def make(run: Run, write: Writer) -> None:
    name = write.artifact.name.split("/")[1]
    kind, parameters = run.asked[name]
    method = kind(started(run), parameters)
    network = method.build()
    if kind.after:
        method.begin(network, run.read(f"baselines/{kind.after}", "network"))
    _require_scores(run, method, network)
    train(run, write, network, method.phases(), "stage2", write.artifact.name)
    write.tensors("network", weights(network))
    row = {"method": name, "parameters": parameters.model_dump(mode="json")}
    if kind.file:
        row |= {"file": str(kind.file), "sha256": kind.file_sha256()}
        with contextlib.suppress(UnicodeDecodeError):
            write.text(f"{name}.py", kind.code.decode())  # predicts wherever its file went
    write.json("predictor", run.problem.described(**row))


def _require_known_sampling(method: Method) -> None:
    """Raises UserError, one line, for a phase that draws its images by a name that there is not."""
    for phase in method.phases():
        epochs = range(phase.length.epochs)
        of_images = [phase.sampling(epoch) for epoch in epochs] if callable(phase.sampling) else [phase.sampling]
        for what, drawn, names in (
            *(("sampling", drawn, SAMPLINGS) for drawn in of_images),
            *(("streams", drawn, ("again", *SAMPLINGS)) for drawn in phase.streams),
        ):
            if isinstance(drawn, str) and drawn not in names:
                raise UserError(f"{method.file or method.name}: {what} has '{drawn}'; it is one of {', '.join(names)}")


@torch.no_grad()
def _require_scores(run: Run, method: Method, network: nn.Module) -> None:
    """Raises UserError, one line, before the training, where what scores give is no table."""
    black = torch.zeros(2, run.config.model.channels, *run.image_size, device=run.device)
    found = method.scores(network.eval(), black)
    network.train()
    shape, wanted = tuple(getattr(found, "shape", ())), (2, len(run.class_names))
    if shape != wanted:
        what = f"of shape {shape}" if shape else f"a {type(found).__name__}"
        raise UserError(
            f"{method.file or method.name}: scores(network, images) of 2 images and {wanted[1]} classes is {what}; it is a "
            f"tensor of shape {wanted}, a column a class in class order"
        )
