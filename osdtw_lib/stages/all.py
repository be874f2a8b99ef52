"""The stage functions: what runs, in what order, from what. Each computes and saves, or finds its result.

They are the same in a notebook, on the command line (`python -m osdtw_lib STAGE params/NAME.yaml`) and in the
batch. Each returns its Artifact and says in one line why it ran or did not.
"""

from __future__ import annotations

import json
import math
import time

import pandas as pd
import torch

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import write_text
from ..config.schema import BASELINES
from ..data.image_check import check_files
from ..data.repeats import refuse_leaks
from ..data.splits import index_hash, split_notes
from ..evaluation.metrics import accuracy_by_group, confusion
from ..evaluation.scores import class_scores, predict
from ..fisher.diagonal import diagonal_fisher
from ..longtail import TASKS
from ..models.likelihoods import baseline_likelihood
from ..models.masked_autoencoder import MaskedAutoencoder
from ..models.pretrained import given_start
from ..models.vit import depth_of
from ..models.weights import copy_encoder, weights
from ..proxy.binned import ProxySummary
from ..proxy.exact import Proxy
from ..proxy.grid import Choice
from ..proxy.measured_bias import direct_bias, stratified_sample
from .execute import made, require, train
from .networks import assembled, stage1_networks, start_network, trained
from .proxy_inputs import load_proxy, measured_bias
from .run import Run
from .selection import cell, chosen_by_hand, origin, selection
from .theory_stages import label_dependence, simulation

METHODS = (*BASELINES, "stage1", "stage2", "osdtw_assembled", "osdtw")


def split(run: Run) -> Artifact:
    """Notebook 01: the indices of the training and test images, their hash, the class counts; files are checked."""
    check_files(run.source.images, run.indices, run.folder)  # before the key asks what they hold: one reading serves both

    def make(write: Writer) -> None:
        train, test = run.indices
        copies = refuse_leaks(run.source.images, run.indices, run.config.data, run.folder)
        for line in (run.caption, *split_notes(run.source, run.config.data, train, test), *copies):
            print(f"split: {line}", flush=True)
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
        write.notes |= {"indices_sha256": index_hash(train, test), "seed": run.config.seed, "caption": run.caption}

    return made(run, run.artifact("split"), make)


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
            # crops and moves alone: labels are not used, and what is painted should look like a photograph
            recipe = config.recipe.model_copy(update={"rand_augment": None, "mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0})
            losses = lambda images, labels: {"error": autoencoder(images)}  # noqa: E731
            train(run, write, autoencoder, losses, "stage0", depths, "start", recipe)
            write.tensors("autoencoder", weights(autoencoder))
        elif config.model.init == "scratch":
            origin = f"random weights of seed {config.seed}"
        else:
            origin = given_start(config.model, vit)
        write.tensors("weights", weights(vit))
        write.notes["origin"] = origin

    return made(run, run.artifact("start"), make, start)


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
                    mine = torch.isin(labels, own[task]) if labels.ndim == 1 else labels[:, own[task]].sum(1)
                    values[task] = -(score * mine).sum() / mine.sum().clamp(min=1e-6)
                else:
                    values[task] = -score.mean()
            return values

        train(run, write, networks, losses, "stage1", depths, "stage1")
        for task in TASKS:
            write.tensors(task, weights(networks[task]))

    return made(run, run.artifact("stage1"), make, stage1)


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
                checkpoint=write.checkpoint(task, of_each=True),
            )
            seconds = time.monotonic() - started
            print(f"fisher: {task}, {len(run.train)} images, {len(run.train) / seconds:.0f} images/s", flush=True)
            write.tensors(task, diagonal)

    return made(run, run.artifact("fisher"), make, fisher)


def direct(run: Run) -> Artifact:
    """Notebook 04: the encoder bias measured over (C, w_A) by forward passes of Stage 1's networks."""

    def make(write: Writer) -> None:
        settings = run.config.direct
        chosen = stratified_sample(run.train.labels, settings.images, run.config.seed)
        sample = list(run.batches(run.train.subset(chosen), settings.batch_size))  # read once, used for every weight
        fishers = {task: run.artifact("fisher").tensors(task) for task in TASKS}
        damping = load_proxy(run).evidence() if settings.damping == "evidence" else settings.damping
        bias = direct_bias(
            stage1_networks(run), fishers, run.likelihoods, sample, run.class_counts,
            damping, settings.power, checkpoint=write.checkpoint("direct", of_each=True),
        )
        write.table("bias", bias)
        share = write.elapsed() / run.artifact("stage1").seconds()
        print(f"direct bias: {len(chosen)} images, {100 * share:.0f} % of Stage 1's time", flush=True)
        write.notes |= {"images": len(chosen), "share_of_stage1": round(share, 4)}

    return made(run, run.artifact("direct"), make, direct)


def proxy(run: Run) -> Artifact:
    """Notebook 04: every form of the proxy over (C, w_A); selection.json (Algorithm 1, lines 6 to 13)."""

    def make(write: Writer) -> None:
        started = time.monotonic()
        search, wanted = load_proxy(run), run.config.selection
        damping = _damping(run, search)
        grids = {
            "paper": search.grid(form="paper"),
            "damped": search.grid(form="damped", damping=damping),
            "direct": search.grid(form="direct", damping=damping, measured_bias=measured_bias(run)),
        }
        used = {form: 0.0 if form == "paper" else damping for form in grids}
        picks = {form: search.select(grid) for form, grid in grids.items()}
        write.notes |= {"search_seconds": round(time.monotonic() - started, 3), "dead_parameters": search.dead}
        write.table("grid", pd.concat([grid.assign(form=form, damping=used[form]) for form, grid in grids.items()]))
        write.table("picks", pd.DataFrame([{"form": f, "damping": used[f], **vars(pick)} for f, pick in picks.items()]))
        write.table("by_depth", search.by_depth())
        summary = ProxySummary.of(search)
        write.table("encoder_bins", summary.encoder)
        write.table("decoder_bins", summary.decoders)
        write.notes["evidence"] = summary.evidence()
        if wanted.shared_depth is None:
            pick, chosen_by = picks[wanted.form], "proxy"
        else:
            total = _total_there(grids[wanted.form], wanted.shared_depth, wanted.head_weight)
            pick, chosen_by = Choice(wanted.shared_depth, wanted.head_weight, total), "parameters"
        chosen = {**vars(pick), "form": wanted.form, "damping": used[wanted.form], "chosen_by": chosen_by}
        write.json("selection", chosen)
        if not chosen_by_hand(run):
            write_text(run.folder / "selection.json", json.dumps(chosen, indent=1))

    artifact = made(run, run.artifact("proxy"), make)
    selected = selection(run)
    print(_said(selected))
    return artifact


def _said(selected: dict) -> str:
    return f"selection: shared_depth {selected['shared_depth']}, head_weight {selected['head_weight']}, {origin(selected)}"


def _damping(run: Run, search: Proxy) -> float:
    damping = run.config.selection.damping
    return search.evidence() if damping == "evidence" else damping


def _total_there(grid: pd.DataFrame, depth: int, weight: float) -> float | None:
    """The proxy at the cell nearest to a choice that was named; None where it is not finite."""
    cells = grid[grid["shared_depth"] == depth]
    total = float(cells.loc[(cells["head_weight"] - weight).abs().idxmin(), "total"])
    return total if math.isfinite(total) else None


def stage2(run: Run) -> Artifact:
    """Notebook 05: one fully shared network, trained with the selected weights w_A, w_B (section 5)."""
    selected = selection(run)
    print(_said(selected))
    return joint_training(run, selected["head_weight"])


def joint_training(run: Run, weight: float) -> Artifact:
    """Stage 2 at a head weight w_A."""

    def make(write: Writer) -> None:
        network = run.two_branch(run.n_depths)
        copy_encoder(start_network(run, 1), network.head, run.n_depths)
        share = {"head": weight, "tail": 1 - weight}

        def losses(images, labels):
            logits = network(images)
            return {t: -share[t] * run.likelihoods[t](logits[t], labels).mean() for t in TASKS}

        train(run, write, network, losses, "stage2", network.depths(), "stage2")
        write.tensors("network", weights(network))

    return made(run, run.artifact("stage2", head_weight=weight), make, stage2)


def stage3(run: Run) -> Artifact:
    """Notebook 06: assembly (Eq. 15), then the decoders refined with the shared encoder frozen (section 6.2)."""
    selected = selection(run)

    def make(write: Writer) -> None:
        network = assembled(run, selected["shared_depth"], selected["head_weight"], run.config.stage3.decoders)
        network.freeze_encoder()

        def losses(images, labels):
            logits = network(images)
            return {t: -run.likelihoods[t](logits[t], labels).mean() for t in TASKS}

        train(run, write, network, losses, "stage3", network.depths(), "refinement")
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
                "crop_share": getattr(run.config.data, "crop_share", 1.0),
            },
        )

    return made(run, run.artifact("stage3", **cell(selected)), make, stage3)


def baselines(run: Run) -> list[Artifact]:
    """Notebook 06: one network with all classes, a method each, on Stage 2's budget and start."""

    def make(method: str, write: Writer) -> None:
        network = start_network(run, len(run.class_names))
        likelihood = baseline_likelihood(method, run.class_counts, run.config.logit_adjustment)

        def losses(images, labels):
            return {method: -likelihood(network(images), labels).mean()}

        train(run, write, network, losses, "stage2", depth_of(network), f"baselines/{method}")
        write.tensors("network", weights(network))

    artifacts = [(method, run.artifact(f"baselines/{method}")) for method in run.config.baselines]
    return [made(run, artifact, lambda write, m=method: make(m, write), baselines) for method, artifact in artifacts]


def tables(run: Run) -> Artifact:
    """Notebook 06: accuracy by group of every method, confusion matrix, run time a stage."""
    selected = selection(run)
    before = [require(run, stage, **cell(selected)) for stage in ("stage1", "fisher", "proxy", "stage2", "stage3")]
    before += [require(run, f"baselines/{method}") for method in run.config.baselines]
    asked = {"methods": list(METHODS), "chosen_by": selected["chosen_by"]}
    artifact = Artifact("tables", run.folder / "tables", asked, tuple(before))

    def make(write: Writer) -> None:
        batches = run.batches(run.test)
        rows = []
        for method in METHODS:
            row = {"method": method}
            if method not in BASELINES or method in run.config.baselines:
                network, likelihoods = trained(run, method, **cell(selected))
                predicted = predict(class_scores(network, likelihoods, batches))
                row |= accuracy_by_group(predicted, run.test.labels, run.groups)
            rows.append(row | {"seed": run.config.seed})
        write.table("accuracy", pd.DataFrame(rows, columns=["method", "many", "medium", "few", "all", "seed"]))
        # the last method is OSDTW, refined
        counts = confusion(predicted, run.test.labels, len(run.class_names))
        write.table("confusion", pd.DataFrame(counts, columns=run.class_names))
        write.table("runtime", runtime(run, before))
        write.json("selection", selected)
        write.notes |= {"caption": run.caption, "start": run.artifact("start").notes()["origin"]}

    return made(run, artifact, make)


def runtime(run: Run, stages: list[Artifact]) -> pd.DataFrame:
    """Seconds a stage took, as Table 3 counts them: stage, seconds."""
    seconds = {a.name: a.seconds() for a in stages}
    rows = {
        "start": run.artifact("start").seconds(),
        "stage1": seconds["stage1"],
        "fisher": seconds["fisher"],
        "direct": run.artifact("direct").seconds(),
        "search": run.artifact("proxy").notes()["search_seconds"],
        "stage2": seconds["stage2"],
        "refinement": seconds["stage3"],
        "baselines": sum(s for name, s in seconds.items() if name.startswith("baselines/")),
    }
    rows["total"] = sum(rows.values())
    return pd.DataFrame({"stage": rows.keys(), "seconds": [round(s, 2) for s in rows.values()]})


STAGES = {
    f.__name__: f
    for f in (split, start, stage1, fisher, direct, proxy, stage2, stage3, baselines, tables, simulation, label_dependence)
}
