"""From measured cells to the tables of notebook 08: accuracy and loss a cell, every form of the proxy, its ranking."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from ..longtail import GROUPS, class_priors
from ..proxy.grid import CELL
from ..proxy.measured_bias import LOSSES
from ..stages.pipeline import require
from ..stages.proxy_inputs import load_proxy
from .ranking import one_cell_at_zero, rank, spearman

MEASURES = [*GROUPS, "all", "nll_training_prior", "nll_balanced"]
COLUMNS = [*CELL, "seed", *MEASURES]
FORM = ["form", "loss", "merge", "damping"]
DAMPINGS = (0.0, 0.001, 0.01, 0.1)  # of the variance terms, beside the evidence rule's
MERGES = ((2.0, 0.0), (1.0, 0.0), (1.0, "evidence"))  # power and damping of the Fishers that weight the merged encoder


def summary(scores: pd.DataFrame, groups: dict[str, np.ndarray], class_counts: np.ndarray) -> dict[str, float]:
    """MEASURES of one network from its scores a class: accuracies in %, losses in nats; NaN for an empty group.

    nll_training_prior weights each class's mean loss by its training frequency, nll_balanced alike; a class without test
    images is left out, and its share goes to the others.
    """
    sums = scores.groupby("class")[["images", "right", "nll"]].sum()
    members = {name: sums.loc[groups[name]] for name in GROUPS} | {"all": sums}
    row = {n: 100 * m["right"].sum() / m["images"].sum() if m["images"].sum() else float("nan") for n, m in members.items()}
    tested = (sums["images"] > 0).to_numpy()
    loss, priors = (sums["nll"] / sums["images"]).to_numpy()[tested], class_priors(class_counts)[tested]
    return row | {"nll_training_prior": float(priors @ loss / priors.sum()), "nll_balanced": float(loss.mean())}


def cells(variants: list, head_weights, depths) -> pd.DataFrame:
    """network ("assembled", "refined", "joint"), COLUMNS, and half_0 and half_1: accuracy on each half of the test set."""
    rows = []
    for variant, weight, depth in itertools.product(variants, head_weights, (None, *depths)):
        for network, scores in variant.cell(weight, depth).table("scores").groupby("network", sort=False):
            where = {"network": network, "shared_depth": variant.n_depths if depth is None else depth, "head_weight": weight}
            halves = scores.groupby("half")[["right", "images"]].sum()
            halves = {f"half_{i}": 100 * h["right"] / h["images"] for i, h in halves.iterrows()}
            rows.append(where | {"seed": variant.config.seed} | summary(scores, variant.groups, variant.class_counts) | halves)
    return pd.DataFrame(rows)


def over_seeds(table: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """Mean of each value over the seeds, and value_error, the standard error of that mean (NaN for one seed)."""
    grouped = table.groupby(by, sort=False, dropna=False)[values]
    return grouped.mean().join(grouped.sem().add_suffix("_error")).reset_index()


def ceiling(refined: pd.DataFrame) -> pd.DataFrame:
    """What noise leaves to rank: rank correlation of the grid with itself, measured again. what, spearman, pairs.

    halves: both halves of the test set, same networks (test noise at half the images). seeds: two seeds' grids (all
    noise, of training and of the split too).
    """
    grids = [one_cell_at_zero(grid).set_index(CELL) for _, grid in refined.groupby("seed")]
    halves = [spearman(g["half_0"], g["half_1"]) for g in grids]
    pairs = [spearman(a["all"], b["all"].reindex(a.index)) for a, b in itertools.combinations(grids, 2)]
    rows = {"halves of the test set": halves, "two seeds": pairs}
    return pd.DataFrame([{"what": w, "spearman": np.mean(r) if r else np.nan, "pairs": len(r)} for w, r in rows.items()])


def within_reach(ceiling: pd.DataFrame) -> pd.DataFrame:
    """`ceiling` with within_reach: about what the true order would have with one such grid, the root of spearman (Spearman 1904),
    since noise is in one of the two alone."""
    return ceiling.assign(within_reach=np.sqrt(ceiling["spearman"].clip(lower=0)))


def forms(merges: list, depths, head_weights) -> pd.DataFrame:
    """What each form of the proxy says of the cells, from Stage 1 alone: FORM, CELL, total.

    merges: a variant, then the same with other ways to merge both encoders (`direct.power`, `.damping`). damping is that of
    the variance terms; "-" where a form has none. Beside the forms that `selection` offers: the measured bias without
    variance terms, and, as the yardstick a proxy has to beat, the depth alone ("share as little as possible").
    """
    variant = merges[0]
    search = load_proxy(variant)
    dampings = {f"{d:g}": d for d in DAMPINGS} | {"evidence": search.evidence()}
    grids = [(("paper", "-", "-", "0"), search.grid(depths, head_weights, "paper"))]
    grids += [(("damped", "-", "-", n), search.grid(depths, head_weights, "damped", d)) for n, d in dampings.items()]
    for merge, loss in itertools.product(merges, LOSSES):
        bias = require(merge, "direct").table("bias").rename(columns={f"bias_{loss}": "bias"})[[*CELL, "bias"]]
        merged_by = merge_name(merge.config.direct.power, merge.config.direct.damping)
        for name, damping in (dampings if merge is variant else {"evidence": dampings["evidence"]}).items():
            grid = search.grid(depths, head_weights, "direct", damping, bias)
            grids.append((("direct", loss, merged_by, name), grid))
        grids.append((("bias alone", loss, merged_by, "-"), grid.assign(total=grid["encoder_bias"])))
    grids.append((("depth alone", "-", "-", "-"), grid.assign(total=grid["shared_depth"])))
    return pd.concat([g.assign(**dict(zip(FORM, form))) for form, g in grids], ignore_index=True)[[*FORM, *CELL, "total"]]


def ranking(refined: pd.DataFrame, forms: pd.DataFrame) -> pd.DataFrame:
    """A row a FORM, of `ranking.rank` with accuracy: form, damping, spearman, regret, rank_of_pick,
    seeds; then loss, merge, over_weights, regret_held_out, spearman_nll (rank correlation with the test loss, classes
    counting alike), and each value's standard error. Means over seeds."""
    rows = []
    for (seed, *form), totals in forms.groupby(["seed", *FORM], sort=False, dropna=False):
        measured = refined[refined["seed"] == seed]
        by_loss = rank(measured, totals, "nll_balanced", smaller_is_better=True)["spearman"]
        rows.append({"seed": seed} | dict(zip(FORM, form)) | rank(measured, totals) | {"spearman_nll": by_loss})
    values = ["spearman", "regret", "rank_of_pick", "over_weights", "regret_held_out", "spearman_nll"]
    table = over_seeds(pd.DataFrame(rows), FORM, values).assign(seeds=refined["seed"].nunique())
    return table[["form", "damping", *values[:3], "seeds", "loss", "merge", *values[3:], *(f"{v}_error" for v in values)]]


def merge_name(power: float, damping: float | str) -> str:
    """What weights the mean of both encoders, in words: "Fisher", "squared Fisher", "Fisher + evidence"."""
    name = {1: "Fisher", 2: "squared Fisher"}.get(power, f"Fisher^{power:g}")
    return name if damping == 0 else f"{name} + {damping}"


def label(form: str, loss: str, merge: str, damping: str) -> str:
    """A form in words: "direct, balanced, merged by squared Fisher, damping evidence"."""
    parts = {"": form, " ": loss, "merged by ": merge, "damping ": damping}
    return ", ".join(f"{name.strip()} {value}".strip() for name, value in parts.items() if value != "-")


def shown_ranking(table: pd.DataFrame) -> pd.DataFrame:
    """The ranking for a reader: a row a form, mean ± standard error, the best rank correlation first."""
    table = table.sort_values("spearman", ascending=False, kind="stable")
    shown = pd.DataFrame({"form": [label(*row) for row in table[FORM].itertuples(index=False)]})
    digits = {"spearman": 2, "over_weights": 2, "spearman_nll": 2, "regret": 1, "regret_held_out": 1, "rank_of_pick": 1}
    for value, n in digits.items():
        errors = ("" if np.isnan(error) else f" ± {error:.{n}f}" for error in table[f"{value}_error"])
        shown[value] = [f"{mean:.{n}f}{error}" for mean, error in zip(table[value], errors)]
    return shown
