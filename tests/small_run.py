"""The tiny parameter file that tests and the reliability campaign run, and running it: real digits, seconds for the whole way."""

import contextlib
import copy
import io
import shutil
import tempfile
from pathlib import Path

import yaml

SMALL = {
    "name": "small",
    "data": {"dataset": "digits", "largest": 40, "imbalance_ratio": 10, "test_per_class": 10},
    "model": {"image_size": 28, "patch_size": 14, "width": 16, "depth": 3, "heads": 2, "channels": 1, "class_token": False},
    "recipe": {"batch_size": 32, "drop_path": 0.1},
    "stage0": {
        "epochs": 2,
        "warmup_epochs": 1,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "normalize_patches": False,
    },
    "stage1": {"epochs": 2, "warmup_epochs": 1},
    "stage2": {"epochs": 2, "warmup_epochs": 1},
    "stage3": {"epochs": 2},
    "theory": {"repetitions": 400, "images": 40},
    "selection": {"form": "damped", "shared_depth": 2, "head_weight": 0.4},
}


def write_small(folder: Path, changes: dict | None = None) -> Path:
    """The tiny parameter file with dotted keys replaced; its results go to folder/outputs."""
    values = copy.deepcopy(SMALL) | {"outputs": str(folder / "outputs")}
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    path = folder / f"{values['name'].replace('/', '_')}.yaml"
    path.write_text(yaml.dump(values, Dumper=yaml.CSafeDumper, sort_keys=False))
    return path


KEPT = tempfile.TemporaryDirectory(prefix="osdtw-tests-")  # notebook 07's simulation, by its repetitions


def run_every_stage(run, stages: tuple[str, ...] = ()):
    """Every stage of a run, or these, without a word; the simulation, which depends on its repetitions alone, once a process."""
    from osdtw_lib.stages import CONTENTS, execute

    place, kept = run.folder / "simulation", Path(KEPT.name, str(run.config.theory.repetitions))
    with contextlib.redirect_stdout(io.StringIO()):
        for name in stages or [name for name, stage in CONTENTS.items() if not stage.optional]:
            if name == "simulation" and kept.exists() and not place.exists():
                shutil.copytree(kept, place)
            execute(run, name)
    if place.exists() and not kept.exists():
        shutil.copytree(place, kept)
    return run
