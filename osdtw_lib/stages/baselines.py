"""Notebook 06: the methods OSDTW is compared with, each trained by its phases from the same start on the same batches."""

from __future__ import annotations

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import checksum
from ..backend import distributed
from ..errors import UserError
from ..models.weights import weights
from .networks import started
from .pipeline import train
from .run import Run


def parameters(run: Run, name: str) -> dict:
    method, parameters = run.asked[name]
    own = {"parameters": parameters.model_dump(mode="json")} if method.Parameters.model_fields else {}
    # a file of one's own may read all that a Problem knows
    file = {"file": checksum(method.file)} | run.dump("likelihood", "head_share", "stage1", "stage3") if method.file else {}
    length = run.dump("stage2", "logit_adjustment", "recipe")
    length["stage2"].pop("from_merge", None)  # Stage 2's own
    return {"method": name} | own | file | length


def inputs(run: Run, name: str) -> tuple[Artifact, ...]:
    after = run.asked[name][0].after
    return (run.artifact("start"), *([run.artifact(f"baselines/{after}")] if after else []))


def before(run: Run) -> None:
    """Raises UserError for what cannot be trained, and where several processes would train something else than one."""
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
    train(run, write, network, method.phases(), "stage2", write.artifact.name)
    write.tensors("network", weights(network))
    row = {"method": name, "parameters": parameters.model_dump(mode="json")}
    if kind.file:
        row |= {"file": str(kind.file), "sha256": checksum(kind.file)}
    write.json("predictor", run.problem.described(**row))
