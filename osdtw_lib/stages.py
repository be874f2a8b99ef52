"""The stage functions: what runs, in what order, from what. Each computes and saves, or finds its result.

They are the same in a notebook, on the command line (`python -m osdtw_lib STAGE params/NAME.yaml`) and in the
batch. Each returns its Artifact and says in one line why it ran or did not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from . import evaluation
from .artifacts import Artifact, Writer, read_manifest, write_text
from .config import BASELINES
from .datasets import index_hash
from .errors import UserError
from .fisher import diagonal_fisher
from .losses import baseline_likelihood
from .masked_autoencoder import MaskedAutoencoder
from .progress import clock
from .proxy import Choice, Proxy
from .runs import TASKS, Run, notebook_of
from .training import fit
from .vit import TwoBranchViT, VisionTransformer, copy_encoder, depth_of, given_start, load_weights, weights

METHODS = (*BASELINES, "stage1", "stage2", "osdtw_assembled", "osdtw")


def split(run: Run) -> Artifact:
    """Notebook 01: the indices of the training and test images, their hash, the class counts."""

    def make(write: Writer) -> None:
        train, test = run.indices
        write.tensors("indices", {"train": torch.from_numpy(train), "test": torch.from_numpy(test)})
        group = {int(k): name for groups in (run.groups,) for name, members in groups.items() for k in members}
        task = {int(k): name for name, members in run.partition.items() for k in members}
        classes = range(len(run.class_names))
        write.table(
            "classes",
            pd.DataFrame(
                {
                    "class": run.class_names,
                    "training_images": run.class_counts,
                    "prior": run.class_counts / run.class_counts.sum(),
                    "task": [task[k] for k in classes],
                    "group": [group[k] for k in classes],
                }
            ),
        )
        write.notes |= {"indices_sha256": index_hash(train, test), "seed": run.config.seed}

    return _make(run, run.artifact("split"), make)


def start(run: Run) -> Artifact:
    """Notebook 02: the weights both tasks and every baseline start from (Stage 0, or weights given)."""

    def make(write: Writer) -> None:
        config = run.config
        vit = run.vit(len(run.class_names))
        if config.model.init == "masked_autoencoding":
            origin = f"masked autoencoding of the {len(run.train)} training images, {config.stage0.epochs} epochs"
            with torch.random.fork_rng():
                torch.manual_seed(run.seed("stage0"))
                autoencoder = MaskedAutoencoder(vit, config.stage0).to(run.device)
            # no layer decay: nothing here is fine-tuned
            depths = dict.fromkeys((n for n, _ in autoencoder.named_parameters()), 0)
            curve = fit(
                autoencoder,
                lambda images, labels: {"reconstruction": autoencoder(images)},
                run.batches(run.train),
                config.recipe,
                config.stage0,
                depths,
                write.checkpoint("stage0"),
                run.seed("stage0"),
                "start",
            )
            write.table("curve", curve)
            write.tensors("autoencoder", weights(autoencoder))
        elif config.model.init == "scratch":
            origin = f"random weights of seed {config.seed}"
        else:
            origin = given_start(config.model, vit)
        write.tensors("weights", weights(vit))
        write.notes["origin"] = origin

    return _make(run, run.artifact("start"), make)


def stage1(run: Run) -> Artifact:
    """Notebook 03: each task alone (Eq. 14), from the same start, on the same batches."""

    def make(write: Writer) -> None:
        networks = torch.nn.ModuleDict({task: start_network(run, run.likelihoods[task].n_outputs) for task in TASKS})
        depths = {f"{t}.{n}": d for t in TASKS for n, d in depth_of(networks[t]).items()}
        own = {t: torch.as_tensor(run.partition[t], device=run.device) for t in TASKS}

        def losses(images, labels):
            values = {}
            for task, network in networks.items():
                score = run.likelihoods[task](network(images), labels)
                if run.config.stage1.samples == "own":
                    mine = torch.isin(labels, own[task])
                    values[task] = -(score * mine).sum() / mine.sum().clamp(min=1)
                else:
                    values[task] = -score.mean()
            return values

        curves = fit(
            networks,
            losses,
            run.batches(run.train),
            run.config.recipe,
            run.config.stage1,
            depths,
            write.checkpoint("stage1"),
            run.seed("stage1"),
            "stage1",
        )
        write.table("curves", curves)
        for task in TASKS:
            write.tensors(task, weights(networks[task]))

    return _make(run, run.artifact("stage1"), make)


def fisher(run: Run) -> Artifact:
    """Notebook 03: the exact diagonal empirical Fisher of both tasks over the whole training set (Algorithm 1, line 4)."""

    def make(write: Writer) -> None:
        settings = run.config.fisher
        batches = run.batches(run.train, settings.batch_size)
        for task, network in stage1_networks(run).items():
            started = time.monotonic()
            diagonal = diagonal_fisher(
                network,
                batches,
                run.likelihoods[task],
                buffer_megabytes=settings.buffer_megabytes,
                precision=run.config.recipe.precision,
                checkpoint=write.checkpoint(task),
            )
            seconds = time.monotonic() - started
            print(f"fisher: {task}, {len(run.train)} images, {len(run.train) / seconds:.0f} images/s", flush=True)
            write.tensors(task, diagonal)

    return _make(run, run.artifact("fisher"), make)


def proxy(run: Run) -> Artifact:
    """Notebook 04: Eq. (18) and its damped form over (C, w_A); selection.json (Algorithm 1, lines 6 to 13)."""

    def make(write: Writer) -> None:
        started = time.monotonic()
        search = load_proxy(run)
        forms = {"paper": 0.0, "damped": search.evidence()}
        if isinstance(run.config.selection.damping, float):
            forms["damped"] = run.config.selection.damping
        grids = {form: search.grid(form=form, damping=damping) for form, damping in forms.items()}
        picks = {form: search.select(grid) for form, grid in grids.items()}
        seconds = time.monotonic() - started
        write.table("grid", pd.concat([g.assign(form=f, damping=forms[f]) for f, g in grids.items()]))
        write.table("picks", pd.DataFrame([{"form": f, "damping": forms[f], **vars(p)} for f, p in picks.items()]))
        write.table("by_depth", search.by_depth())
        write.json("selection", _selection(run, forms, grids, picks))
        write.notes |= {"search_seconds": round(seconds, 3), "dead_parameters": search.dead}

    artifact = _make(run, run.artifact("proxy"), make)
    selected = selection(run)
    print(f"selection: shared_depth {selected['shared_depth']}, head_weight {selected['head_weight']} ({selected['chosen_by']})")
    return artifact


def _selection(run: Run, forms: dict, grids: dict, picks: dict[str, Choice]) -> dict:
    wanted = run.config.selection
    if wanted.shared_depth is None:
        pick, chosen_by = picks[wanted.form], "proxy"
    else:
        pick, chosen_by = Choice(wanted.shared_depth, wanted.head_weight, float("nan")), "parameters"
    return {
        "shared_depth": pick.shared_depth,
        "head_weight": pick.head_weight,
        "form": wanted.form,
        "damping": forms[wanted.form],
        "total": pick.total if np.isfinite(pick.total) else None,
        "chosen_by": chosen_by,
    }


def selection(run: Run) -> dict:
    """The choice Stage 2 uses: shared_depth, head_weight, form, damping, total, chosen_by.

    outputs/NAME/selection.json shows it; should that file have been edited, it is put right from the proxy's.
    """
    made = require(run, "proxy")
    text = (made.folder / "selection.json").read_text()
    shown = run.folder / "selection.json"
    if not shown.exists() or shown.read_text() != text:
        if shown.exists():
            print("selection.json is not what the proxy wrote: put right (name shared_depth and head_weight in the "
                  "parameter file to choose yourself)")
        write_text(shown, text)
    return json.loads(text)


def stage2(run: Run) -> Artifact:
    """Notebook 05: one fully shared network, trained with the selected weights w_A, w_B (section 5)."""
    weight = selection(run)["head_weight"]

    def make(write: Writer) -> None:
        network = run.two_branch(run.n_depths)
        copy_encoder(start_network(run, 1), network.head, run.n_depths)
        share = {"head": weight, "tail": 1 - weight}

        def losses(images, labels):
            logits = network(images)
            return {t: -share[t] * run.likelihoods[t](logits[t], labels).mean() for t in TASKS}

        curves = fit(
            network,
            losses,
            run.batches(run.train),
            run.config.recipe,
            run.config.stage2,
            two_branch_depths(network),
            write.checkpoint("stage2"),
            run.seed("stage2"),
            "stage2",
        )
        write.table("curves", curves)
        write.tensors("network", weights(network))

    return _make(run, run.artifact("stage2", head_weight=weight), make)


def stage3(run: Run) -> Artifact:
    """Notebook 06: assembly (Eq. 15), then the decoders refined with the shared encoder frozen (section 6.2)."""
    selected = selection(run)

    def make(write: Writer) -> None:
        network = assembled(run, selected["shared_depth"], run.config.stage3.decoders)
        for parameter in network.encoder_parameters().values():
            parameter.requires_grad_(False)

        def losses(images, labels):
            logits = network(images)
            return {t: -run.likelihoods[t](logits[t], labels).mean() for t in TASKS}

        curves = fit(
            network,
            losses,
            run.batches(run.train),
            run.config.recipe,
            run.config.stage3,
            two_branch_depths(network),
            write.checkpoint("stage3"),
            run.seed("stage3"),
            "refinement",
        )
        write.table("curves", curves)
        write.tensors("network", weights(network))
        write.json(
            "predictor",
            {
                "model": run.config.model.model_dump(mode="json"),
                "shared_depth": selected["shared_depth"],
                "likelihood": run.config.likelihood,
                "class_names": run.class_names,
                "class_counts": run.class_counts.tolist(),
                "mean": run.config.data.mean,
                "std": run.config.data.std,
            },
        )

    return _make(run, run.artifact("stage3", **_cell(selected)), make)


def baselines(run: Run) -> list[Artifact]:
    """Notebook 06: one network with all classes, a method each, on Stage 2's budget and start."""

    def make(method: str, write: Writer) -> None:
        network = start_network(run, len(run.class_names))
        likelihood = baseline_likelihood(method, run.class_counts, run.config.logit_adjustment)
        curves = fit(
            network,
            lambda images, labels: {method: -likelihood(network(images), labels).mean()},
            run.batches(run.train),
            run.config.recipe,
            run.config.stage2,
            depth_of(network),
            write.checkpoint(method),
            run.seed("stage2"),
            f"baselines/{method}",
        )
        write.table("curves", curves)
        write.tensors("network", weights(network))

    artifacts = [(method, run.artifact(f"baselines/{method}")) for method in run.config.baselines]
    return [_make(run, artifact, lambda write, m=method: make(m, write)) for method, artifact in artifacts]


def tables(run: Run) -> Artifact:
    """Notebook 06: accuracy by group of every method, confusion matrix, run time a stage."""
    selected = selection(run)
    made = [require(run, stage, **_cell(selected)) for stage in ("stage1", "fisher", "proxy", "stage2", "stage3")]
    made += [require(run, f"baselines/{method}") for method in run.config.baselines]
    artifact = Artifact("tables", run.folder / "tables", {"methods": METHODS}, tuple(made))

    def make(write: Writer) -> None:
        batches = run.batches(run.test)
        rows = []
        for method in METHODS:
            row = {"method": method}
            if method not in BASELINES or method in run.config.baselines:
                network, likelihoods = trained(run, method, selected["shared_depth"])
                predicted = evaluation.predict(evaluation.class_scores(network, likelihoods, batches))
                row |= evaluation.accuracy_by_group(predicted, run.test.labels, run.groups)
            rows.append(row | {"seed": run.config.seed})
        write.table("accuracy", pd.DataFrame(rows, columns=["method", "many", "medium", "few", "all", "seed"]))
        # the last method is OSDTW, refined
        counts = evaluation.confusion(predicted, run.test.labels, len(run.class_names))
        write.table("confusion", pd.DataFrame(counts, columns=run.class_names))
        write.table("runtime", runtime(run, made))

    return _make(run, artifact, make)


def runtime(run: Run, made: list[Artifact]) -> pd.DataFrame:
    """Seconds a stage took, as Table 3 counts them: stage, seconds."""
    seconds = {a.name: a.seconds() for a in made}
    rows = {
        "start": run.artifact("start").seconds(),
        "stage1": seconds["stage1"],
        "fisher": seconds["fisher"],
        "search": (read_manifest(run.folder / "proxy") or {})["notes"]["search_seconds"],
        "stage2": seconds["stage2"],
        "refinement": seconds["stage3"],
        "baselines": sum(s for name, s in seconds.items() if name.startswith("baselines/")),
    }
    rows["total"] = sum(rows.values())
    return pd.DataFrame({"stage": rows.keys(), "seconds": [round(s, 2) for s in rows.values()]})


# networks out of results ------------------------------------------------------------------------------------


def start_network(run: Run, n_outputs: int) -> VisionTransformer:
    """A fresh network whose encoder is the starting point."""
    network = run.vit(n_outputs)
    source = load_weights(run.vit(len(run.class_names)), run.artifact("start").tensors("weights"))
    copy_encoder(source, network, run.n_depths)
    return network


def stage1_networks(run: Run) -> dict[str, VisionTransformer]:
    made = run.artifact("stage1")
    return {t: load_weights(run.vit(run.likelihoods[t].n_outputs), made.tensors(t)).eval() for t in TASKS}


def stage2_network(run: Run, head_weight: float) -> TwoBranchViT:
    made = run.artifact("stage2", head_weight=head_weight)
    return load_weights(run.two_branch(run.n_depths), made.tensors("network")).eval()


def assembled(run: Run, shared_depth: int, decoders: str = "stage1") -> TwoBranchViT:
    """Eq. (15): Stage 2's first `shared_depth` depths under the decoders of Stage 1 (or of Stage 2 itself)."""
    joint = stage2_network(run, selection(run)["head_weight"])
    branches = stage1_networks(run) if decoders == "stage1" else {"head": joint.head, "tail": joint.tail}
    network = run.two_branch(0)
    for task in TASKS:
        load_weights(getattr(network, task), weights(branches[task]))
        copy_encoder(joint.head, getattr(network, task), shared_depth)
    return TwoBranchViT(network.head, network.tail, shared_depth)


def trained(run: Run, method: str, shared_depth: int):
    """(network: images -> {task: logits}, {task: likelihood}) of a row of the accuracy table."""
    if method in BASELINES:
        vit = run.vit(len(run.class_names))
        load_weights(vit, run.artifact(f"baselines/{method}").tensors("network"))
        likelihood = baseline_likelihood(method, run.class_counts, run.config.logit_adjustment)
        return _Single(vit), {"all": likelihood}
    selected = selection(run)
    if method == "stage1":  # two networks side by side: nothing is shared
        networks = stage1_networks(run)
        network = TwoBranchViT(networks["head"], networks["tail"], 0)
    elif method == "stage2":
        network = stage2_network(run, selected["head_weight"])
    elif method == "osdtw_assembled":
        network = assembled(run, shared_depth)
    else:
        network = load_weights(run.two_branch(shared_depth), run.artifact("stage3", **_cell(selected)).tensors("network"))
    return network, run.likelihoods


class _Single(torch.nn.Module):
    """One network under the name "all", so that it scores as a two-branch one does."""

    def __init__(self, network: VisionTransformer):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"all": self.network(images)}


def load_proxy(run: Run) -> Proxy:
    """The proxy of this run's Stage 1: Fishers, mismatch, and the way travelled from the start."""
    made, networks = require(run, "fisher"), stage1_networks(run)
    depths = depth_of(networks["head"])
    moved = {t: weights(networks[t]) for t in TASKS}
    mismatch = {n: (moved["tail"][n] - p).cpu() for n, p in moved["head"].items() if depths[n] <= run.n_depths}
    distance = []
    for task in TASKS:
        origin = weights(start_network(run, run.likelihoods[task].n_outputs))
        distance.append(sum(float((p - origin[n]).double().square().sum()) for n, p in moved[task].items()))
    return Proxy(made.tensors("head"), made.tensors("tail"), mismatch, depths, len(run.train), tuple(distance))


def two_branch_depths(network: TwoBranchViT) -> dict[str, int]:
    depths = {t: depth_of(getattr(network, t)) for t in TASKS}
    return {name: depths[name.split(".")[0]][name.split(".", 1)[1]] for name, _ in network.named_parameters()}


def require(run: Run, stage: str, **cell) -> Artifact:
    """The results of an earlier stage. Raises UserError naming the notebook to run where they are not there."""
    artifact = run.artifact(stage, **cell if stage in ("stage2", "stage3") else {})
    return artifact.require(f"run notebook {notebook_of(stage)} first (./run_all.sh --from {notebook_of(stage)[:2]})")


def _cell(selected: dict) -> dict:
    return {"head_weight": selected["head_weight"], "shared_depth": selected["shared_depth"]}


def _make(run: Run, artifact: Artifact, make: Callable[[Writer], None]) -> Artifact:
    reason = artifact.why_not_done()
    if reason is None:
        print(f"{artifact.name}: up to date (took {clock(artifact.seconds())})", flush=True)
        return artifact
    for before in artifact.inputs:
        before.require(f"run notebook {notebook_of(before.name)} first (./run_all.sh --from {notebook_of(before.name)[:2]})")
    print(f"{artifact.name}: runs, {reason}", flush=True)
    with artifact.making(str(run.device)) as writer:
        make(writer)
    print(f"{artifact.name}: done in {clock(artifact.seconds())}", flush=True)
    return artifact


STAGES = {f.__name__: f for f in (split, start, stage1, fisher, proxy, stage2, stage3, baselines, tables)}
