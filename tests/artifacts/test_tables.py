"""Tables come back as they were: nothing is guessed from their text."""

import random

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.tables import read_table, table_text

NAMES = [
    "NA",
    "None",
    "null",
    "nan",
    "",
    " ",
    "00001",
    "1",
    "1e5",
    "100000.0",
    "True",
    "inf",
    "a",
    "a.1",
    "Unnamed: 0",
    "a,b",
    '"',
    "''",
    "x\ny",
    "x\ry",
    "x\r\ny",
    "=HYPERLINK(1)",
    "@",
    "2024-01-01",
    "<!--<script>",
    "\U0001f600",
    "method",
    "class",
    "holds",
    "\ufeff",
    "\u2028",
    "#",
    "\\",
    " lead",
    "trail ",
]


def there_and_back(tmp_path, name, table):
    path = tmp_path / f"{name}.csv"
    path.write_bytes(table_text(name, table).encode())
    return read_table(path)


def nasty(seed, count=40):
    random_ = random.Random(seed)
    letters = "aé日,;\"'\n\r\t =+-@<>&#\\.0123456789eE$%\x00"
    return list(dict.fromkeys(NAMES + ["".join(random_.choices(letters, k=random_.randint(1, 8))) for _ in range(count)]))


@pytest.mark.parametrize("seed", range(5))
def test_names_of_classes_come_back_as_they_are(tmp_path, seed):
    names = [name for name in nasty(seed) if "\x00" not in name]
    random.Random(seed).shuffle(names)
    table = pd.DataFrame({"class": names, "training_images": range(len(names)), "prior": 0.1, "task": "head", "group": "few"})
    back = there_and_back(tmp_path, "classes", table)
    assert back["class"].tolist() == names
    assert back["training_images"].tolist() == list(range(len(names))) and back["training_images"].dtype == np.int64
    counts = pd.DataFrame({"true": names, "predicted": names[::-1], "count": range(len(names))})
    back = there_and_back(tmp_path, "confusion", counts)
    assert back["true"].tolist() == names == back["predicted"].tolist()[::-1] and (back["count"] == counts["count"]).all()


def test_heads_that_are_alike_stay_alike(tmp_path):
    counts = pd.DataFrame([[1, 2, 3]], columns=["a", "a", "a.1"])
    assert there_and_back(tmp_path, "counts", counts).columns.tolist() == ["a", "a", "a.1"]


def test_numbers_come_back_to_the_last_bit_and_a_gap_is_a_gap(tmp_path):
    spread = 10.0 ** np.arange(-100, 100).repeat(10)
    values = np.concatenate([np.random.default_rng(0).normal(size=2000) * spread, [np.nan, np.inf, 0.1]])
    table = pd.DataFrame({"epoch": np.arange(len(values)), "learning_rate": values})
    back = there_and_back(tmp_path, "curves", table)
    assert np.array_equal(back["learning_rate"], values, equal_nan=True)


def test_true_false_and_neither(tmp_path):
    table = pd.DataFrame({"claim": ["None", "b", "c"], "paper": "+1", "here": "NA", "holds": [True, None, False]})
    back = there_and_back(tmp_path, "claims", table)
    assert back["claim"].tolist() == ["None", "b", "c"] and back["paper"].tolist() == ["+1"] * 3
    assert back["holds"].map({True: "yes", False: "no"}).fillna("open").tolist() == ["yes", "open", "no"]


def test_a_column_of_another_kind_is_no_table_of_ours(tmp_path):
    with pytest.raises(ValueError, match="say in tables.py"):
        table_text("curves", pd.DataFrame({"epoch": ["one"]}))
    with pytest.raises(ValueError, match="missing in column 'method'"):
        table_text("accuracy", pd.DataFrame({"method": ["ce", None]}))
    (tmp_path / "runtime.csv").write_text("stage,seconds\nnan,nan\n")
    with pytest.raises(ValueError, match="'seconds' is not all numbers"):
        read_table(tmp_path / "runtime.csv")


def test_an_artifact_keeps_its_tables_so(tmp_path):
    made = Artifact("split", tmp_path / "split", {})
    table = pd.DataFrame({"class": NAMES, "training_images": 3, "prior": 0.5, "task": "head", "group": "few"})
    with made.making() as write:
        write.table("classes", table)
    assert made.table("classes")["class"].tolist() == NAMES
