"""Notebook 08's stage: section 6.4's grid measured over seeds, beside what every form of the proxy says of it.

For each seed: Stage 0 and 1 once, Stage 2 once a head weight, Stage 3 once a cell (cells.py). Another likelihood
goes the way the pipeline would go: measured at the cell that its own proxy picks. On a CPU as many processes work as
there are threads, one thread each: a network as small as the digits' gains little from a second one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache

import pandas as pd
import torch

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import make_folder, write_text
from ..backend import reproducible
from ..backend.progress import clock
from ..config.schema import Config
from ..errors import UserError
from ..evaluation.metrics import accuracy_by_group
from ..evaluation.scores import class_scores, predict
from ..proxy.grid import Choice
from ..stages import all as stages
from ..stages.networks import trained
from ..stages.proxy_inputs import load_proxy, measured_bias
from ..stages.run import Run
from . import paper_claims as claims
from . import tables as tabled
from .grid_cell import measure, prepare
from .variant import Variant

SHOWN = {"ablation": "ablation", "ranking": "proxy_ranking"}  # these lie in outputs/NAME/tables too


def ablation(run: Run) -> Artifact:
    """Everything notebook 08 shows: computed and saved, or found. A killed run goes on in the cell it was in.

    Tables: cells, ablation, forms, ranking, ceiling, claims, likelihoods. `ablation` and `ranking` are written to
    outputs/NAME/tables/ablation.csv and proxy_ranking.csv as well.
    """
    artifact = _artifact(run)
    reason = artifact.why_not_done()
    if reason is None:
        print(f"ablation: up to date (took {clock(artifact.seconds())})", flush=True)
    else:
        if run.config.reproducible:
            reproducible.require()
        print(f"ablation: runs, {reason}", flush=True)
        with artifact.making(str(run.device)) as write:
            _measure_everything(run)
            _write_tables(run, write)
        print(f"ablation: done in {clock(artifact.seconds())}", flush=True)
    folder = make_folder(run.folder / "tables")
    for name, shown in SHOWN.items():
        write_text(folder / f"{shown}.csv", (artifact.folder / f"{name}.csv").read_text())
    return artifact


def _artifact(run: Run) -> Artifact:
    wanted, depths = run.config.ablation, _depths(run)
    own = [Variant(run, seed, run.config.likelihood) for seed in wanted.seeds]
    others = [Variant(run, seed, likelihood) for seed in wanted.seeds for likelihood in _other_likelihoods(run)]
    inputs = [v.cell(weight, depth) for v in own for weight in wanted.head_weights for depth in (None, *depths)]
    inputs += [v.artifact("direct") for v in (*(m for v in own for m in _merges(v)), *others)]
    inputs += [v.artifact(f"baselines/{method}") for v in own for method in run.config.baselines]
    parameters = {
        "ablation": wanted.model_dump(mode="json"), "selection": run.config.selection.model_dump(mode="json"), "depths": depths,
    }
    # names repeat from seed to seed, so each input goes by its folder
    named = tuple(Artifact(str(a.folder.relative_to(run.folder)), a.folder, {"key": a.key}) for a in inputs)
    return Artifact("ablation", run.folder / "ablation", parameters, named)


def _depths(run: Run) -> list[int]:
    """The shared depths to measure, ascending; 0 and L are always among them: the ends of what can be shared."""
    asked = run.config.ablation.depths
    depths = range(run.n_depths + 1) if asked is None else {0, *asked, run.n_depths}
    if max(depths) > run.n_depths:
        raise UserError(f"ablation.depths: the model has {run.n_depths} blocks, got {max(depths)}")
    return sorted(depths)


def _merges(variant: Variant) -> list[Variant]:
    """The variant, and the same with the other ways to merge the encoders that the ranking compares."""
    own = variant.config.direct
    others = [merge for merge in tabled.MERGES if merge != (own.power, own.damping)]
    return [variant, *(variant.merging_by(*merge) for merge in others)]


def _other_likelihoods(run: Run) -> list[str]:
    return [likelihood for likelihood in run.config.ablation.likelihoods if likelihood != run.config.likelihood]


# measuring --------------------------------------------------------------------------------------------------


def _measure_everything(run: Run) -> None:
    wanted, depths = run.config.ablation, _depths(run)
    _everywhere(run, _prepare, [(seed,) for seed in wanted.seeds])
    # C = 0 has no weight: it is measured with the first
    shares = [(weight, depths if weight == wanted.head_weights[0] else depths[1:]) for weight in wanted.head_weights]
    _everywhere(run, _measure, [(seed, *share) for share in shares for seed in wanted.seeds])
    _everywhere(run, _pipeline, [(seed,) for seed in wanted.seeds])


def _everywhere(run: Run, function: Callable, jobs: list[tuple]) -> None:
    """function(config, *job) for every job, on a CPU in as many processes as torch has threads."""
    workers = min(len(jobs), torch.get_num_threads()) if run.device.type == "cpu" else 1
    if workers < 2:
        for job in jobs:
            function(run.config, *job)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        try:
            for done in [pool.submit(function, run.config, *job) for job in jobs]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@lru_cache(maxsize=1)
def _opened(config: Config) -> Run:
    return Run(config)


def _prepare(config: Config, seed: int) -> None:
    run = _opened(config)
    for likelihood in (config.likelihood, *_other_likelihoods(run)):
        prepare(Variant(run, seed, likelihood))
    for other in _merges(Variant(run, seed, config.likelihood))[1:]:
        stages.direct(other)


def _measure(config: Config, seed: int, head_weight: float, depths: list[int]) -> None:
    measure(Variant(_opened(config), seed, config.likelihood), head_weight, depths)


def _pipeline(config: Config, seed: int) -> None:
    """The cell each other likelihood picks, and the single networks."""
    run = _opened(config)
    for likelihood in _other_likelihoods(run):
        variant = Variant(run, seed, likelihood)
        pick = picked(variant)
        measure(variant, pick.head_weight, sorted({0, pick.shared_depth}))
    stages.baselines(Variant(run, seed, config.likelihood))


def picked(variant: Variant) -> Choice:
    """What the selecting form picks among the cells of the ablation."""
    wanted, selecting = variant.config.ablation, variant.config.selection
    search, options = load_proxy(variant), {}
    if selecting.form != "paper":
        options["damping"] = selecting.damping
    if selecting.form == "direct":
        options["measured_bias"] = measured_bias(variant)
    return search.select(search.grid(_depths(variant), wanted.head_weights, selecting.form, **options))


# tables -----------------------------------------------------------------------------------------------------


def _write_tables(run: Run, write: Writer) -> None:
    wanted, depths = run.config.ablation, _depths(run)
    own = [Variant(run, seed, run.config.likelihood) for seed in wanted.seeds]
    cells = tabled.cells(own, wanted.head_weights, depths)
    refined = cells[cells["network"] == "refined"]
    forms = [tabled.forms(_merges(v), depths, wanted.head_weights).assign(seed=v.config.seed) for v in own]
    forms = pd.concat(forms, ignore_index=True)
    write.table("cells", cells)
    write.table("ablation", refined[tabled.COLUMNS])
    write.table("forms", forms)
    write.table("ranking", tabled.ranking(refined, forms))
    write.table("ceiling", tabled.ceiling(refined))
    write.table("claims", claims.of_section_6_4(cells, run.n_depths))
    write.table("likelihoods", _likelihoods(run))


def _likelihoods(run: Run) -> pd.DataFrame:
    """method, likelihood, shared_depth, head_weight, seed, many, medium, few, all: each likelihood's pipeline at its
    own pick, and the single networks."""
    rows = []
    for seed in run.config.ablation.seeds:
        for likelihood in (run.config.likelihood, *_other_likelihoods(run)):
            variant = Variant(run, seed, likelihood)
            pick = picked(variant)
            at = {"likelihood": likelihood, "shared_depth": pick.shared_depth, "head_weight": pick.head_weight, "seed": seed}
            networks = (("stage1", 0, "assembled"), ("stage2", None, "joint"), ("osdtw", pick.shared_depth, "refined"))
            for method, depth, network in networks:
                scores = variant.cell(pick.head_weight, depth).table("scores")
                found = tabled.summary(scores[scores["network"] == network], variant.groups, variant.class_counts)
                rows.append({"method": method} | at | {name: found[name] for name in (*variant.groups, "all")})
        single = Variant(run, seed, run.config.likelihood)
        for method in run.config.baselines:
            network, likelihoods = trained(single, method, 0, 0.0)
            predicted = predict(class_scores(network, likelihoods, single.batches(single.test)))
            rows.append({"method": method, "seed": seed} | accuracy_by_group(predicted, single.test.labels, single.groups))
    return pd.DataFrame(rows)
