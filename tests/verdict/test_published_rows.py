"""The rows that lie in docs/: whole, of this version's settings, and what the README says of them."""

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.evaluation.intervals import holm, seed_noise, verdicts
from osdtw_lib.evaluation.one_seed import SEED_DEVIATION
from osdtw_lib.stages.run import Run
from osdtw_lib.verdict import compare
from osdtw_lib.verdict.rows import read, taken_from_elsewhere

pytestmark = pytest.mark.journey  # long

SAID = {"wins": "won", "loses": "lost", "undecided": "undecided"}
ROWS = PROJECT / "docs" / "verdict_rows_mnist_lt.json"


@pytest.fixture(scope="module")
def run():
    seeds = sorted({row["seed"] for row in read(ROWS)})
    changes = [f"verdict.seeds={seeds}", f"verdict.others=['{ROWS}']"]
    return Run(load_config(PROJECT / "params" / "mnist_lt.yaml", changes))


def test_anyone_can_take_them_beside_rows_of_their_own(run):
    found = taken_from_elsewhere(run)
    assert len(found) == len(read(ROWS))
    assert {row["row"] for row in found.values()} >= {"osdtw", "ce", "logit_adjusted_ce", "balanced_bce"}


def test_what_is_said_of_a_row_follows_from_what_it_predicted(run):
    for row in read(ROWS):
        right = np.asarray(row["predicted"]) == run.test.labels
        assert 100 * right.mean() == pytest.approx(row["metrics"]["all"])


def rows_of(run, budget):
    """A budget's rows, and at OSDTW's compute its own of the same seeds, which stand there as they are."""
    rows = list(taken_from_elsewhere(run).values())
    seeds = {row["seed"] for row in rows if row["budget"] == budget}
    ours = [row | {"budget": budget} for row in rows if row["ours"] and row["budget"] == "epochs" and budget == "osdtw"]
    return [row for row in [*rows, *ours] if row["budget"] == budget and row["seed"] in seeds]


@pytest.mark.parametrize("budget", ["epochs", "osdtw"])
def test_the_readme_has_their_table(run, budget):
    table = compare.summary(rows_of(run, budget), run.test.labels, run.groups, budget)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(table) > 10
    for line in compare.markdown(table).splitlines()[2:]:
        assert line in readme


@pytest.mark.parametrize("budget", ["epochs", "osdtw", "tuned"])
def test_the_readme_says_who_wins(run, budget):
    """The sentences that count: of the others won, lost, undecided, all pairs taken together and OSDTW's alone."""
    rows = rows_of(run, budget)
    table, wins = (make(rows, run.test.labels, run.groups, budget) for make in (compare.summary, compare.matrix))
    own = wins[(wins["row"] == "osdtw") & wins["other"].isin(table.loc[~table["ours"].astype(bool), "row"])]
    alone = verdicts(own["difference"], holm(own["p"]))
    named = table.set_index("row")["title"]
    counts = [f"{list(of).count(word)} {said}" for of in (own["verdict"], alone) for word, said in SAID.items()]
    decided = f"{(wins['verdict'] != 'undecided').sum() // 2} of {len(wins) // 2} pairs are decided"
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    sentence = f"(all pairs taken together: {', '.join(counts[:3])}; OSDTW's alone: {', '.join(counts[3:])}; in all {decided})"
    assert sentence in readme, sentence
    assert named["osdtw"] == "OSDTW refined"


def test_what_another_seed_moves_a_method_by(run):
    rows = compare.by_name(list(taken_from_elsewhere(run).values()), "epochs")
    noise = seed_noise(np.stack([compare.right(own, run.test.labels) for own in rows.values()]), run.test.labels)
    assert len(noise) == 34 and round(float(np.sqrt(np.median([one.variance for one in noise]))), 1) == SEED_DEVIATION


def test_the_readme_has_the_table_of_what_was_tuned(run):
    table = compare.summary(rows_of(run, "tuned"), run.test.labels, run.groups, "tuned")
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(table) == 7 and (table["seeds"] == 3).all()
    assert all(line in readme for line in compare.markdown(table).splitlines()[2:])
