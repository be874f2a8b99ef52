"""The worked example of docs/add-a-method.md, dropped in as one file: table, plan, figures and predictor know it."""

import re

import pandas as pd
import pytest

from osdtw_lib import load_predictor
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.figures import results as figures
from osdtw_lib.planning.plan import make_plan
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import titles_of
from osdtw_lib.verdict.seed_run import asked


@pytest.fixture
def dropped_in(finished_copy, tmp_path):
    """The run with the example's file among its baselines."""
    code = re.search(r"```python\n(.*?)```", (PROJECT / "docs" / "add-a-method.md").read_text(encoding="utf-8"), re.S)[1]
    assert code.count("\n") <= 40
    (tmp_path / "vector_scaling.py").write_text(code)
    return finished_copy({"baselines": [{str(tmp_path / "vector_scaling.py"): {"gamma": 0.3}}]})


@pytest.mark.journey
def test_the_example_appears_everywhere(dropped_in, tmp_path, refused):
    run = dropped_in
    execute(run, "baselines"), execute(run, "tables")
    table = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert table.index[0] == "vector_scaling"
    assert "vector scaling (VS loss)" in str(figures.accuracy(table.reset_index(), titles_of(run)))
    assert "baselines" in str(make_plan(load_config(tmp_path / "small.yaml"), 1, "H100", 0.4))
    right = load_predictor(run.folder, "vector_scaling")(run.test.pixels).argmax(1) == run.test.labels
    assert 100 * right.mean() == pytest.approx(table.at["vector_scaling", "all"])
    assert str(tmp_path / "vector_scaling.py") in asked(run)
    line = refused("split", tmp_path / "small.yaml", "--set", f"baselines={{{tmp_path / 'vector_scaling.py'}: {{gama: 1}}}}")
    assert "unknown key 'gama'; did you mean 'gamma'?" in line


def test_the_names_the_text_gives_are_files():
    text = (PROJECT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+\.py)`", text):
        assert name == "vector_scaling.py" or list((PROJECT / "osdtw_lib").rglob(name)), name
