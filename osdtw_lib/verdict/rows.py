"""A row of the verdict as a file: what one network of one method at one seed predicted, what it cost, on what it was measured.

Rows made on another machine go into the same table where data, split, test images and start are the same. A file holds one row
or a list of them; `tables/verdict_rows.json` has all rows of a table.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch

from .. import methods
from ..artifacts.manifest import own_checksum
from ..config.paths import PROJECT
from ..data.splits import index_hash
from ..errors import UserError
from ..evaluation.metrics import metrics_of
from ..evaluation.scores import predict, scores_over
from ..inference.cost import processor
from ..methods._base import Row
from ..methods.osdtw import ROWS, Stage1
from ..models.flops import counted, device_name, passes, training_flops
from ..stages.run import Run
from ..stages.selection import chosen
from .seed_run import SeedRun, seed_run, seeds_of

FORMAT = 1
AS_MANY = "ensemble_as_many"  # the row of an ensemble of as many networks as OSDTW's compute buys
KEYS = {"format", "row", "title", "ours", "seed", "budget", "parameters", "measured_on", "metrics", "cost", "predicted", "sha256"}
SETTINGS = ("model", "recipe", "stage0", "stage1", "fisher", "direct", "selection", "stage2", "stage3", "likelihood")


def measured(run: SeedRun, row: Row, name: str, title: str, budget: str, made_of: tuple[str, ...], **tried) -> dict:
    """The row as a value for JSON: `row`, `title`, `seed`, `budget`, `parameters` (with what else was `tried`, of a tuned row),
    `measured_on` (fingerprints), `metrics`, `cost` (training and prediction) and `predicted`, a class an image of the test set.
    """
    network = row.network(run.read)
    scores = scores_over(network, row.scores, run.batches(run.test), run.config.recipe.precision)
    found = {
        "format": FORMAT,
        "row": name,
        "title": title,
        "ours": row.name in ROWS,
        "seed": run.config.seed,
        "budget": budget,
        "parameters": {
            "epochs": run.config.stage2.epochs,
            "learning_rate": run.config.stage2.learning_rate or run.config.recipe.learning_rate,
            "weight_decay": run.config.recipe.weight_decay,
            "likelihood": run.config.likelihood,
            "method": own_parameters(run, row.name),
            **_by_hand(run, row, budget),
            **tried,
        },
        "measured_on": fingerprints(run),
        "metrics": metrics_of(scores, run.test.labels, run.groups),
        "cost": _cost(run, row, network, made_of),
        "predicted": predict(scores).tolist(),
    }
    return found | {"sha256": digest(found)}


def own_parameters(run: SeedRun, name: str) -> dict:
    """A method's; of one that lies in a file elsewhere also what the file is."""
    if name not in run.asked:
        return {}
    method, parameters = run.asked[name]
    return parameters.model_dump(mode="json") | ({"file_sha256": method.file_sha256()} if method.file else {})


def _by_hand(run: SeedRun, row: Row, budget: str) -> dict:
    """A choice made by hand, where the row is made of one or trains as long as OSDTW does by it; the proxy's, and one the
    parameter file names, are settings."""
    if row.name not in ROWS and budget != "osdtw":
        return {}
    by_hand = _chosen_by_hand(run if row.name in ROWS else seed_run(run.of, run.config.seed))
    return {"by_hand": {key: by_hand[key] for key in ("shared_depth", "head_weight")}} if by_hand else {}


def digest(row: dict) -> str:
    return own_checksum(row, "sha256")


def fingerprints(run: SeedRun) -> dict[str, str]:
    """What has to be the same for rows to be compared: the data, test images with their labels, and the parameter file's
    settings; a seed, also the training images and how its start is made. How pixels are seen is named where it is not the usual
    way."""
    source, (train, test), data = run.of.source, run.indices, run.of.config.data
    seen = {key: getattr(data, key) for key in ("mean", "std", "crop_share", "interpolation", "cache")}
    usual = {"crop_share": 1.0, "interpolation": "bicubic", "cache": False} | data.usual
    return {
        **({"pixels": own_checksum(seen)} if any(seen[key] not in (usual[key], None) for key in seen) else {}),
        "data": source.fingerprint(),
        "settings": own_checksum(run.of.dump(*SETTINGS, "logit_adjustment", "head_share")),
        "test": index_hash(test, run.test.labels),
        "training": index_hash(train, run.train.labels),
        "start": own_checksum(run.artifact("start").parameters),
    }


@torch.no_grad()
def _cost(run: SeedRun, row: Row, network, made_of: tuple[str, ...]) -> dict:
    """Training: FLOPs, passes (forward and backward of one plain network over every training image), seconds; prediction:
    parameters, and forwards of one plain network an image. FLOPs are null where an earlier version has not noted them."""
    artifacts = [run.artifact(name) for name in made_of]
    flops = [artifact.notes().get("flops") for artifact in artifacts]
    total = None if None in flops else sum(flops)
    one = training_flops(run.config.model, len(run.class_names))
    images = torch.zeros(2, run.config.model.channels, *run.image_size, device=run.device)
    with counted() as counter:
        row.scores(network, images)
    return {
        "flops": total,
        "passes": None if total is None else round(passes(total, run.config.model, len(run.class_names), len(run.train)), 4),
        "seconds": round(sum(artifact.seconds() for artifact in artifacts), 3),
        "device": device_name(run.device) or f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "parameters": _predicting(row, network, images),
        "forwards": round(counter.get_total_flops() / 2 / (one / 3), 4),
    }


@torch.enable_grad()
def _predicting(row: Row, network, images: torch.Tensor) -> int:
    """Parameters that the scores depend on: without a teacher, a projector, a moving average."""
    every = [p.requires_grad_() for p in network.parameters()]
    found = torch.autograd.grad(row.scores(network, images).sum(), every, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(every, found) if gradient is not None)


# rows from elsewhere --------------------------------------------------------------------------------------------


def file_of(path: str) -> Path:
    try:
        return PROJECT / Path(path).expanduser()
    except RuntimeError as error:  # ~ of a user there is not
        raise UserError(f"verdict.others: {path}: {error}") from None


def read(path: str) -> list[dict]:
    """The rows of a file. Raises UserError, one line, for what is none, and for a row that is not as it was written."""
    file = file_of(path)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"verdict.others: {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"verdict.others: {file}: is no row file (not JSON)") from None
    rows = rows if isinstance(rows, list) else [rows]
    if not rows or not all(isinstance(row, dict) and row.keys() == KEYS and row["format"] == FORMAT for row in rows):
        raise UserError(f"verdict.others: {file}: is no row file of this version")
    for row in rows:
        if row["sha256"] != digest(row):
            raise UserError(f"verdict.others: {file}: {row['row']}, seed {row['seed']}: is not as it was written; copy it again")
    return rows


def taken(path: str, own: dict[int, dict[str, str]], asked: dict[str, dict]) -> list[dict]:
    """The rows of a file, if they were measured on what `own` ({seed: fingerprints}) says of their seeds, with the parameters
    that `asked` ({method: parameters}) says of their methods. Rows of other seeds are left out, as long as some are not.

    Raises UserError saying what differs.
    """
    rows = read(path)
    fitting = [row for row in rows if row["seed"] in own]
    if not fitting:
        theirs = ", ".join(map(str, sorted({row["seed"] for row in rows})))
        raise UserError(f"verdict.others: {path}: seed {theirs} is none of verdict.seeds {sorted(own)}")
    for row in fitting:
        wanted, parameters = own[row["seed"]], row["parameters"]["method"]
        theirs = row["measured_on"]
        different = [name for name in (*wanted, *(theirs.keys() - wanted)) if theirs.get(name) != wanted.get(name)]
        if different:
            raise UserError(f"verdict.others: {path}: {row['row']} was measured on other {' and '.join(different)} than here")
        here = asked.get(row["row"], parameters)
        if row["row"] == AS_MANY and "ensemble" in asked:
            here = asked["ensemble"] | {"networks": parameters.get("networks")}
        if row["budget"] == "tuned":  # with values that were chosen there: only the file has to be the same
            parameters, here = ({"file_sha256": values.get("file_sha256")} for values in (parameters, here))
        if parameters != here:
            raise UserError(f"verdict.others: {path}: {row['row']} was trained with {parameters}, not as here")
        if by_hand := row["parameters"].get("by_hand"):
            raise UserError(f"verdict.others: {path}: {row['row']} stands on a choice made by hand there, {by_hand}")
    return fitting


@functools.lru_cache(maxsize=8)
def taken_from_elsewhere(run: Run) -> dict[tuple[str, str, int], dict]:
    """The rows of verdict.others by place_of. Raises UserError where one does not fit, or is there twice."""
    if not run.config.verdict.others:
        return {}
    runs = {seed: seed_run(run, seed) for seed in seeds_of(run)}
    first = next(iter(runs.values()))
    asked = {name: methods.load(name).Parameters().model_dump(mode="json") for name in methods.names()}  # beside those named here
    asked |= {name: own_parameters(first, name) for name in first.asked}
    own = {seed: fingerprints(one) for seed, one in runs.items()}
    found: dict[tuple, dict] = {}
    by_hand = _chosen_by_hand(run)
    chosen_for = {name for name in (*ROWS, "osdtw_joint", "osdtw_separate") if name != Stage1.name}
    for path in run.config.verdict.others:
        for row in taken(path, own, asked):
            if by_hand and row["seed"] == run.config.seed and (row["budget"] == "osdtw" or row["row"] in chosen_for):
                continue  # of another C and w_A, or as long as those take
            if (at := place_of(row)) in found:
                raise UserError(f"verdict.others: {path}: {row['row']} at seed {row['seed']} is given twice")
            found[at] = row
    return found


def _chosen_by_hand(run: Run) -> dict | None:
    """The choice of C and w_A, where it was made in this run's explorer; None also where nothing is chosen yet."""
    try:
        choice = chosen(run)
    except UserError:
        return None
    return choice if choice.get("chosen_by") == "hand" else None


def place_of(row: dict) -> tuple[str, str, int]:
    """Where in the table: row, budget, seed."""
    return row["row"], row["budget"], row["seed"]
