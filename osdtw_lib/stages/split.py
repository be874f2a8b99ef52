"""Notebook 01: the indices of the training and test images, their hash, the class counts; files are checked."""

from __future__ import annotations

import pandas as pd
import torch

from ..artifacts.artifact import Writer
from ..artifacts.manifest import own_checksum
from ..backend import distributed
from ..data.image_check import check_files
from ..data.repeats import refuse_leaks
from ..data.splits import calibration_notes, index_hash, split_notes
from .run import Run


def parameters(run: Run) -> dict:
    aside = run.dump("calibration") if run.config.calibration.images is not None else {}
    names = {"class_names": own_checksum({"names": run.class_names})} if run.source.names_apart else {}
    return run.dump("seed", "data") | aside | {"images": run.source.fingerprint()} | names


def before(run: Run) -> None:
    """Before the key asks what the files hold: one reading serves both, and all processes, which find it in the index."""
    distributed.by_first(lambda: check_files(run.source.images, (*run.indices, run.calibration_indices), run.folder))
    if (batch := run.config.recipe.batch_size) > len(run.train) and distributed.rank() == 0:
        said = f"recipe.batch_size {batch} is more than the {len(run.train)} training images: an epoch is one step; lower it"
        print(f"split: {said}", flush=True)


def make(run: Run, write: Writer) -> None:
    (train, test), aside = run.indices, run.calibration_indices
    used = (train, test, aside)
    copies = refuse_leaks(run.source.images, used, run.config.data, run.folder) if run.copies_are_leaks else []
    notes = split_notes(run.source, run.config.data, train, test) + calibration_notes(run.source, aside)
    for line in (run.caption, *notes, *copies):
        print(f"split: {line}", flush=True)
    parts = {"train": train, "test": test} | ({"calibration": aside} if len(aside) else {})
    write.tensors("indices", {name: torch.from_numpy(indices) for name, indices in parts.items()})
    group = {int(k): name for name, members in run.groups.items() for k in members}
    classes = range(len(run.class_names))
    write.table(
        "classes",
        pd.DataFrame(
            {
                "class": run.class_names,
                "training_images": run.class_counts,
                **({"calibration_images": run.source.counts(aside)} if len(aside) else {}),
                "prior": run.class_counts / run.class_counts.sum(),
                "group": [group[k] for k in classes],
            }
        ),
    )
    write.notes |= {"indices_sha256": index_hash(train, test), "seed": run.config.seed, "caption": run.caption}
    if len(aside):
        write.notes["calibration_sha256"] = index_hash(aside)
