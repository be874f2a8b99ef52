"""Ten more training images of a class: the gain in recall that is expected beforehand, against the one that training measures.

    python benchmarks/more_images.py [--seeds 0 1 2] [--method NAME] [--quick] [--out FOLDER]

On the digits, whose unused images are many: for every class with at most MOST training images the network is trained again with
MORE further ones, and the class's recall on the test images compared. At the first seed head classes are cut to CUTS images, for
a slope that is one class's own. Results are kept, and a killed run goes on. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import machine, parser, show, write
from end_to_end import TINY
from scipy import special, stats

from osdtw_lib.artifacts.files import make_folder, write_text
from osdtw_lib.artifacts.lock import held
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Config
from osdtw_lib.evaluation.more_images import gains, logits
from osdtw_lib.evaluation.per_class import classes
from osdtw_lib.evaluation.scores import predict, scores_over
from osdtw_lib.fisher import diagonal_fisher
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run
from osdtw_lib.stages.side_by_side import everywhere, opened
from osdtw_lib.verdict.seed_run import SeedRun, seed_run

MORE, MOST = 10, 60
CUTS, HEAD = (4, 12, 36), slice(1, 5)  # the largest class stays: without it an epoch would be much shorter
DAMPINGS = (0.01, 1.0, 100.0)  # times the mean precision of a parameter
QUICK = (*TINY, "stage2.epochs=1", "stage2.warmup_epochs=0", "data.largest=40")
EXPECTED = ("curve", "count", "cuts", *(f"fisher_{damping:g}" for damping in DAMPINGS))


def resized(run: SeedRun, label: int, images: int, top: Path) -> SeedRun:
    """The seed's run with another number of training images of one class, drawn without regard to the others; its start stays."""
    train, test = run.indices
    labels = run.source.images.labels
    own = train[labels[train] == label]
    others = np.setdiff1d(np.flatnonzero(labels == label), np.concatenate((own, test)))
    order = np.concatenate((own, np.random.default_rng((run.config.seed, label)).permutation(others)))
    other = run.changed(run.config, top / f"class{label}_{images}", ("start",))
    for cached in ("train", "test", "class_counts", "groups"):
        other.__dict__.pop(cached, None)
    other.is_own = False
    other.indices = np.concatenate((train[labels[train] != label], order[:images])), test
    return other


def predicted(run: SeedRun, method: str) -> list[int]:
    """The classes the method takes the test images for, trained where it is not yet; kept beside its network."""
    network = execute(run, f"baselines/{method}", quiet=True)
    noted = network.folder.parent / f"{method}_predicted.json"
    if not noted.exists() or json.loads(noted.read_text())["key"] != network.key:
        row = run.methods[method]
        scores = scores_over(row.network(run.read), row.scores, run.batches(run.test), run.config.recipe.precision)
        write_text(make_folder(noted.parent) / noted.name, json.dumps({"key": network.key, "classes": predict(scores).tolist()}))
    return json.loads(noted.read_text())["classes"]


def added(run: Run) -> list[tuple[int, int]]:
    """(class, images) of the trainings with more images."""
    return [(k, int(n) + MORE) for k, n in enumerate(run.class_counts) if n <= MOST]


def cut(run: Run) -> list[tuple[int, int]]:
    """(class, images) of the trainings of which a head class is cut."""
    counts = run.class_counts
    return [(int(k), n) for k in np.argsort(-counts, kind="stable")[HEAD] for n in CUTS if n < counts[k]]


def at(run: Run, seed: int, size: tuple[int, int] | None) -> SeedRun:
    own = seed_run(run, seed)
    return own if size is None else resized(own, *size, run.folder / "more_images" / f"seed{seed}")


def _start(config: Config, seed: int) -> None:
    for stage in ("split", "start"):
        execute(seed_run(opened(config), seed), stage, quiet=True)


def _train(config: Config, method: str, seed: int, size: tuple[int, int] | None) -> None:
    own = at(opened(config), seed, size)
    if size is not None:
        execute(own, "split", quiet=True)
    predicted(own, method)
    print(f"seed {seed}, {'as it is' if size is None else f'class {size[0]} with {size[1]} images'}: trained", flush=True)


def table_of(run: SeedRun, method: str) -> pd.DataFrame:
    return classes(np.array(predicted(run, method)), run.test.labels, run.class_names, run.class_counts)


def fisher_gains(run: SeedRun, method: str, labels: list[int]) -> dict[float, np.ndarray]:
    """{damping: expected loss (nats) that MORE images of each class take off, by the theorem's variance term}: half the trace of
    the class's diagonal Fisher times the variance of the weights, without them less with them."""
    row = run.methods[method]
    network, counts = row.network(run.read), run.class_counts
    one_class = [run.train.subset(np.flatnonzero(run.train.labels == k)) for k in range(len(counts))]
    diagonals = [diagonal_fisher(network, run.batches(images, 64), row.likelihood()) for images in one_class]
    flat = torch.stack([torch.cat([d.flatten() for d in one.values()]) for one in diagonals]).double().numpy()
    precision = (counts[:, None] * flat).sum(0)
    found = {}
    for damping in DAMPINGS:
        before = precision + damping * precision.mean()
        found[damping] = np.array([0.5 * (flat[k] * (1 / before - 1 / (before + MORE * flat[k]))).sum() for k in labels])
    return found


def slope_of_cuts(run: Run, seed: int, method: str) -> float:
    """Of logit recall over log images, one for all head classes, each with a level of its own: their recall when cut."""
    x, y = [], []
    for label in dict(cut(run)):
        smaller = [at(run, seed, size) for size in cut(run) if size[0] == label]
        own = [table_of(one, method).loc[label] for one in (*smaller, seed_run(run, seed))]
        logs = np.log([line["training_images"] for line in own])
        levels = np.array([logits(line["right"], line["test_images"])[0] for line in own])
        x, y = [*x, *(logs - logs.mean())], [*y, *(levels - levels.mean())]
    return float(np.dot(x, y) / np.dot(x, x))


def count_alone(before: pd.DataFrame, label: int) -> float:
    """The gain where nothing is known of the class but its count: its own test images are left out of the curve."""
    known = before.copy()
    known.loc[label, ["right", "test_images"]] = 0
    return float(gains(known, MORE).set_index("class").loc[before.loc[label, "class"], "gain"])


def measure(run: Run, method: str, seeds: list[int]) -> pd.DataFrame:
    """A line a seed and class: measured and expected gains in points (those by Fisher: nats)."""
    lines, slope = [], slope_of_cuts(run, seeds[0], method)
    labels = list(dict(added(run)))
    for seed in seeds:
        own = seed_run(run, seed)
        before = table_of(own, method)
        curve = gains(before, MORE).set_index("class")
        fisher = fisher_gains(own, method, labels)
        for i, label in enumerate(labels):
            line = before.loc[label]
            after = table_of(at(run, seed, (label, int(line["training_images"]) + MORE)), method).loc[label]
            level = logits(line["right"], line["test_images"])[0]
            moved = level + slope * np.log1p(MORE / line["training_images"])
            known = curve.loc[line["class"]]
            lines.append(
                {
                    **{"seed": seed, "class": line["class"], "training_images": line["training_images"]},
                    **{"recall": line["recall"], "measured": after["recall"] - line["recall"]},
                    **{"curve": known["gain"], "curve_low": known["gain_low"], "curve_high": known["gain_high"]},
                    "count": count_alone(before, label),
                    "cuts": 100 * (special.expit(moved) - special.expit(level)),
                    **{f"fisher_{damping:g}": gain[i] for damping, gain in fisher.items()},
                }
            )
    return pd.DataFrame(lines)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """A line a way to expect gains: its rank correlation with what was measured, of a seed's classes and of means over seeds,
    and how far it is off (root mean square, points); Fisher's, in nats, by the factor that fits best. Last, how often an
    interval held."""
    means = table.groupby("class")[["measured", *EXPECTED]].mean()
    lines = []
    for name in EXPECTED:
        within = [stats.spearmanr(own[name], own["measured"]).statistic for _, own in table.groupby("seed")]
        factor = 1.0
        if name.startswith("fisher"):
            factor = (table[name] * table["measured"]).sum() / (table[name] ** 2).sum()
        off = np.sqrt(((factor * table[name] - table["measured"]) ** 2).mean())
        lines.append((name, np.mean(within), stats.spearmanr(means[name], means["measured"]).statistic, off))
    judged = pd.DataFrame(lines, columns=["expected_by", "rank_within_seed", "rank_of_means", "points_off"])
    inside = (table["measured"] >= table["curve_low"]) & (table["measured"] <= table["curve_high"])
    judged["intervals_held"] = [f"{inside.sum()} of {len(inside)}", *[""] * (len(EXPECTED) - 1)]
    return judged


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--method", default="logit_adjusted_ce", help="a row that trains by itself")
    asked = made.parse_args()
    changes = [f"baselines=[{asked.method}]", f"verdict.methods=[{asked.method}]"]
    changes += [*QUICK, f"outputs={asked.out}"] if asked.quick else []
    run = Run(load_config(PROJECT / "params" / "mnist_lt.yaml", changes))
    seeds = asked.seeds[:1] if asked.quick else asked.seeds
    with held(run.locked):
        execute(run, "split", quiet=True)
        everywhere(run, _start, [(s,) for s in seeds if seed_run(run, s).artifact("start").why_not_done()])
        everywhere(run, _train, [(asked.method, s, size) for s in seeds for size in (None, *added(run))])
        everywhere(run, _train, [(asked.method, seeds[0], size) for size in cut(run)])
        table = measure(run, asked.method, seeds)
    print(machine())
    show(f"{MORE} images more, {run.methods[asked.method].title}", table.round(1))
    show("how well each was expected", judged(table).round(2))
    write(table, asked.out, "more_images.csv")
    write(judged(table), asked.out, "more_images_judged.csv")


if __name__ == "__main__":
    main()
