"""The rows that lie in docs/: whole, of this version's settings, and what the README says of them."""

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages.run import Run
from osdtw_lib.verdict import compare
from osdtw_lib.verdict.rows import read, taken_from_elsewhere

pytestmark = pytest.mark.journey  # long

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


@pytest.mark.parametrize("budget", ["epochs", "osdtw"])
def test_the_readme_has_their_table(run, budget):
    rows = list(taken_from_elsewhere(run).values())
    seeds = {row["seed"] for row in rows if row["budget"] == budget}
    own = [
        row | {"budget": budget} for row in rows if row["ours"] and row["budget"] == "epochs"
    ]  # at OSDTW's compute they stand as they are
    shown = [row for row in rows if not row["ours"]] + own
    table = compare.summary([row for row in shown if row["seed"] in seeds], run.test.labels, run.groups, budget)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(table) > 10
    for line in compare.markdown(table).splitlines()[2:]:
        assert line in readme


def test_the_readme_has_the_table_of_what_was_tuned(run):
    rows = [row for row in taken_from_elsewhere(run).values() if row["budget"] == "tuned"]
    table = compare.summary(rows, run.test.labels, run.groups, "tuned")
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(table) == 7 and (table["seeds"] == 3).all()
    assert all(line in readme for line in compare.markdown(table).splitlines()[2:])
