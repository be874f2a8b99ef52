"""Notebook 06: what every row scores over the test images, and over those set aside; tables, class mixes and calibration are made
of it. Each image is read once for all rows, by one of the processes.

A file a row, 4 bytes a class and image: of ImageNet-LT 200 MB a row. The folder may be deleted: what was made of it stays done.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..artifacts.artifact import Writer
from ..artifacts.files import read_tensors, remove
from ..backend import distributed
from ..evaluation.scores import scores_of_several
from ..methods._base import Row
from .networks import rows
from .run import Run
from .selection import chosen

FITS_BY = None  # it takes as many images at a time as a training, and keeps nothing of them
PARTS = ("test", "calibration")
KEPT = 4e9  # bytes of scores in memory at once: rows that take more are made in turns, each of which reads the images again
SUMMED = 4096  # images at a time whose scores the processes put together


def parameters(run: Run) -> dict:
    return {"methods": list(rows(run)), "shared_depth": chosen(run)["shared_depth"]}


def make(run: Run, write: Writer) -> None:
    waiting = list(rows(run, chosen(run)["shared_depth"]).items())
    images = {part: getattr(run, part) for part in PARTS}
    row_bytes = 4 * len(run.class_names) * sum(map(len, images.values()))
    at_once = max(1, int(KEPT / row_bytes))
    while waiting:
        some, waiting = dict(waiting[:at_once]), waiting[at_once:]
        found = {part: _over(run, some, those) for part, those in images.items() if len(those)}
        for name in some:
            write.tensors(name, {part: scores[name] for part, scores in found.items()})
    for path in write.artifact.folder.glob("*.safetensors") if write.writes else ():
        if path.name not in write.files:  # of rows that were asked for earlier
            remove(path)


def scores_of(run: Run, name: str, part: str = "test") -> np.ndarray:
    """(N, K) of the test images (or those of `calibration`) in their order, float32 or wider, in class order. name: a row, as
    `rows` names them. Raises UserError where they are not there."""
    return run.read("scores", name)[part].numpy()


def of_every_row(run: Run) -> Iterator[tuple[str, Row, dict[str, np.ndarray]]]:
    """(name, row, {part: scores (N, K)}) of the rows in their order, one after the other in memory."""
    folder = run.artifact("scores").require().folder
    for name, row in rows(run, chosen(run)["shared_depth"]).items():
        tensors = read_tensors(folder / f"{name}.safetensors")
        yield name, row, {part: scores.numpy() for part, scores in tensors.items()}


def _over(run: Run, some: dict[str, Row], images) -> dict[str, torch.Tensor]:
    """{row: scores (N, K)} of all images in the first process; in the others of those that were theirs."""
    batches, rank, every = run.batches(images), distributed.rank(), distributed.world_size()
    networks = [(row.network(run.read), row.scores) for row in some.values()]
    found = scores_of_several(networks, batches.share(rank, every), run.config.recipe.precision)
    own = {name: torch.cat(parts) if parts else torch.zeros(0, len(run.class_names)) for name, parts in zip(some, found)}
    if every == 1:
        return own
    places = torch.cat([torch.arange(0), *torch.arange(len(images)).split(batches.at_a_time)[rank::every]])
    return {name: _together(scores, places, len(images)) for name, scores in own.items()}


def _together(own: torch.Tensor, places: torch.Tensor, n: int) -> torch.Tensor:
    """The rows (n, K) of all processes, each of which has its `own` at these places; but for the first as they are."""
    own = own.to(distributed.from_first(own.dtype))  # one that had no batch does not know it
    whole = torch.empty(n, own.shape[1], dtype=own.dtype) if distributed.rank() == 0 else own
    for first in range(0, n, SUMMED):
        some = torch.zeros(min(SUMMED, n - first), own.shape[1], dtype=own.dtype)
        here = (places >= first) & (places < first + len(some))
        some[places[here] - first] = own[here]
        distributed.sum_over_processes([some], 0)
        if distributed.rank() == 0:
            whole[first : first + len(some)] = some
    return whole
