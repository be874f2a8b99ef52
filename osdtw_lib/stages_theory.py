"""The stage functions of notebook 07: the theorem against simulation, and what the labels of this data set share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from . import lemma
from . import simulation as monte_carlo
from .artifacts import Artifact, Writer
from .cross_scores import cross_fisher
from .results import load_proxy, make_or_find, stage1_networks
from .runs import TASKS, Run
from .search import DEFAULT_WEIGHTS
from .theory import variance_with_cross
from .vit import depth_of

TABLES = ("theorem", "dependence", "rate", "ridge", "evidence")


def simulation(run: Run) -> Artifact:
    """Notebook 07: Theorem 1 by Monte Carlo; no data set enters, only `theory.repetitions`."""

    def make(write: Writer) -> None:
        for name in TABLES:
            write.table(name, getattr(monte_carlo, name)(run.config.theory.repetitions))
            print(f"simulation: {name}, {write.elapsed():.0f} s so far", flush=True)

    return make_or_find(run, run.artifact("simulation"), make)


def label_dependence(run: Run) -> Artifact:
    """Notebook 07: the cross term between both tasks' scores, and the constant of Lemma 1, at Stage 1's solution."""

    def make(write: Writer) -> None:
        networks = stage1_networks(run)
        damping = run.config.selection.damping
        damping = load_proxy(run).evidence() if damping == "evidence" else damping
        depths = depth_of(networks["head"])
        names = [name for name, depth in depths.items() if depth <= run.n_depths]
        cross, posterior = [], []
        for which, images in (("training", run.train), ("test", run.test)):
            chosen = np.random.default_rng(run.config.seed).permutation(len(images.labels))[: run.config.theory.images]
            batches = run.batches(images.subset(np.sort(chosen)), run.config.fisher.batch_size)
            found = cross_fisher(networks, run.likelihoods, batches, names)
            cross.append(_terms(found, depths, run.n_depths, len(run.train), (0.0, damping)).assign(images=which))
            posterior.append(_posterior(run, networks, batches).assign(images=which))
        write.table("cross", pd.concat(cross))
        write.table("posterior", pd.concat(posterior))
        write.notes["damping"] = damping

    return make_or_find(run, run.artifact("label_dependence"), make)


def _terms(found: dict, depths: dict[str, int], n_depths: int, n_samples: int, dampings: tuple[float, ...]) -> pd.DataFrame:
    """A row a depth, head weight and damping: the encoder variance and what the cross term adds to it, in nats."""
    rows = []
    for depth in range(1, n_depths + 1):
        names = [name for name in found["cross"] if depths[name] == depth]
        a, b, x = (torch.cat([found[w][n].flatten() for n in names]).double().cpu().numpy() for w in ("head", "tail", "cross"))
        for damping in dict.fromkeys(dampings):
            for weight in DEFAULT_WEIGHTS:
                variance, added = variance_with_cross(a, b, x, weight, n_samples, damping)
                rows.append({"depth": depth, "damping": damping, "head_weight": weight, "variance": variance, "cross": added})
    return pd.DataFrame(rows)


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
