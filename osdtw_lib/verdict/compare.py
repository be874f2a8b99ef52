"""From rows to tables: means with intervals, who wins, what it cost. Works on whatever cells are done."""

from __future__ import annotations

from itertools import combinations, compress

import numpy as np
import pandas as pd

from ..evaluation.intervals import LEVEL, holm, image_bootstrap, over_seeds, two_way_bootstrap, verdicts, who_wins

ACCURACIES = ("class_mean", "all", "many", "medium", "few", "worst_class", "harmonic_mean")
OTHERS = ("nll", "ece", "ece_many", "ece_medium", "ece_few")
COSTS = ("passes", "flops", "seconds", "parameters", "forwards")
COLUMNS = ["row", "title", "ours", "seeds"]
COLUMNS += [*(f"{name}{end}" for name in (*ACCURACIES, *OTHERS) for end in ("", "_low", "_high")), *COSTS]
OSDTW = "osdtw"
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "%_&#${}"} | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
)


def right(rows: list[dict], labels: np.ndarray) -> np.ndarray:
    """bool (S, N): of the rows of one name and budget, which images each seed has right."""
    return np.array([np.asarray(row["predicted"]) == labels for row in rows])


def by_name(rows: list[dict], budget: str) -> dict[str, list[dict]]:
    """{row: its seeds, ascending} of one budget."""
    found: dict[str, list[dict]] = {}
    for row in sorted((row for row in rows if row["budget"] == budget), key=lambda row: row["seed"]):
        found.setdefault(row["row"], []).append(row)
    return found


def summary(rows: list[dict], labels: np.ndarray, groups: dict, budget: str) -> pd.DataFrame:
    """A line a row of the table, best first: row, title, ours (OSDTW's), seeds; for each of ACCURACIES the mean over seeds with
    _low and _high (two-way bootstrap; of one seed, images alone), for each of OTHERS too (Student's t over the seeds, on these
    images; none of one seed); COSTS."""
    lines = []
    for name, seeds in by_name(rows, budget).items():
        hits = right(seeds, labels)
        spread = (two_way_bootstrap if len(seeds) > 1 else image_bootstrap)(hits, labels, groups).set_index("metric")
        line = {"row": name, "title": seeds[0]["title"], "ours": seeds[0]["ours"], "seeds": len(seeds)}
        for metric in ACCURACIES:
            value, low, high = spread.loc[metric, ["value", "low", "high"]]
            line |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        for metric in OTHERS:
            values = np.array([row["metrics"][metric] for row in seeds], dtype=float)
            low, high = np.clip(over_seeds(values), 0, 100 if metric.startswith("ece") else None)
            line |= {metric: values.mean(), f"{metric}_low": low, f"{metric}_high": high}
        for cost in COSTS:
            line[cost] = np.mean([np.nan if row["cost"][cost] is None else row["cost"][cost] for row in seeds])
        lines.append(line)
    table = pd.DataFrame(lines, columns=COLUMNS)
    twice = table["title"].duplicated(keep=False)  # a copied file that kept its title
    table.loc[twice, "title"] += " (" + table.loc[twice, "row"] + ")"
    return table.sort_values("class_mean", ascending=False, ignore_index=True)


def matrix(rows: list[dict], labels: np.ndarray, groups: dict, budget: str) -> pd.DataFrame:
    """Every row against every other in class-mean accuracy, over the seeds that both have (column seeds); see
    evaluation.intervals.who_wins. Pairs without a common seed are left out."""
    found = by_name(rows, budget)
    seeds = {name: frozenset(row["seed"] for row in own) for name, own in found.items()}
    parts = [who_wins({}, labels)]
    for common in sorted({seeds[a] & seeds[b] for a, b in combinations(found, 2)} - {frozenset()}, key=sorted):
        hits = {n: right([row for row in found[n] if row["seed"] in common], labels) for n in found if common <= seeds[n]}
        wins = who_wins(hits, labels, groups=groups).assign(seeds=len(common))
        parts.append(wins[[seeds[a] & seeds[b] == common for a, b in zip(wins["row"], wins["other"])]])
    if len(parts) == 2:
        return parts[1]
    table = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0].assign(seeds=[])
    place = {name: i for i, name in enumerate(found)}
    table = table.sort_values(["row", "other"], key=lambda names: names.map(place), ignore_index=True)
    pairs = list(zip(table["row"], table["other"]))
    once = [place[a] < place[b] for a, b in pairs]  # a pair counts once, whatever its seeds
    adjusted = dict(zip(compress(pairs, once), holm(table["p"][once])))
    table["p_adjusted"] = [adjusted.get((a, b), adjusted.get((b, a))) for a, b in pairs]
    return table.assign(verdict=verdicts(table["difference"], table["p_adjusted"]))


def verdict(table: pd.DataFrame, wins: pd.DataFrame) -> str:
    """The answer in a sentence, of `summary` and `matrix`: where OSDTW stands among the rows, and who beats whom for certain."""
    if OSDTW not in set(table.get("row", ())):
        return "OSDTW has no row yet: there is no verdict."
    place, titles = table.set_index("row"), dict(zip(table["row"], table["title"]))
    own = place.loc[OSDTW]
    others = place[~place["ours"].astype(bool)]
    said = f"{titles[OSDTW]} names {own['class_mean']:.1f} % right, classes counting alike"
    said += f" (95 % interval {own['class_mean_low']:.1f} to {own['class_mean_high']:.1f}, {seeds_in_words(own['seeds'])})"
    if not len(others):
        return f"{said}; no other method has a row yet."
    against = wins[wins["row"] == OSDTW].set_index("other") if len(wins) else pd.DataFrame(columns=["verdict", "difference", "p"])
    held = against.loc[against.index.intersection(others.index)]
    if not len(held):
        return f"{said}; no other method has a seed of it yet."
    behind, first = int((held["difference"] < 0).sum()), held["difference"].astype(float).idxmin()
    if behind:
        words = f"OSDTW {'loses' if 'loses' in set(held['verdict']) else 'is behind'}: {behind} of {len(held)} other methods "
        words += f"{'is' if behind == 1 else 'are'} ahead of it, first {titles[first]}"
    else:
        words = f"OSDTW is ahead of all {len(held)} other methods, the next being {titles[first]}"
    pair, clear = held.loc[first], {"wins": "a clear win", "loses": "a clear loss", "undecided": "undecided"}
    if pair["p"] < 1 - LEVEL:
        clear["undecided"] = "by itself decided, among so many pairs not"
    words += f" with {others.at[first, 'class_mean']:.1f} % ({pair['difference']:+.1f} points for OSDTW, {pair['low']:+.1f} to "
    words += f"{pair['high']:+.1f}: {clear[pair['verdict']]})"
    fewer = ", each over the seeds both have" if (held["seeds"] < own["seeds"]).any() else ""
    pairs = f"Pair by pair against the others, all pairs taken together{fewer}: {_counted(held['verdict'])}"
    pairs += f"; OSDTW's pairs alone taken together: {_counted(verdicts(held['difference'], holm(held['p'])))}"
    few = {2: " Two seeds are few: what they decide hangs on how alike they happen to be."}
    few |= dict.fromkeys((3, 4), f" With {own['seeds']:.0f} seeds intervals are rough.")
    return f"{words}. {said}. {pairs}.{few.get(own['seeds'], '')}"


def _counted(verdicts) -> str:
    counts = pd.Series(verdicts, dtype=object).value_counts()
    return f"{counts.get('wins', 0)} won, {counts.get('loses', 0)} lost, {counts.get('undecided', 0)} undecided"


def seeds_in_words(seeds: int) -> str:
    return "one seed, images alone" if seeds == 1 else f"{seeds:.0f} seeds"


def not_run(asked: list[tuple[str, str, int]], rows: list[dict], failed: dict[tuple[str, str, int], str]) -> pd.DataFrame:
    """row, budget, seeds, why: of the (row, budget, seed) asked for those without a row, and why where it was tried."""
    there = {(row["row"], row["budget"], row["seed"]) for row in rows}
    missing: dict[tuple[str, str, str], list[int]] = {}
    for at in asked:
        if at not in there:
            missing.setdefault((*at[:2], failed.get(at, "not yet")), []).append(at[2])
    lines = [{"row": n, "budget": b, "seeds": " ".join(map(str, seeds)), "why": why} for (n, b, why), seeds in missing.items()]
    return pd.DataFrame(lines, columns=["row", "budget", "seeds", "why"])


def markdown(table: pd.DataFrame) -> str:
    """`summary` as a short Markdown table: class mean with its interval, few, passes; OSDTW's refined row in bold."""
    seeds = ", ".join(seeds_in_words(number) for number in sorted(set(table["seeds"]), reverse=True))
    lines = [f"| class-mean accuracy (%), {seeds} | 95 % interval | few | passes |", "| --- | --- | --- | --- |"]
    for row in table.to_dict("records"):
        title = row["title"].replace("|", r"\|")
        title = f"**{title}**" if row["row"] == OSDTW else title
        interval = f"{row['class_mean_low']:.1f} to {row['class_mean_high']:.1f}"
        passes = f"{row['passes']:.0f}" if row["passes"] == row["passes"] else "-"
        lines.append(f"| {title}: {row['class_mean']:.1f} | {interval} | {row['few']:.1f} | {passes} |")
    return "\n".join(lines) + "\n"


def latex(table: pd.DataFrame) -> str:
    """`summary` as a LaTeX table: the accuracies with half their intervals, passes and forwards."""
    lines = [r"\begin{tabular}{l" + "r" * (len(ACCURACIES) + 2) + "}", r"\hline"]
    lines.append(" & ".join(["method", *(name.replace("_", " ") for name in ACCURACIES), "passes", "forwards"]) + r" \\ \hline")
    for row in table.to_dict("records"):
        numbers = [_with_half(row, metric) for metric in ACCURACIES]
        numbers += [f"{row['passes']:.0f}" if row["passes"] == row["passes"] else "--", f"{row['forwards']:.2f}"]
        lines.append(" & ".join([row["title"].translate(LATEX), *numbers]) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _with_half(row: dict, metric: str) -> str:
    half = (row[f"{metric}_high"] - row[f"{metric}_low"]) / 2
    return f"${row[metric]:.1f} \\pm {half:.1f}$" if half == half else "--"
