"""Notebook 07: the cross term between both tasks' scores, and the constant of Lemma 1, at Stage 1's solution."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..artifacts.artifact import Writer
from ..fisher.cross import cross_fisher
from ..fisher.diagonal import diagonal_fishers
from ..longtail import TASKS
from ..models.vit import depth_of
from ..theory import lemma
from ..theory.expansion import cross_weights
from .networks import stage1_networks
from .proxy_inputs import load_proxy
from .run import Run

FITS_BY = "fisher.batch_size"


def parameters(run: Run) -> dict:
    return {"images": run.config.theory.images, "damping": run.config.selection.damping}


def make(run: Run, write: Writer) -> None:
    networks, settings = stage1_networks(run), run.config.fisher
    damping = run.config.selection.damping
    damping = load_proxy(run).evidence() if damping == "evidence" else damping
    cross, posterior = [], []
    for which, images in (("training", run.train), ("test", run.test)):
        chosen = np.random.default_rng(run.config.seed).permutation(len(images))[: run.config.theory.images]
        batches = run.batches(images, settings.batch_size, np.sort(chosen))
        scratch = settings.buffer_megabytes
        found = diagonal_fishers(networks, batches, run.likelihoods, buffer_megabytes=scratch)
        fishers = [found[t] for t in TASKS]
        cross.append(_cross_terms(run, networks, batches, fishers, (0.0, damping)).assign(images=which))
        posterior.append(_posterior(run, networks, batches).assign(images=which))
    write.table("cross", pd.concat(cross))
    write.table("posterior", pd.concat(posterior))


def _cross_terms(run: Run, networks: dict, batches, fishers: list[dict], dampings: tuple[float, ...]) -> pd.DataFrame:
    """A row a damping and depth, "all" for their sum: at head weight 1/2 the encoder variance of Eq. (18), damped, what the
    cross term adds to it, and the standard error of that over images, in nats."""
    n, depths = len(run.train), depth_of(networks["head"])
    keys = [(damping, depth) for damping in dict.fromkeys(dampings) for depth in range(1, run.n_depths + 1)]
    sums, variance = {}, {}
    for damping, depth in keys:
        pairs = {name: (fishers[0][name], fishers[1][name]) for name in depths if depths[name] == depth}
        sums[damping, depth] = {name: cross_weights(a, b, 0.5, n, damping) for name, (a, b) in pairs.items()}
        # at weight 1/2 the variance is what X = (J^A + J^B) / 2 would add
        added = sums[damping, depth]
        variance[damping, depth] = sum(float((added[name].double() * (a + b) / 2).sum()) for name, (a, b) in pairs.items())
    _, found = cross_fisher(networks, run.likelihoods, batches, sums)
    for damping in dict.fromkeys(dampings):
        own = [key for key in keys if key[0] == damping]
        found[damping, "all"], variance[damping, "all"] = sum(found[k] for k in own), sum(variance[k] for k in own)
    return pd.DataFrame(
        [
            {"damping": damping, "depth": depth, "variance": variance[damping, depth], "cross": float(values.double().mean())}
            | {"standard_error": float(values.double().std()) / len(values) ** 0.5}
            for (damping, depth), values in found.items()
        ]
    )


@torch.no_grad()
def _posterior(run: Run, networks: dict, batches) -> pd.DataFrame:
    """A row an image: label, P(head | image), the entropy of the group (Lemma 1's constant), single_label_mass.

    The probabilities are Stage 1's, adjusted logits and all, conditioned on one label being set.
    """
    parts, labels = [], []
    for images, target in batches:
        z = {t: networks[t](images).float() for t in TASKS}
        if run.config.likelihood == "bernoulli":
            own = [torch.sigmoid(z[t] + run.likelihoods[t].adjustment.to(z[t])) for t in TASKS]
        else:
            own = [torch.softmax(z[t] + run.likelihoods[t].adjustment.to(z[t]), -1)[:, : len(run.partition[t])] for t in TASKS]
        parts.append(torch.cat(own, 1).double().cpu())
        labels.append(target.cpu())
    probabilities = torch.cat(parts).clamp(1e-12, 1 - 1e-12).numpy()
    head = lemma.class_posterior(probabilities)[:, : len(run.partition["head"])].sum(1)
    return pd.DataFrame(
        {
            "label": torch.cat(labels).numpy(),
            "head_probability": head,
            "constant": lemma.group_entropy(head),
            "single_label_mass": lemma.single_label_mass(probabilities),
        }
    )
