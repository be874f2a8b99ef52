"""A whole run over classes with awkward names, bytes that are no UTF-8 among them, printed to a terminal of ASCII only."""

import html
import json
import os
import random
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from osdtw_lib.artifacts.tables import read_table
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.legible import legible

NAMES = [
    b"NA",
    b"None",
    b"null",
    b"00001",
    b"1e5",
    b"100000",
    b"True",
    b"a",
    b"a.1",
    b"<!--<script>",
    b"-->",
    b"=HYPERLINK(1)",
    b'a,"b"',
    b"<b>x &amp; $y$",
    b"2024-01-01",
    b"method",
    b"caf\xe9",
    "日本 “é”".encode(),
    b"two\nlines",
    b"\x1b[31mred",
]
PLOTLY = "application/vnd.plotly.v1+json"


def _more(seed, count):
    letters = [bytes([b]) for b in b" ;'`{}[]()%#*?|~^\t\r\\\xff\xa0"] + [c.encode() for c in "ü\u2028\u202e"]
    rng = random.Random(seed)
    return [b"z" + b"".join(rng.choices(letters, k=rng.randint(1, 6))) + str(i).encode() for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in folders of these names, copies of a few; the first classes have most."""
    from PIL import Image

    root = tmp_path_factory.mktemp("odd")
    for k, name in enumerate([*NAMES, *_more(7, 6)]):
        place = os.path.join(os.fsencode(root / "own"), name)
        os.makedirs(place)
        for i in range(6 if k < 13 else 3):
            with open(os.path.join(place, b"image \xe9 %d.png" % i), "wb") as file:
                Image.effect_noise((30, 30), 20 + 9 * k + i).save(file, "png")
    return root


@pytest.fixture(scope="module")
def params(folder, write_params):
    data = {"dataset": "files", "train": str(folder / "own"), "test_per_class": 2}
    return write_params(folder, {"name": "odd", "data": data, "model.channels": 3, "selection": {"form": "damped"}})


def call(*arguments, encoding="ascii:strict", **environment):
    """The command line in a process whose locale is C and whose output knows `encoding` alone -> (status, stdout, stderr)."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "osdtw_lib", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, timeout=600)
    name = encoding.split(":")[0]
    return done.returncode, done.stdout.decode(name), done.stderr.decode(name)


@pytest.fixture(scope="module")
def names(folder):
    """As they are shown, in the order of the classes."""
    return [legible(name) for name in sorted(os.fsdecode(name) for name in os.listdir(os.fsencode(folder / "own")))]


@pytest.fixture(scope="module")
def finished(params, folder):
    status, out, err = call("run", params)
    assert status == 0, out + err
    assert "Traceback" not in out + err
    return folder / "outputs" / "odd", out


def executed(run, book):
    return nbformat.read(run / f"{book}.ipynb", as_version=4)


def test_the_run_says_what_it_says_in_ascii(finished):
    out = finished[1]
    assert 'form "damped"' in out and "caf\\xe9" in out and out.isascii()
    assert "a spreadsheet may take these names for formulas, so import tables as text: -->, =HYPERLINK(1)" in out


def test_the_tables_name_every_class_as_it_is_called(finished, names):
    run = finished[0]
    assert read_table(run / "split" / "classes.csv")["class"].tolist() == names
    confusion = read_table(run / "tables" / "confusion.csv")
    assert {*confusion["true"], *confusion["predicted"]} <= set(names)
    assert read_table(run / "tables" / "classes.csv")["class"].tolist() == names
    assert json.loads((run / "stage3" / "predictor.json").read_text())["class_names"] == names


def test_the_figures_name_every_class_as_it_is_called(finished, names):
    run = finished[0]
    figures = [
        o["data"][PLOTLY]
        for book in ("01_data_split", "06_stage3_tables")
        for c in executed(run, book).cells
        for o in c.get("outputs", [])
        if PLOTLY in o.get("data", {})
    ]
    counts, confusion = figures[0], figures[-1]
    assert sorted(html.unescape(x) for t in counts["data"] for x in t["x"]) == sorted(names)
    assert [html.unescape(x) for x in confusion["data"][0]["y"]] == names
    axes = [counts["layout"]["xaxis"], confusion["layout"]["xaxis"], confusion["layout"]["yaxis"]]
    assert [axis["type"] for axis in axes] == ["category"] * 3
    assert not any(re.search(r"[<>$]", x) for x in [*counts["layout"]["xaxis"]["categoryarray"], *confusion["data"][0]["x"]])


def test_the_pages_are_whole_whatever_a_class_is_called(finished):
    for page in (finished[0] / "index.html", finished[0] / "01_data_split.html", finished[0] / "06_stage3_tables.html"):
        text = page.read_text(encoding="utf-8")
        assert text.rstrip().endswith("</html>")
        for script in re.findall(r"<script>(\(function\(\)\{var box.*?)</script>", text, re.DOTALL):
            assert "<" not in script[script.index("var f=") : script.index(";Plotly.newPlot")]
        shown = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert "<!--<script>" not in shown and "<b>x" not in shown


def test_predictions_name_classes_and_files(finished, names, folder):
    files = [os.path.join(os.fsencode(folder / "own"), name, b"image \xe9 0.png") for name in (b"caf\xe9", b"<!--<script>")]
    status, out, err = call("predict", finished[0], *map(os.fsdecode, files), encoding="latin-1:strict")
    assert status == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [legible(os.fsdecode(file)) for file in files]
    assert all(row[1] in (names if row[1].isascii() else [*names, *map(_latin, names)]) for row in rows)


def _latin(name):
    return name.encode("latin-1", "legible").decode("latin-1")


def test_inspect_and_split_name_the_image_that_is_broken(params, folder, tmp_path):
    shutil.copytree(folder / "own", tmp_path / "own")
    broken = os.path.join(os.fsencode(tmp_path / "own"), b"caf\xe9", b"image \xe9 1.png")
    with open(broken, "wb") as file:
        file.write(b"no image")
    other = ["--set", f"data.train={tmp_path / 'own'}", "--set", f"outputs={tmp_path / 'outputs'}"]
    for command, encoding in (("inspect", "ascii:strict"), ("split", "latin-1:strict"), ("run", "ascii:strict")):
        status, out, err = call(command, params, *other, encoding=encoding)
        assert status == 2 and err.count("\n") == 1 and "caf\\xe9/image \\xe9 1.png" in err, (command, err)
    listing = (tmp_path / "outputs" / "odd" / "unreadable.txt").read_text(encoding="utf-8")
    assert listing.startswith(legible(os.fsdecode(broken)) + "\t") and listing.count("\n") == 1


def test_outputs_under_a_path_that_is_no_text_are_refused_before_anything_runs(params, tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    status, _, err = call("run", params, "--set", f'outputs="{tmp_path}/caf\\udce9"')
    assert status == 2 and err.count("\n") == 1 and "outputs: " in err and "caf\\xe9" in err and not place.exists()
