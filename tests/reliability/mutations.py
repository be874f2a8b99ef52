"""A thousand changed artifacts, parameter files, lists and images: the right result, or one line and status 2."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from safetensors.numpy import load_file
from small_run import SMALL

from osdtw_lib import load_predictor
from osdtw_lib.config.load import load_config

from . import mutants, yaml_core
from .kills import CHAIN
from .pictures import FORMATS, picture, write_pictures
from .readers import predicted, reported
from .runs import Finished, call, digests, ends_the_same, finish, same, sound
from .trials import Failed, Place, Trial

LONG = {"artifact": 300, "parameter file": 350, "list": 200, "image": 150}
SHORT = {"artifact": 12, "parameter file": 20, "list": 10, "image": 8}
MEMORY = 8 * 2**30  # bytes of address space a trial may take beside what it has
# so much and no more is really trained; what is larger is split and planned only
SIZES = {
    "stage0.epochs": 6,
    "stage1.epochs": 6,
    "stage2.epochs": 6,
    "stage3.epochs": 6,
    "model.width": 96,
    "model.depth": 8,
    "stage0.decoder_width": 64,
    "stage0.decoder_depth": 4,
    "data.largest": 500,
    "data.test_per_class": 100,
    "recipe.compile": False,  # takes minutes
}


def trials(long: bool, run: Finished) -> list[Trial]:
    works = {"artifact": _artifact, "parameter file": _parameter_file, "list": _list, "image": _image}
    return [
        Trial(f"mutated {kind}", f"mutations/{kind.replace(' ', '-')}/{n}", lambda place, kind=kind: works[kind](place, run), 0.7)
        for kind, count in (LONG if long else SHORT).items()
        for n in range(count)
    ]


# artifacts --------------------------------------------------------------------------------------------------


def _artifact(place: Place, run: Finished) -> str | None:
    rng, params = place.random, run.copy(place.folder)
    folder = place.folder / "outputs" / "small"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    suffix = rng.choice((".json", ".csv", ".safetensors"))
    path = rng.choice([p for p in files if p.suffix == suffix])
    how = rng.randrange(4)
    if how == 0:
        others = [p for p in files if p.suffix == path.suffix and p.read_bytes() != path.read_bytes()]
        shutil.copy(rng.choice(others), path)
    elif how == 1 and path.suffix == ".json":
        path.write_text(mutants.of_json(path.read_text(), rng))
    elif how == 1 and path.suffix == ".csv":
        path.write_bytes(mutants.of_lines(path.read_text(), rng).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(mutants.of_bytes(path.read_bytes(), rng))
    print(f"{path.relative_to(folder)}, way {how}")
    consumer = rng.randrange(4)
    if consumer == 0:
        predicted(folder, run)
        return None
    if consumer == 1:
        reported(place.folder / "outputs", run)
        return None
    return ends_the_same(params, run)


# parameter files --------------------------------------------------------------------------------------------


def _parameter_file(place: Place, run: Finished) -> str | None:
    rng, params = place.random, run.copy(place.folder)
    values = yaml.safe_load(params.read_text())
    known = load_config(params).model_dump(mode="json")
    text, how = params.read_text(), rng.choice((0, 1, 1, 2, 3, 4))
    key = rng.choice([k for k in mutants.dotted(known) if k not in ("outputs", "name", "device", "workers")])
    if how == 0:
        text = yaml.safe_dump(mutants.replaced(values, key, rng.choice(mutants.ODD)), sort_keys=False)
    elif how == 1:
        text = yaml.safe_dump(mutants.replaced(values, key, mutants.near(_at(known, key), rng)), sort_keys=False)
    elif how == 2:
        spelt = yaml.safe_dump(mutants.replaced(values, key, "SPELT"), sort_keys=False)
        text = spelt.replace("SPELT", rng.choice(mutants.SPELLINGS))
    elif how == 3:
        text = mutants.of_lines(text, rng)
    data = mutants.of_bytes(text.encode(), rng) if how == 4 else text.encode("utf-8", "surrogatepass")
    params.write_bytes(data)
    print(data.decode("utf-8", "replace")[:3000])
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
    if not sound(call("split", params), "split"):
        return "refused"
    config = load_config(params)
    _meant(data, config)
    known = config.model_dump(mode="json")
    if Path(known["outputs"]) != place.folder / "outputs" or known["name"] != "small":
        return None
    if any(_at(known, k) > most for k, most in SIZES.items()) or known["theory"]["repetitions"] > 800:
        sound(call("plan", params), "plan")
        return None
    return _as_from_the_start(place, params)


def _meant(data: bytes, config) -> None:
    try:
        given = yaml_core.read(data.decode("utf-8-sig"))
    except yaml_core.Unclear:
        return
    wrong = yaml_core.differs(given, config.model_dump(mode="json"))
    if wrong:
        raise Failed(f"accepted, but {wrong}")


def _as_from_the_start(place: Place, params: Path) -> str | None:
    """What is made over another parameter file's results is what is made from nothing. Raises Failed."""
    over = finish(params, CHAIN)
    there = sound(over, "stages")
    made = place.folder / "outputs" / "small"
    made.rename(place.folder / "over")
    fresh = finish(params, CHAIN)
    if sound(fresh, "stages from nothing") != there:
        raise Failed(f"over other results: {over.err or 'done'}; from nothing: {fresh.err or 'done'}")
    if not there:
        return "refused"
    within = tuple(f"{stage}/" for stage in CHAIN)
    baselines = tuple(f"baselines/{method}/" for method in load_config(params).baselines)
    same(place.folder / "over", digests(made), (*(w for w in within if w != "baselines/"), *baselines))
    return None


def _at(values: dict, key: str):
    for part in key.split("."):
        values = values[part]
    return values


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


# lists ------------------------------------------------------------------------------------------------------


def _list(place: Place, run: Finished) -> str | None:
    rng, root = place.random, place.folder / "data"
    listed = write_pictures(root)
    is_csv = rng.random() < 0.6
    numbers = {label: n for n, label in enumerate(sorted({label for _, label in listed}))}
    lines = ["path,label", *(f"{path},{label}" for path, label in listed)] if is_csv else [f"{p} {numbers[n]}" for p, n in listed]
    text = "\n".join(lines) + "\n"
    how = rng.randrange(3)
    if how == 0:
        text = _relabelled(lines, is_csv, rng)
    data = mutants.of_bytes(text.encode(), rng) if how == 1 else text.encode()
    for _ in range(rng.choice((1, 1, 2)) if how == 2 else 0):
        data = mutants.of_lines(data.decode("utf-8", "surrogatepass"), rng).encode("utf-8", "surrogatepass")
    path = root / ("train.csv" if is_csv else "train.txt")
    path.write_bytes(data)
    print(data.decode("utf-8", "replace")[:6000])
    params = _pictures_params(place, path)
    if not sound(call("inspect", params), "inspect") | sound(call("split", params), "split"):
        return "refused"
    _counted(place, data, root, is_csv)
    return None


def _pictures_params(place: Place, train: Path) -> Path:
    data = {"dataset": "files", "train": str(train), "test_per_class": 2}
    values = SMALL | {"outputs": str(place.folder / "outputs"), "data": data, "model": SMALL["model"] | {"channels": 3}}
    path = place.folder / "small.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _relabelled(lines: list[str], is_csv: bool, rng: random.Random) -> str:
    """One image has another label, or all of a class have, or its path is spelt in another way."""
    lines, at = list(lines), rng.randrange(1, len(lines))
    mark = "," if is_csv else " "
    path, label = lines[at].rsplit(mark, 1)
    odd = rng.choice(
        (
            "NA",
            "None",
            "null",
            "nan",
            "00001",
            "1e5",
            "True",
            "0",
            "0.0",
            "-1",
            "1" + "0" * 20,
            "",
            " ",
            "x" * 300,
            "a b",
            "=1+1",
            "<!--<script>",
            '"q"',
            "..",
            "a/b",
            "é",
            "7",
        )
    )
    kind = rng.randrange(4)
    if kind == 0:
        lines[at] = f"{path}{mark}{odd}"
    elif kind == 1:
        lines = [f"{line.rsplit(mark, 1)[0]}{mark}{odd}" if line.endswith(f"{mark}{label}") else line for line in lines]
    elif kind == 2:
        lines[at] = f"{rng.choice(('./', 'x/../', '../data/', '/', 'nowhere/'))}{path}{mark}{label}"
    else:
        lines.append(f"{rng.choice(('./', '../data/', ''))}{path}{mark}{rng.choice((label, odd))}")
    return "\n".join(lines) + "\n"


def _counted(place: Place, data: bytes, root: Path, is_csv: bool) -> None:
    """Each class has as many images as a second reading of the list finds, under its name. Raises Failed."""
    text, files = data.decode("utf-8-sig"), {}
    if is_csv:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(f.strip() for f in row)]
        names = [name.strip().lower() for name in header]
        rows = [(row[names.index("path")].strip(), row[names.index("label")].strip()) for row in rows]
    else:
        rows = [line.rsplit(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for path, label in rows:
        before = files.setdefault(os.path.realpath(root / path.strip()), label)
        if before != label:
            raise Failed(f"{path} counts, and has two labels: {before} and {label}")
    wanted: dict[str, int] = {}
    for label in files.values():
        wanted[label] = wanted.get(label, 0) + 1
    split = place.folder / "outputs" / "small" / "split"
    with (split / "classes.csv").open(encoding="utf-8", newline="") as file:
        found = {row["class"]: int(row["training_images"]) for row in csv.DictReader(file)}
    held = [all_of - training for all_of, training in zip(sorted(wanted.values()), sorted(found.values()))]  # at most two a class
    if len(found) != len(wanted) or not all(0 <= count <= 2 for count in held):
        raise Failed(f"trains on {sorted(found.values())} where the list has {sorted(wanted.values())}")
    named = is_csv and not all(label.isdecimal() for label in wanted)
    if named and (found.keys() != wanted.keys() or any(not 0 <= wanted[k] - found[k] <= 2 for k in wanted)):
        raise Failed(f"classes {found} where the list has {wanted}")
    if sum(map(len, load_file(split / "indices.safetensors").values())) != len(files):
        raise Failed("not every image is in a part, or one is twice")


# images -----------------------------------------------------------------------------------------------------


def _image(place: Place, run: Finished) -> str | None:
    rng = place.random
    suffix, mode, options = rng.choice(FORMATS)
    path = place.folder / f"image{suffix}"
    picture(path, rng, mode, **options)
    for _ in range(rng.choice((0, 1, 1, 2))):
        path.write_bytes(mutants.of_bytes(path.read_bytes(), rng))
    kept = Path(shutil.copy(path, place.folder / f"kept{suffix}"))
    print(f"{suffix} {mode} {options}")
    top = len(load_predictor(run.folder).class_names)
    answer = call("predict", run.folder, path, "--top", top)
    said = answer.err.splitlines(True)
    if said and not said[0].startswith("error: ") and str(path) in said[0]:  # a line a file, then one over all
        answer = replace(answer, err="".join(said[1:]))
    if not sound(answer, "predict"):
        if str(path) not in said[0]:
            raise Failed(f"no line names the file: {said}")
        return "refused"
    _as_pillow_reads_it(kept, answer.out, run)
    return None


def _as_pillow_reads_it(path: Path, said: str, run: Finished) -> None:
    """The probabilities are those of the pixels that Pillow gives, where there is one way only to see them as grey."""
    try:
        with Image.open(path) as image:
            plain = image.mode in ("L", "RGB") and not image.getexif() and "transparency" not in image.info
            image.load()
    except Exception as error:
        raise Failed(f"taken, although Pillow says: {error}") from error
    if not plain:
        return
    predictor = load_predictor(run.folder)
    row = predictor([image.convert("L")])[0]
    wanted = [f"{predictor.class_names[k]}\t{row[k]:.4f}" for k in np.argsort(-row)]
    found = [line.partition("\t")[2] for line in said.splitlines()]
    if sorted(wanted) != sorted(found):
        raise Failed(f"predicted {json.dumps(found)}, and from Pillow's pixels {json.dumps(wanted)}")
