"""Three groups of classes instead of two, on images: does the theorem for k groups rank the cells, and are three better?

    python benchmarks/several_groups.py [PARAMS.yaml] [--groups K ...] [--seeds SEED ...] [--set KEY=VALUE] [--quick] [--out DIR]

The classes are cut by training count into k groups of as many classes, the most frequent first, and the three stages are gone
through with k tasks: a network each, one encoder under k decoders at each vector of weights, the assembled network refined at
each depth. Two groups are OSDTW itself and stand beside. Weights: all alike, and each group in turn counting twice.
What the theorem says of the cells is osdtw_lib/theory/several_groups.py with the Fishers and mismatches of the k networks.
A killed run goes on where it was. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import copy
import itertools

import numpy as np
import pandas as pd
import torch
from common import machine, parser, show, write
from end_to_end import TINY
from torch import nn

from osdtw_lib.ablation.ranking import spearman
from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.lock import held
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Config
from osdtw_lib.evaluation.scores import in_class_order, predict, scores_over
from osdtw_lib.fisher.diagonal import diagonal_fishers
from osdtw_lib.models.likelihoods import task_likelihoods
from osdtw_lib.models.two_branch import share_encoder
from osdtw_lib.models.vit import ViT, decode, depth_of, encode
from osdtw_lib.models.weights import copy_encoder, load_weights, weights
from osdtw_lib.proxy.exact import Proxy
from osdtw_lib.proxy.measured_bias import LOSSES, estimates, losses_at, losses_under, stratified_sample
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import start_network
from osdtw_lib.stages.pipeline import train
from osdtw_lib.stages.run import Run
from osdtw_lib.stages.side_by_side import everywhere
from osdtw_lib.theory import several_groups as theorem
from osdtw_lib.training.frozen_features import Features
from osdtw_lib.training.loop import fit
from osdtw_lib.training.phase import Phase
from osdtw_lib.verdict.seed_run import seed_run

DEPTHS = (0, 1, 3, 6)  # and the last; those beyond it are left out
QUICK = (*TINY, "ablation.seeds=[0]", "stage2.epochs=1", "stage2.warmup_epochs=0", "stage3.epochs=1")
FORMS = ("eq18", "exact", "damped", "direct")


class Branches(nn.Module):
    """TwoBranchViT with any number of tasks: {task: network}, one up to `shared_depth`. images -> {task: logits}."""

    def __init__(self, networks: dict[str, ViT], shared_depth: int):
        super().__init__()
        self.networks, self.shared_depth = nn.ModuleDict(networks), shared_depth
        for other in self.others:
            share_encoder(self.first, other, shared_depth)

    @property
    def first(self) -> ViT:
        return next(iter(self.networks.values()))

    @property
    def others(self) -> list[ViT]:
        return list(self.networks.values())[1:]

    def forward(self, images):
        return self.decoded(encode(self.first, images, self.shared_depth))

    def decoded(self, hidden):
        return {task: decode(network, hidden, self.shared_depth) for task, network in self.networks.items()}


class Groups:
    """A seed of the run with its classes in k groups: what is trained and where it lies."""

    def __init__(self, config: Config, seed: int, k: int):
        self.run = run = seed_run(Run(config), seed)
        order = np.argsort(-run.class_counts, kind="stable")
        groups = {f"group_{i}": np.sort(part) for i, part in enumerate(np.array_split(order, k))}
        self.likelihoods = task_likelihoods(config.likelihood, run.class_counts, groups, config.logit_adjustment)
        self.folder, self.k = run.top / "several_groups" / str(k), k
        self.depths = [*(depth for depth in DEPTHS if depth < run.n_depths), run.n_depths]

    def fresh(self) -> dict[str, ViT]:
        return {task: start_network(self.run, own.n_outputs) for task, own in self.likelihoods.items()}

    def losses(self, logits: dict, labels, share: dict | None = None) -> dict:
        return {t: -(share[t] if share else 1) * self.likelihoods[t](own, labels).mean() for t, own in logits.items()}

    def artifact(self, name: str, **parameters) -> Artifact:
        run = self.run
        lengths = {f"stage{i}": getattr(run.config, f"stage{i}").model_dump(mode="json") for i in (1, 2, 3)}
        settings = lengths | run.dump("likelihood", "logit_adjustment", "recipe") | {"groups": self.k} | parameters
        return Artifact(name, self.folder / name, settings, (run.artifact("start"),))

    @property
    def stage1(self) -> Artifact:
        return self.artifact("stage1")

    def cells(self, number: int) -> Artifact:
        """What is measured at one vector of weights."""
        return self.artifact(f"cells_{number}", weights=self.weights[number].tolist(), depths=self.depths)

    @property
    def weights(self) -> np.ndarray:
        """(k + 1, k): all alike, then each group twice."""
        return np.vstack([np.full(self.k, 1 / self.k), (1 + np.eye(self.k)) / (self.k + 1)])

    def alone(self) -> dict[str, ViT]:
        made = self.stage1.require()
        return {t: load_weights(network, made.tensors(t)).eval() for t, network in self.fresh().items()}


# training -------------------------------------------------------------------------------------------------------


def start(config: Config, seed: int) -> None:
    for stage in ("split", "start"):
        execute(seed_run(Run(config), seed), stage, quiet=True)


def stage1(config: Config, seed: int, k: int) -> None:
    """A network a group, and their Fishers."""
    own = Groups(config, seed, k)
    if own.stage1.why_not_done() is None:
        return
    run, networks = own.run, nn.ModuleDict(own.fresh())

    def losses(networks, part):
        for task, network in networks.items():
            yield own.losses({task: network(part.images)}, part.labels)

    with own.stage1.making() as made:
        train(run, made, networks, [Phase(config.stage1, losses)], "stage1", f"{k} groups, seed {seed}, stage1")
        for task, network in networks.items():
            made.tensors(task, weights(network))
        batches = run.batches(run.train, config.fisher.batch_size)
        for task, fisher in diagonal_fishers(dict(networks.items()), batches, own.likelihoods).items():
            made.tensors(f"fisher_{task}", fisher)


def stages2and3(config: Config, seed: int, k: int, number: int) -> None:
    """One encoder under k decoders at a vector of weights, then every depth of it assembled and refined."""
    own = Groups(config, seed, k)
    made = own.cells(number)
    if made.why_not_done() is None:
        return
    run, share = own.run, dict(zip(own.likelihoods, own.weights[number].tolist()))
    joint, label = Branches(own.fresh(), run.n_depths), f"{k} groups, seed {seed}, weights {number}"
    with made.making() as writer:
        losses = lambda network, part: own.losses(network(part.images), part.labels, share)  # noqa: E731
        train(run, writer, joint, [Phase(config.stage2, losses)], "stage2", f"{label}, stage2")
        training = Features(run.batches(run.train), joint.first, own.depths, config.stage3.epochs, config.recipe.precision)
        test, rows = Features(run.batches(run.test), joint.first, own.depths, 1, config.recipe.precision), []
        for depth in own.depths if number == 0 else own.depths[1:]:  # C = 0 has no weights
            networks = own.alone()
            for network in networks.values():
                copy_encoder(joint.first, network, depth)
            whole = Branches(networks, depth)
            shared = {id(p) for n, p in whole.first.named_parameters() if depth_of(whole.first)[n] <= depth}
            for parameter in whole.parameters():
                parameter.requires_grad_(id(parameter) not in shared)
            phase = Phase(config.stage3, lambda network, part: own.losses(network.decoded(part.images), part.labels))
            before = accuracy(own, whole, test.at(depth))
            checkpoint = writer.checkpoint(f"refined_{depth}")
            fit(whole, phase, training.at(depth), config.recipe, checkpoint, run.seed("stage3"), f"{label}, C {depth}")
            after = accuracy(own, whole, test.at(depth))
            rows.append({"shared_depth": depth, "assembled": before, "all": after})
        writer.table("cells", pd.DataFrame(rows))


def accuracy(own: Groups, network: Branches, features) -> float:
    """Per cent of the test images, from features at the network's shared depth."""
    scores = lambda network, hidden: in_class_order(network.decoded(hidden), own.likelihoods)  # noqa: E731
    found = scores_over(network, scores, features, own.run.config.recipe.precision)
    return 100 * float((predict(found) == own.run.test.labels).mean())


# what the theorem says ------------------------------------------------------------------------------------------


def forms(own: Groups) -> pd.DataFrame:
    """A row a cell: shared_depth, weights (their number), and every form's total in nats."""
    run, networks = own.run, own.alone()
    depths, n = depth_of(next(iter(networks.values()))), len(run.train)
    fishers = {t: own.stage1.tensors(f"fisher_{t}") for t in networks}
    damping = evidence(own, networks, fishers)
    own_damping = run.config.direct.damping
    measured = direct_bias(own, networks, fishers, damping if own_damping == "evidence" else own_damping)
    counted, rows = [_decoders(fishers, depths, lam) for lam in (0.0, damping)], []
    for number, w in enumerate(own.weights):
        terms = {form: np.zeros(run.n_depths + 1) for form in FORMS}  # of each depth alone
        for depth in range(1, run.n_depths + 1):
            there, optima = _of_depth([name for name, at in depths.items() if at == depth], networks, fishers)
            plain, ridged = theorem.variance(there, w, n), theorem.variance(there, w, n, damping)
            terms["eq18"][depth] = plain + theorem.bias(there, optima, w[:, None])
            terms["exact"][depth] = plain + theorem.bias(there, optima, theorem.shares(there, w))
            terms["damped"][depth] = ridged + theorem.bias(there, optima, theorem.shares(there + damping, w))
            terms["direct"][depth] = ridged
        for depth in own.depths:
            left = {form: counted[form in ("damped", "direct")][depth + 1 :].sum() / (2 * n) for form in FORMS}
            totals = {form: terms[form][: depth + 1].sum() + left[form] for form in FORMS}
            totals["direct"] += measured[number, depth]
            rows.append({"shared_depth": depth, "weights": number} | totals)
    return pd.DataFrame(rows)


def _of_depth(names: list[str], networks: dict, fishers: dict) -> tuple[np.ndarray, np.ndarray]:
    """Fishers and weights (k, P) of these parameters, float64; without dead ones, which add nothing."""
    parameters = {t: weights(network) for t, network in networks.items()}
    there, optima = (
        np.stack([np.concatenate([of[t][name].double().numpy().ravel() for name in names]) for t in networks])
        for of in (fishers, parameters)
    )
    alive = there.max(0) > 0
    return there[:, alive], optima[:, alive]


def _decoders(fishers: dict, depths: dict, damping: float) -> np.ndarray:
    """(L + 2,): at each depth alone, decoder-only at the end, the tasks' parameters as (J / (J + damping))^2 counts them."""
    found = np.zeros(max(depths.values()) + 1)
    for named in fishers.values():
        for name, fisher in named.items():
            j = fisher[fisher > 0].double()
            found[depths[name]] += float(((j / (j + damping)) ** 2).sum())
    return found


def evidence(own: Groups, networks: dict, fishers: dict) -> float:
    """The evidence rule's damping, the geometric mean over the tasks: that over all pairs, a pair's being the mean of its two."""
    depths, last = depth_of(next(iter(networks.values()))), own.run.n_depths
    trained = {t: weights(network) for t, network in networks.items()}
    begun = {t: weights(network) for t, network in own.fresh().items()}
    far = {t: sum(float((p - begun[t][n]).double().square().sum()) for n, p in trained[t].items()) for t in trained}
    found = []
    for a, b in itertools.combinations(networks, 2):
        mismatch = {n: trained[b][n] - p for n, p in trained[a].items() if depths[n] <= last}
        found.append(Proxy(fishers[a], fishers[b], mismatch, depths, len(own.run.train), (far[a], far[b])).evidence())
    return float(np.exp(np.mean(np.log(found))))


@torch.no_grad()
def direct_bias(own: Groups, networks: dict, fishers: dict, damping: float) -> np.ndarray:
    """(vectors of weights, L + 1): by how much the selection's loss grows where the first depths of all networks are merged."""
    run, settings = own.run, own.run.config.direct
    chosen = stratified_sample(run.train.labels, settings.images, run.config.seed)
    batches = list(run.batches(run.train, settings.batch_size, chosen))
    labels = torch.cat([y for _, y in batches]).numpy()
    alone = torch.cat([losses_at(networks, own.likelihoods, x, y, 0) for x, y in batches])
    found, column = np.zeros((len(own.weights), run.n_depths + 1)), 2 * LOSSES.index(run.config.selection.loss)
    for number, w in enumerate(own.weights):
        merged = copy.deepcopy(next(iter(networks.values()))).eval()
        for name, parameter in merged.named_parameters():
            if depth_of(merged)[name] <= run.n_depths:
                pull = torch.stack([v * (fishers[t][name].double() + damping) ** settings.power for t, v in zip(networks, w)])
                optima = torch.stack([network.get_parameter(name).double() for network in networks.values()])
                parameter.copy_((pull * optima).sum(0) / pull.sum(0))
        under = losses_under(merged, networks, own.likelihoods, batches)
        found[number, 1:] = [estimates(losses - alone, labels, run.class_counts)[column] for losses in under]
    return found


# tables ---------------------------------------------------------------------------------------------------------


def measured(own: Groups) -> pd.DataFrame:
    """A row a cell, what was measured beside what every form says; C = 0 once."""
    cells = pd.concat([own.cells(i).table("cells").assign(weights=i) for i in range(len(own.weights))])
    found = cells.merge(forms(own), on=["shared_depth", "weights"])
    named = [" : ".join(f"{w:.2g}" for w in own.weights[i]) for i in found["weights"]]
    return found.assign(groups=own.k, seed=own.run.config.seed, weights=named)


def judged(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a number of groups, seed and form: rank correlation with the measured cells, the pick, and its regret in points."""
    rows = []
    for (k, seed), own in cells.groupby(["groups", "seed"]):
        best = own.loc[own["all"].idxmax()]
        for form in FORMS:
            pick = own.loc[own[form].idxmin()]
            rows.append(
                {"groups": k, "seed": seed, "form": form, "spearman": spearman(own["all"], -own[form])}
                | {"pick": _named(pick), "pick_all": pick["all"], "best": _named(best), "best_all": best["all"]}
                | {"regret": best["all"] - pick["all"]}
            )
    return pd.DataFrame(rows)


def _named(cell: pd.Series) -> str:
    return f"C = {cell['shared_depth']}" + (f", {cell['weights']}" if cell["shared_depth"] else "")


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("params", nargs="?", default=str(PROJECT / "params" / "mnist_lt.yaml"))
    made.add_argument("--groups", type=int, nargs="+", default=[2, 3], help="numbers of groups (default: 2 3)")
    made.add_argument("--seeds", type=int, nargs="+", help="default: those of the ablation")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace one key")
    asked = made.parse_args()
    run = Run(load_config(asked.params, [*asked.set, *((*QUICK, f"outputs={asked.out}") if asked.quick else ())]))
    seeds, config = asked.seeds or list(run.config.ablation.seeds), run.config
    jobs = [(seed, k) for k in asked.groups for seed in seeds]
    with held(run.locked):
        everywhere(run, start, [(seed,) for seed in seeds])
        everywhere(run, stage1, jobs)
        everywhere(run, stages2and3, [(seed, k, number) for seed, k in jobs for number in range(k + 1)])
        cells = pd.concat([measured(Groups(config, seed, k)) for seed, k in jobs], ignore_index=True)
    table = judged(cells)
    print(machine())
    by_form = table.groupby(["groups", "form"], sort=False)[["spearman", "regret", "pick_all", "best_all"]]
    show(f"{config.name}, seeds {', '.join(map(str, seeds))}: mean", by_form.mean().reset_index().round(2))
    show("every seed", table.drop(columns="best_all").round(2))
    write(cells, asked.out, f"several_groups_{config.name}_cells.csv")
    write(table, asked.out, f"several_groups_{config.name}.csv")


if __name__ == "__main__":
    main()
