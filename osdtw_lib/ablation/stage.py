"""Notebook 08: section 6.4's grid measured over seeds, beside what every form of the proxy says of it.

For each seed: Stage 0 and 1 once, Stage 2 once a head weight, Stage 3 once a cell (grid_cell.py). Another likelihood
goes the way the pipeline would go: measured at the cell that its own proxy picks. Several processes share the cells, one a GPU
or one a core (stages/side_by_side.py).
"""

from __future__ import annotations

import pandas as pd
import torch

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import make_folder, write_text
from ..config.schema import Config
from ..errors import UserError
from ..evaluation.metrics import accuracy_by_group
from ..evaluation.scores import predict, scores_of_several
from ..proxy.grid import Choice
from ..stages import execute
from ..stages.proxy_inputs import load_proxy, measured_bias
from ..stages.run import Run
from ..stages.side_by_side import by_itself, everywhere, opened
from . import paper_claims as claims
from . import tables as tabled
from .grid_cell import depths_of, measure, prepare, shares_of
from .variant import Variant

SHOWN = {"ablation": "ablation", "ranking": "proxy_ranking"}  # these lie in outputs/NAME/tables too


def parameters(run: Run) -> dict:
    if run.config.stage3.encoder == "trained":
        raise UserError("stage3.encoder: notebook 08 refines its cells on features of a frozen encoder; leave the key out for it")
    return run.dump("ablation", "selection") | {"depths": depths_of(run)}


def inputs(run: Run) -> tuple[Artifact, ...]:
    """Every cell, the measured biases and the baselines; names repeat from seed to seed, so each goes by its folder."""
    wanted, depths = run.config.ablation, depths_of(run)
    own = [Variant(run, seed, run.config.likelihood) for seed in wanted.seeds]
    others = [Variant(run, seed, likelihood) for seed in wanted.seeds for likelihood in _other_likelihoods(run)]
    found = [v.cell(weight, depth) for v in own for weight in wanted.head_weights for depth in (None, *depths)]
    found += [v.artifact("direct") for v in (*(m for v in own for m in _merges(v)), *others)]
    found += [v.artifact(name) for v in own for name in run.artifacts_of("baselines")]
    return tuple(Artifact(str(a.folder.relative_to(run.folder)), a.folder, {"key": a.key}) for a in found)


def before(run: Run) -> None:
    by_itself("ablation")


def make(run: Run, write: Writer) -> None:
    """Everything notebook 08 shows; a killed run goes on in the cell it was in.

    Tables: cells, ablation, forms, ranking, ceiling, claims, likelihoods.
    """
    _measure_everything(run)
    _write_tables(run, write)


def publish(run: Run, artifact: Artifact) -> None:
    """`ablation` and `ranking` are outputs/NAME/tables/ablation.csv and proxy_ranking.csv as well."""
    folder = make_folder(run.folder / "tables")
    for name, shown in SHOWN.items():
        write_text(folder / f"{shown}.csv", (artifact.folder / f"{name}.csv").read_text(encoding="utf-8"))


def _merges(variant: Variant) -> list[Variant]:
    """The variant, and the same with the other ways to merge the encoders that the ranking compares."""
    own = variant.config.direct
    others = [merge for merge in tabled.MERGES if merge != (own.power, own.damping)]
    return [variant, *(variant.merging_by(*merge) for merge in others)]


def _other_likelihoods(run: Run) -> list[str]:
    return [likelihood for likelihood in run.config.ablation.likelihoods if likelihood != run.config.likelihood]


# measuring --------------------------------------------------------------------------------------------------


def _measure_everything(run: Run) -> None:
    seeds = run.config.ablation.seeds
    everywhere(run, _prepare, [(seed,) for seed in seeds])
    everywhere(run, _measure, [(seed, *share) for share in shares_of(run) for seed in seeds])
    everywhere(run, _pipeline, [(seed,) for seed in seeds])


def _prepare(config: Config, seed: int) -> None:
    run = opened(config)
    for likelihood in (config.likelihood, *_other_likelihoods(run)):
        prepare(Variant(run, seed, likelihood))
    for other in _merges(Variant(run, seed, config.likelihood))[1:]:
        execute(other, "direct")


def _measure(config: Config, seed: int, head_weight: float, depths: list[int]) -> None:
    measure(Variant(opened(config), seed, config.likelihood), head_weight, depths)


def _pipeline(config: Config, seed: int) -> None:
    """The cell each other likelihood picks, and the single networks."""
    run = opened(config)
    for likelihood in _other_likelihoods(run):
        variant = Variant(run, seed, likelihood)
        pick = picked(variant)
        measure(variant, pick.head_weight, sorted({0, pick.shared_depth}))
    execute(Variant(run, seed, config.likelihood), "baselines")


def picked(variant: Variant) -> Choice:
    """What the selecting form picks among the cells of the ablation."""
    wanted, selecting = variant.config.ablation, variant.config.selection
    search, options = load_proxy(variant), {}
    if selecting.form != "paper":
        options["damping"] = selecting.damping
    if selecting.form == "direct":
        options["measured_bias"] = measured_bias(variant)
    return search.select(search.grid(depths_of(variant), wanted.head_weights, selecting.form, **options))


# tables -----------------------------------------------------------------------------------------------------


def _write_tables(run: Run, write: Writer) -> None:
    wanted, depths = run.config.ablation, depths_of(run)
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
        networks = [(row.network(single.read), row.scores) for row in single.methods.values()]
        scores = scores_of_several(networks, single.batches(single.test), run.config.recipe.precision)
        for method, parts in zip(single.methods, scores):
            found = accuracy_by_group(predict(torch.cat(parts).numpy()), single.test.labels, single.groups)
            rows.append({"method": method, "likelihood": "-", "seed": seed} | found)
    return pd.DataFrame(rows)
