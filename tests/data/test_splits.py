"""The digits, and the split of a data set."""

import hashlib

import numpy as np
import pytest

from osdtw_lib.config.schema import Digits as Data
from osdtw_lib.config.schema import Files
from osdtw_lib.data import sets
from osdtw_lib.data.sets import load_source
from osdtw_lib.data.source import LabelledImages, Source
from osdtw_lib.data.splits import index_hash, split_notes
from osdtw_lib.errors import UserError
from osdtw_lib.longtail import exponential_class_counts

DIGITS = Data(dataset="digits", largest=40, imbalance_ratio=10, test_per_class=10)


def split_of(source, data, seed):
    return sets.of(data).split(source, data, seed)


def images(n=11, size=4):
    rng = np.random.default_rng(0)
    return LabelledImages(rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8), np.arange(n) % 3)


@pytest.fixture(scope="module")
def digits():
    return load_source(DIGITS)


def test_the_digits_are_5000_real_images_500_a_class(digits):
    assert digits.images.pixels.shape == (5000, 28, 28, 1) and digits.images.pixels.dtype == np.uint8
    assert np.bincount(digits.images.labels).tolist() == [500] * 10
    assert digits.class_names == tuple("0123456789")
    assert (digits.images.pixels.reshape(5000, -1).max(1) > 200).all()  # ink on every one


def test_a_split_has_a_balanced_test_set_and_the_exponential_profile(digits):
    train, test = split_of(digits, DIGITS, seed=0)
    counts = np.bincount(digits.images.labels[train])
    assert counts.tolist() == exponential_class_counts(40, 10, 10).tolist()
    assert np.bincount(digits.images.labels[test]).tolist() == [10] * 10


def test_no_image_is_in_both_sets_or_twice_in_one(digits):
    train, test = split_of(digits, DIGITS, seed=0)
    assert len(set(train) | set(test)) == len(train) + len(test)


def test_a_seed_gives_one_split_and_leaves_the_global_generator(digits):
    np.random.seed(3)
    expected = np.random.get_state()[1].copy()
    first, again, other = (split_of(digits, DIGITS, seed) for seed in (0, 0, 1))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(np.random.get_state()[1], expected)


def test_a_larger_training_set_keeps_the_test_set(digits):
    larger = DIGITS.model_copy(update={"largest": 60})
    assert np.array_equal(split_of(digits, DIGITS, 0)[1], split_of(digits, larger, 0)[1])


def test_a_class_with_too_few_images_is_named():
    source = Source(images(9), ("cat", "dog", "owl"))
    with pytest.raises(UserError, match="class 'cat' has 3 images, 3 for training and 1 for the test"):
        split_of(source, Data(dataset="digits", largest=3, imbalance_ratio=1, test_per_class=1), 0)


def test_a_held_out_test_set_takes_so_many_a_class_and_leaves_two_thirds():
    made = Source(LabelledImages(np.zeros((64, 1, 1, 1), np.uint8), np.repeat(np.arange(5), (40, 15, 6, 2, 1))), tuple("abcde"))
    data = Files(dataset="files", train="x", test_per_class=4)
    train, test = split_of(made, data, 0)
    assert made.counts(test).tolist() == [4, 4, 2, 0, 0] and made.counts(train).tolist() == [36, 11, 4, 2, 1]
    assert sorted([*train, *test]) == list(range(64))
    assert np.array_equal(test, split_of(made, data, 0)[1]) and not np.array_equal(test, split_of(made, data, 1)[1])
    assert split_notes(made, data, train, test) == [
        "no test part: 10 images held out of the training part, 4 a class where it has enough",
        "fewer test images, a third of the class: c (2)",
        "no test image, so left out of every accuracy: d, e",
    ]
    assert made.caption(train, test) == "images, 54 training images, 5 classes (36 to 1 a class); test: 10 images held out"


@pytest.mark.parametrize("parts", [{}, {"train": np.arange(500)[::-3]}])
def test_a_draw_is_a_permutation_of_each_classs_images_by_a_generator_of_its_own(parts):
    """Written out, a class at a time; some classes have no image in the part."""
    labels = np.random.default_rng(1).integers(0, 40, 500)
    labels[labels == 7] = 8
    made = Source(LabelledImages(np.zeros((500, 1, 1, 1), np.uint8), labels), tuple(map(str, range(40))), parts=parts)
    part, train, test = parts.get("train", np.arange(500)), [], []
    for k in range(40):
        drawn = np.random.default_rng((3, k)).permutation([i for i in part if labels[i] == k]).astype(int)
        n = min(4, len(drawn) // 3)
        test, train = test + drawn[:n].tolist(), train + drawn[n:].tolist()
    found = split_of(made, Files(dataset="files", train="x", test_per_class=4), 3)
    assert [part.tolist() for part in found] == [sorted(train), sorted(test)]


def test_a_hold_out_that_would_take_a_class_its_last_images_is_refused():
    made = Source(images(4), ("cat", "dog", "owl"))
    with pytest.raises(UserError, match="data.test: no class has the three images"):
        split_of(made, Files(dataset="files", train="x"), 0)


def test_the_hash_of_a_split_is_sha256_of_its_indices():
    train, test = np.array([5, 1]), np.array([2])
    raw = b"".join(int(i).to_bytes(8, "little") for i in (5, 1, 2))
    assert index_hash(train, test) == hashlib.sha256(raw).hexdigest()
    assert index_hash(train, test) != index_hash(train[::-1].copy(), test)


def test_a_fingerprint_changes_with_a_pixel_and_with_a_label():
    one, pixel, label = images(), images(), images()
    pixel.pixels[3, 2, 1, 0] ^= 1
    label.labels[3] += 1
    assert one.fingerprint() == images().fingerprint()
    assert len({i.fingerprint() for i in (one, pixel, label)}) == 3


def test_two_names_that_are_written_alike_are_refused():
    with pytest.raises(UserError, match=r"two classes are called 'a\\nb'"):
        Source(images(4), ("a\nb", "a\\nb", "owl"))
