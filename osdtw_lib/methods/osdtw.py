"""OSDTW, the paper's method: two tasks alone (Eq. 14), both jointly (section 5), assembled (Eq. 15) and refined (section 6.2).

The phases are trained in stages of their own, since between them something is measured and chosen; here stands what each
trains with which loss, and the four rows of the accuracy table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from ..config.schema import Training
from ..evaluation.scores import in_class_order
from ..longtail import TASKS
from ..models.likelihoods import categorical
from ..models.two_branch import TwoBranchViT
from ..models.vit import n_depths
from ..models.weights import copy_encoder, load_weights, weights
from ..training.phase import Part, Phase
from ._base import Problem, Read, Row

PAPER = "Chu et al., OSDTW: Optimal Shared Depth and Task Weighting for Long-Tailed Recognition"


# networks -------------------------------------------------------------------------------------------------------


def two_networks(problem: Problem) -> nn.ModuleDict:
    """A network a task; nothing is shared."""
    return nn.ModuleDict({t: problem.vit(problem.likelihoods[t].n_outputs) for t in TASKS})


def two_branches(problem: Problem, shared_depth: int | None = None) -> TwoBranchViT:
    """Both tasks over one encoder of so many depths; None: all."""
    networks = two_networks(problem)
    depth = n_depths(networks["head"]) if shared_depth is None else shared_depth
    return TwoBranchViT(networks["head"], networks["tail"], depth)


def assemble(problem: Problem, encoder: nn.Module, decoders: dict[str, nn.Module], shared_depth: int) -> TwoBranchViT:
    """Eq. (15): the first `shared_depth` depths of one network under the decoders of two others; all of them copied."""
    branches = two_networks(problem)
    for task in TASKS:
        load_weights(branches[task], weights(decoders[task]))
        copy_encoder(encoder, branches[task], shared_depth)
    return TwoBranchViT(branches["head"], branches["tail"], shared_depth)


# losses and phases ----------------------------------------------------------------------------------------------


def minus_likelihoods(problem: Problem, logits: dict, labels: Tensor, share: dict | None = None) -> dict[str, Tensor]:
    """{task: minus its mean log-likelihood}, times its share where one is given; logits: {task: (B, outputs)}, of one or both."""
    means = {t: problem.likelihoods[t](own, labels).mean() for t, own in logits.items()}
    return {t: -(share[t] if share else 1) * mean for t, mean in means.items()}


def alone(problem: Problem) -> Phase:
    """Each task for itself, on the same batches (Eq. 14); `stage1.samples: own` leaves out the other group's images.

    One after the other, so that what a backward pass needs is kept of one network at a time.
    """
    own = problem.config.stage1.samples == "own"
    of = {t: problem.constant(np.isin(np.arange(problem.n_classes), problem.partition[t])) for t in TASKS} if own else {}

    def losses(networks, part):
        for t in TASKS:
            logits = networks[t](part.images)
            if own:
                yield {t: _over_its_own(problem.likelihoods[t], of[t], logits, part)}
            else:
                yield minus_likelihoods(problem, {t: logits}, part.labels)

    return Phase(problem.config.stage1, losses)


def _over_its_own(likelihood: Callable, its: Tensor, logits: Tensor, part: Part) -> Tensor:
    """Over the images of the batch that are of the task's classes, those that `its`, bool (K,), names, however the batch is cut
    into parts; of a mixture of two images each label counts by its share."""
    own, other, share = part.two_labels()
    each = [part_of * its[y] * likelihood(logits, y) for part_of, y in ((share, own), (1 - share, other))]
    return -sum(each).sum() / its[part.batch].sum().clamp(min=1) / part.share


def joint(problem: Problem, head_weight: float) -> Phase:
    """Both tasks over one shared encoder, weighted w_A and 1 - w_A (section 5); begun from a merge, as long as that asks."""
    length = problem.config.stage2
    if length.from_merge:
        length = length.lasting(length.from_merge)
    share = {"head": head_weight, "tail": 1 - head_weight}
    losses = lambda network, part: minus_likelihoods(problem, network(part.images), part.labels, share)  # noqa: E731
    return Phase(length, losses)


def refine(problem: Problem, length: Training | None = None) -> Phase:
    """The decoders of an assembled network, its encoder a fixed function (section 6.2) unless stage3.encoder is trained."""
    likelihoods, length = refined_by(problem), length or problem.config.stage3

    def losses(network, part):
        logits = network(part.images)
        return {name: -likelihood(logits, part.labels).mean() for name, likelihood in likelihoods.items()}

    return Phase(length, losses, prepare=TwoBranchViT.freeze_encoder if problem.config.stage3.encoder == "frozen" else None)


def refined_by(problem: Problem) -> dict[str, Callable[[dict[str, Tensor], Tensor], Tensor]]:
    """{loss: ({task: logits}, labels) -> log-likelihood of each image (B,)}, as `stage3.likelihood` says.

    separate, the paper's: each task's own. joint, ours: one logit-adjusted softmax over the scores that predict, those of
    `in_class_order`: a Bernoulli class's raw logit, a categorical one's log-odds against "the other group", exp of either being
    in proportion to p(image | class). What is added to all scores alike it does not see.
    """
    if problem.config.stage3.likelihood == "separate":
        return {t: lambda logits, labels, t=t: problem.likelihoods[t](logits[t], labels) for t in TASKS}
    whole = categorical(np.arange(problem.n_classes), problem.priors, problem.config.logit_adjustment).to(problem.device)
    return {"joint": lambda logits, labels: whole(in_class_order(logits, problem.likelihoods), labels)}


# rows of the accuracy table -------------------------------------------------------------------------------------


class _TwoTasks(Row):
    source, prior = PAPER, "adjusted"

    def __init__(self, problem: Problem, shared_depth: int | None = None):
        super().__init__(problem)
        self.shared_depth = shared_depth

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        return in_class_order(network(images), self.problem.likelihoods)


class Stage1(_TwoTasks):
    """Stage 1's networks side by side."""

    name, title = "stage1", "Stage 1, two networks"

    def networks(self, read: Read) -> dict[str, nn.Module]:
        return {t: load_weights(network, read("stage1", t)).eval() for t, network in two_networks(self.problem).items()}

    def network(self, read: Read) -> TwoBranchViT:
        networks = self.networks(read)
        return TwoBranchViT(networks["head"], networks["tail"], 0)


class Stage2(_TwoTasks):
    """Stage 2's joint network."""

    name, title = "stage2", "Stage 2, joint network"

    def network(self, read: Read) -> TwoBranchViT:
        return load_weights(two_branches(self.problem), read("stage2", "network")).eval()


class Assembled(_TwoTasks):
    """Stage 2's encoder under Stage 1's decoders (or Stage 2's own, as `stage3.decoders` says), before the refinement."""

    name, title = "osdtw_assembled", "OSDTW assembled"

    def network(self, read: Read) -> TwoBranchViT:
        encoder = Stage2(self.problem).network(read)
        own = self.problem.config.stage3.decoders == "stage2"
        decoders = {"head": encoder.head, "tail": encoder.tail} if own else Stage1(self.problem).networks(read)
        return assemble(self.problem, encoder.head, decoders, self.shared_depth)


class Refined(_TwoTasks):
    """OSDTW as Algorithm 1 ends, or refined under one likelihood."""

    name, title = "osdtw", "OSDTW refined"
    space = {"likelihood": ("bernoulli", "categorical"), "refinement": (0.5, 1.0, 2.0)}  # refinement: times Stage 3's length

    def __init__(self, problem: Problem, shared_depth: int | None = None):
        super().__init__(problem, shared_depth)
        stage3 = problem.config.stage3
        how = {"jointly": stage3.likelihood == "joint", "with its encoder": stage3.encoder == "trained"}
        if changed := [words for words, ours in how.items() if ours]:
            self.title = f"OSDTW refined {' '.join(changed)} (ours)"

    def network(self, read: Read) -> TwoBranchViT:
        return load_weights(two_branches(self.problem, self.shared_depth), read("stage3", "network"))


ROWS = {row.name: row for row in (Stage1, Stage2, Assembled, Refined)}
