"""Training images set aside for calibration: which, how many, and that they are nowhere else."""

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.data.source import LabelledImages, Source
from osdtw_lib.data.splits import calibration_notes, set_aside
from osdtw_lib.errors import UserError
from osdtw_lib.stages.run import Run
from osdtw_lib.verdict.seed_run import SeedRun


def source(counts=(10, 5, 2, 1), seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return Source(LabelledImages(rng.integers(0, 256, (len(labels), 3, 3, 1), np.uint8), labels), tuple("abcdefg"[: len(counts)]))


def test_none_is_set_aside_where_none_is_asked_for():
    made = source()
    train, aside = set_aside(made, np.arange(18), None, 0)
    assert np.array_equal(train, np.arange(18)) and len(aside) == 0 and calibration_notes(made, aside) == []


def test_a_share_is_rounded_down_and_never_empties_a_class():
    made = source()
    train, aside = set_aside(made, np.arange(18), 0.5, 0)
    assert made.counts(aside).tolist() == [5, 2, 1, 0] and made.counts(train).tolist() == [5, 3, 1, 1]
    assert sorted([*train, *aside]) == list(range(18))
    assert calibration_notes(made, aside) == [
        "calibration part: 8 images taken out of the training part, which train nothing",
        "no calibration image, so judged with the others of their group: d",
    ]
    assert made.counts(set_aside(made, np.arange(18), 0.999999, 0)[0]).min() == 1


def test_a_number_takes_as_many_of_each_class_and_refuses_to_empty_one():
    made = source((10, 5, 3))
    assert made.counts(set_aside(made, np.arange(18), 2, 0)[1]).tolist() == [2, 2, 2]
    with pytest.raises(UserError, match="class 'c' has 3 training images and 3 were asked for, so that none would train") as said:
        set_aside(made, np.arange(18), 3, 0)
    assert "\n" not in str(said.value)
    with pytest.raises(UserError, match="a share of 0.05 is less than one image of every class"):
        set_aside(made, np.arange(18), 0.05, 0)


def test_a_seed_says_which_and_a_class_does_not_depend_on_the_others():
    made = source((10, 5, 3))
    first, again, other = (set_aside(made, np.arange(18), 2, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    fewer = set_aside(made, np.arange(15), 2, 0)[1]
    assert np.array_equal(fewer, first[first < 15])


def test_of_an_arrays_images_one_with_a_copy_stays():
    made = source((10, 8))
    made.images.pixels[1:7] = made.images.pixels[0]  # seven alike; three others
    train, aside = set_aside(made, np.arange(18), 5, 0)
    assert made.counts(aside).tolist() == [3, 5] and set(range(7)) <= set(train)
    made.images.pixels[17] = made.images.pixels[9]  # a copy elsewhere, be it of a test image
    assert 9 not in set_aside(made, np.arange(17), 5, 0)[1]


def parts(run):
    return [set(run.indices[0]), set(run.indices[1]), set(run.calibration_indices)]


def test_a_runs_three_parts_are_disjoint_and_the_test_part_stays(params):
    plain, carved = (Run(load_config(params(changes))) for changes in ({}, {"calibration.images": 0.3}))
    train, test, aside = parts(carved)
    assert (train | aside, test) == tuple(parts(plain)[:2]) and not train & aside and not test & (train | aside)
    assert len(carved.calibration) == len(aside) == 44 and not len(plain.calibration)
    assert carved.class_counts.tolist() == (plain.class_counts - np.floor(0.3 * plain.class_counts)).tolist()
    assert "115 training images" in carved.caption


def test_another_seed_of_the_verdict_leaves_the_same_images_aside(params):
    run = Run(load_config(params({"calibration.images": 0.3, "verdict.training_images": "drawn", "verdict.methods": []})))
    seed = SeedRun(run, 5)
    train, test, aside = parts(seed)
    assert aside == parts(run)[2] and test == parts(run)[1] and train != parts(run)[0]
    assert not train & aside and not train & test and seed.class_counts.tolist() == run.class_counts.tolist()


def test_a_copy_of_a_calibration_file_may_not_train(tree, files_params, command):
    folder = tree({"cat": 8, "dog": 6})
    params = files_params({"calibration.images": 3}, train=folder, test=tree({"cat": 2, "dog": 2}, "test"))
    assert "calibration part: 6 images taken" in command("inspect", params)[1]
    run = Run(load_config(params))
    first, trains = run.calibration.paths[0], [p for p, k in zip(run.train.paths, run.train.labels) if k == 0][0]
    before = open(trains, "rb").read()
    with open(first, "rb") as aside, open(trains, "wb") as copy:
        copy.write(aside.read())
    for name in ("inspect", "split"):
        assert "1 images in the calibration part and in another" in refused_after(command, name, params)
    with open(trains, "wb") as copy:
        copy.write(before)
    status, said, _ = command("split", params)
    assert status == 0 and "calibration part: 6 images" in said


def refused_after(command, *arguments):
    """The line on stderr; inspect says other things before it, on stdout."""
    status, _, err = command(*arguments)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("value", [0, -3, 1.5, 1.0, 0.0, True, "a few", [3], float("nan")])
def test_what_is_no_number_and_no_share_is_one_line(params, refused, value):
    assert "calibration.images" in refused("split", params({"calibration.images": value}))


def test_a_misspelt_key_is_named(params, refused):
    assert "did you mean 'calibration.images'" in refused("split", params({"calibration.image": 3}))
    assert "class '9' has 4 training images" in refused("split", params({"calibration.images": 4}))
