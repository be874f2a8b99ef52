"""The published counts, against the real lists where they are at hand, and every way a list can be another one."""

import json
from pathlib import Path

import numpy as np
import pytest

from osdtw_lib.config.paths import PROJECT
from osdtw_lib.data.listings.folders import read_part
from osdtw_lib.data.protocols import PROTOCOLS, check_protocol
from osdtw_lib.errors import UserError
from osdtw_lib.longtail import shot_groups

SHARED = PROJECT.parent / "shared" / "data"


def real(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there: the published lists do not come with the project")
    return path


def stand_in(name: str) -> np.ndarray:
    """Counts (K,) that have a protocol's sums, extremes and groups, and are not the published ones."""
    known = PROTOCOLS[name]
    many, medium, few = known.groups or (700, 4000, known.classes - 4700)
    counts = np.concatenate((np.full(many, 101), np.full(medium, 50), np.full(few, 10)))
    counts[0], counts[-1] = known.largest, known.smallest
    rest = known.images - counts.sum()
    counts[1:many] += rest // (many - 1)
    counts[1] += known.images - counts.sum()
    assert counts.sum() == known.images and counts.max() == known.largest
    return counts


def refusal(name, **parts) -> str:
    with pytest.raises(UserError) as refused:
        check_protocol(name, parts)
    return str(refused.value)


def test_imagenet_lt_as_published():
    counts = np.array(json.loads(real("imagenet_lt_class_counts.json").read_text()))
    check_protocol("imagenet_lt", {"train": counts})
    counts[counts.argmax()] -= 1
    said = refusal("imagenet_lt", train=counts)
    assert "115,845 images instead of 115,846, 1,279 images in the largest class instead of 1,280;" in said


@pytest.mark.parametrize("part", ["train", "val"])
def test_places_lt_as_published(part):
    labels = read_part(part, real(f"Places_LT_{part}.txt"), None).labels
    check_protocol("places_lt", {part: np.bincount(labels)})


@pytest.mark.parametrize("name", PROTOCOLS)
def test_parts_with_the_known_counts_pass(name):
    known = PROTOCOLS[name]
    balanced = {part: np.full(known.classes, each) for part, each in known.per_class.items()}
    check_protocol(name, {"train": stand_in(name), **balanced})
    assert {part: counts.sum() for part, counts in balanced.items()} == {
        "imagenet_lt": {"val": 20_000, "test": 50_000},
        "places_lt": {"val": 7_300, "test": 36_500},
        "inaturalist2018": {"val": 24_426},
    }[name]


def test_val_and_test_are_told_apart():
    val, test = np.full(1000, 20), np.full(1000, 50)
    assert "data.test: this is the val list of ImageNet-LT (20,000 images" in refusal("imagenet_lt", test=val)
    assert "give it as data.test" in refusal("imagenet_lt", val=test)
    assert "data.train: this is the val list" in refusal("imagenet_lt", train=val)


def test_a_deviation_names_what_differs():
    counts = stand_in("places_lt")
    assert "62,490 images instead of 62,500" in refusal("places_lt", train=counts - 10 * (np.arange(365) == 1))
    assert "364 classes instead of 365" in refusal("places_lt", train=counts[:-1])
    moved = counts.copy()
    last_medium = shot_groups(counts)["medium"][0]
    moved[last_medium] -= 40
    moved[1] += 40
    assert refusal("places_lt", train=moved).startswith(
        "data.train: not Places-LT as published: 162 classes in group medium instead of 163, 72 classes in group few"
    )
    short = np.full(365, 100)
    short[7] -= 1
    assert "36,499 images instead of 36,500, 99 fewest images a class instead of 100" in refusal("places_lt", test=short)


def test_a_protocol_needs_the_part_that_is_evaluated(tree, files_params, refused):
    said = refused("split", files_params(train=tree({"cat": 3, "dog": 3}), protocol="places_lt"))
    assert "data.test: Places-LT has a test list; give it" in said


def test_a_folder_that_is_not_the_protocols_is_refused(tree, files_params, refused):
    train, test = tree({"cat": 3, "dog": 3}), tree({"cat": 1, "dog": 1}, "test")
    assert "not ImageNet-LT as published: 6 images instead of 115,846" in refused(
        "split", files_params(train=train, test=test, protocol="imagenet_lt")
    )


def test_inaturalists_counts_are_checked_where_nobody_says_its_groups():
    counts = stand_in("inaturalist2018")
    assert "8,141 classes instead of 8,142" in refusal("inaturalist2018", train=counts[:-1])
    assert "data.train: this is the val list of iNaturalist 2018 (24,426 images" in refusal(
        "inaturalist2018", train=np.full(8142, 3)
    )
    assert "24,425 images instead of 24,426" in refusal("inaturalist2018", val=np.append(np.full(8141, 3), 2))
