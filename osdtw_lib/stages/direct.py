"""Notebook 04: the encoder bias measured over (C, w_A) by forward passes of Stage 1's networks."""

from __future__ import annotations

from ..artifacts.artifact import Writer
from ..longtail import TASKS
from ..models.vit import costs_by_depth
from ..proxy.measured_bias import direct_bias, stratified_sample
from .networks import stage1_networks
from .pipeline import count_flops
from .proxy_inputs import merge_of
from .run import Run

FITS_BY = "direct.batch_size"


def parameters(run: Run) -> dict:
    return run.config.direct.model_dump(mode="json", exclude={"batch_size"})


def make(run: Run, write: Writer) -> None:
    settings = run.config.direct
    chosen = stratified_sample(run.train.labels, settings.images, run.config.seed)
    sample = list(run.batches(run.train, settings.batch_size, chosen))  # read once, used for every weight
    fishers, damping, power = merge_of(run)
    bias = direct_bias(
        stage1_networks(run),
        fishers,
        run.likelihoods,
        sample,
        run.class_counts,
        damping,
        power,
        checkpoint=write.checkpoint("direct", of_each=True),
    )
    write.table("bias", bias)
    count_flops(write, len(chosen) * bias["head_weight"].nunique() * _forwards(run))
    share = write.elapsed() / run.artifact("stage1").seconds()
    print(f"direct bias: {len(chosen)} images, {100 * share:.0f} % of Stage 1's time", flush=True)
    write.notes |= {"images": len(chosen), "share_of_stage1": round(share, 4)}


def _forwards(run: Run) -> float:
    """FLOPs an image at one head weight: the merged encoder once, and from each of its depths both tasks' remaining ones."""
    both = [costs_by_depth(run.config.model, run.likelihoods[task].n_outputs)[1] for task in TASKS]
    return sum(both[0][:-1]) + sum(sum(flops[depth:]) for flops in both for depth in range(1, run.n_depths + 1))
