"""Every key of the parameter file with values nobody means: each is refused in one line, or the run it is in works."""

import math
import random
from types import NoneType, UnionType
from typing import Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from small_run import run_every_stage

from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import DATASETS, Config
from osdtw_lib.errors import UserError
from osdtw_lib.stages.run import Run

ABSURD = [0, -1, 1e308, 1e-320, 10**12, math.nan, math.inf, "", "x" * 300, "\0", [], [[]], {}, True, None]
MORE = [10**400, 1e-30, 1e30, "~nobody_here/x", "a\nb", "hf-hub:a/b", [1, 1], [2, 1], [0.5, 0.5], [1e-320, 1], [None]]


def keys(section, prefix=""):
    """(dotted key, field) of every key; the data set's own are listed by data_keys."""
    for name, field in section.model_fields.items():
        kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        yield prefix + name
        if len(inner) == 1:
            yield from keys(inner[0], f"{prefix}{name}.")


KEYS = list(keys(Config))
DATA = {
    "digits": {"dataset": "digits", "largest": 40, "imbalance_ratio": 10, "test_per_class": 10},
    "letters": {"dataset": "letters", "fonts": "/nowhere_at_all/fonts", "mean": [0.5], "std": [0.5]},
    "cifar100": {"dataset": "cifar100", "mean": [0.5], "std": [0.5], "download": False, "folder": "/nowhere_at_all/cifar100"},
    "files": {"dataset": "files", "train": "/nowhere_at_all/train", "mean": [0.5], "std": [0.5]},
}
OWN = [("digits", key) for key in KEYS] + [
    (dataset, f"data.{name}") for dataset in DATA for name in DATASETS[dataset].model_fields
]


def write(path, changes):
    """The parameter file with dotted keys replaced, its name too."""
    values = yaml.load(path.read_text(), yaml.CSafeLoader)  # thousands of times
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    path.write_text(yaml.dump(values, Dumper=yaml.CSafeDumper))
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory, write_params):
    """opened("digits", {key: value}) -> the Run, or None where it is refused in one line."""
    folder = tmp_path_factory.mktemp("absurd")

    def call(dataset, changes):
        channels = 3 if dataset == "cifar100" else 1
        colour = {"mean": [0.5] * channels, "std": [0.5] * channels}
        changes = {"data": DATA[dataset] | (colour if dataset != "digits" else {}), "model.channels": channels} | changes
        path = write(write_params(folder), changes)
        try:
            config = load_config(path)
            return config if dataset == "cifar100" else Run(config)  # whose images would be fetched
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
            return None

    return call


@pytest.fixture(scope="module")
def accepted():
    """{key: the values it took}, filled by the tests as they pass."""
    return {}


@pytest.mark.journey  # a thousand values
@pytest.mark.parametrize("dataset, key", OWN, ids=[f"{dataset}-{key}" for dataset, key in OWN])
def test_a_value_nobody_means_is_refused_in_one_line_or_opens(opened, accepted, dataset, key):
    took = [value for value in ABSURD + MORE if opened(dataset, {key: value})]
    if dataset == "digits":
        accepted[key] = took


NAMED = {  # what ended in a traceback or in nothing, by name
    "recipe.betas": [1, 1],
    "recipe.random_crop": [2, 1],
    "recipe.learning_rate": 1e-320,
    "stage1.learning_rate": 1e-320,
    "stage1.warmup_epochs": 1e308,
    "recipe.batch_size": 10**12,
    "recipe.micro_batch": 10**12,
    "fisher.batch_size": 10**12,
    "workers": 10**12,
    "model.depth": 10**12,
    "model.width": 10**12,
    "name": "x" * 300,
    "outputs": "~nobody_here/x",
    "model.init": "\0.pth",
    "fisher.buffer_megabytes": 1e308,
    "recipe.mixup": 1e-320,
    "data.std": [1e-320],
    "data.mean": [1e308],
    "ablation.seeds": [1, 1],
    "recipe.rand_augment": [1e308, 0],
    "direct.power": 1e308,
    "data.imbalance_ratio": 1e308,
    "seed": 10**400,
    "logit_adjustment": 1e308,
}


@pytest.mark.parametrize("key, value", NAMED.items(), ids=NAMED)
def test_a_value_that_would_end_a_run_in_its_middle_is_refused(params, key, value):
    with pytest.raises(UserError, match=key.split(".")[0]):
        load_config(write(params(), {key: value}))


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("recipe.learning_rate", 1e6, "less than or equal to 1000"),
        ("recipe.batch_size", 10**7, "less than or equal to 1000000"),
        ("recipe.betas", [0.9, 1.0], "less than 1"),
        ("recipe.random_crop", [0.9, 0.1], "smallest share comes first"),
        ("recipe.weight_decay", 1e-31, "1e-30 to 1e30"),
        ("outputs", "a/" + "b" * 256, "255 bytes"),
    ],
)
def test_the_line_says_the_bound(params, key, value, said):
    with pytest.raises(UserError, match=said):
        load_config(write(params(), {key: value}))


@pytest.mark.journey
def test_runs_of_absurd_values_that_are_accepted_reach_their_tables(opened, accepted):
    """Every accepted value of every key in one of a few whole runs, shuffled together by a seed."""
    # null is ViT-B's size, torch.compile takes minutes, a tiny mask_ratio is refused in one line when Stage 0 begins,
    # reproducible: true needs a process that was started with its settings
    apart = {"recipe.compile", "reproducible", "stage0.mask_ratio", "model.width", "model.depth", "outputs", "name", "data"}
    draw, columns = random.Random(0), {}
    for key in [key for key in KEYS if key not in apart and not key.startswith(("ablation", "verdict"))]:
        took = accepted.get(key) or [value for value in ABSURD + MORE if opened("digits", {key: value})]
        took = [value for value in took if not isinstance(value, (dict, NoneType))]
        draw.shuffle(took)
        columns |= {key: took} if took else {}
    assert len(columns) > 20
    for number in range(max(map(len, columns.values()))):
        changes = {key: took[number % len(took)] for key, took in columns.items()}
        run = opened("digits", {**changes, "name": f"round{number}"})
        assert run, changes
        accuracy = run_every_stage(run).artifact("tables").table("accuracy")["all"].dropna()  # of baselines not asked for
        assert len(accuracy) >= 4 and accuracy.between(0, 100).all()
