"""Class counts against the published protocols, and the rules at their edges."""

import json
from pathlib import Path

import numpy as np
import pytest

from osdtw_lib.longtail import class_priors, exponential_class_counts, head_tail_partition, shot_groups

DATA = Path("..") / "shared" / "data"  # beside the project, on the authors' machines only


@pytest.fixture
def published(project):
    folder = project / DATA
    if not folder.is_dir():
        pytest.skip(f"the published lists are not here ({DATA} beside the project)")
    return folder


def sizes(counts):
    return tuple(len(members) for members in shot_groups(counts).values())


def test_cifar_100_at_ratio_100_has_10847_images():
    counts = exponential_class_counts(500, 100, 100)
    assert counts.sum() == 10_847
    assert (counts[0], counts[-1]) == (500, 5)
    assert (np.diff(counts) <= 0).all()
    assert sizes(counts) == (35, 35, 30)


def test_imagenet_lt_groups_are_the_published_ones(published):
    counts = json.loads((published / "imagenet_lt_class_counts.json").read_text())
    assert sum(counts) == 115_846
    assert sizes(counts) == (385, 479, 136)


def test_places_lt_groups_are_the_published_ones(published):
    lines = (published / "Places_LT_train.txt").read_text().split("\n")
    counts = np.bincount([int(line.split()[-1]) for line in lines if line.strip()])
    assert (counts.sum(), counts.max(), counts.min()) == (62_500, 4_980, 5)
    assert sizes(counts) == (131, 163, 71)


def test_the_default_run_has_988_images():
    counts = exponential_class_counts(400, 100, 10)
    assert (counts.sum(), counts[0], counts[-1]) == (988, 400, 4)


def test_ratio_one_is_balanced():
    assert exponential_class_counts(7, 1, 4).tolist() == [7, 7, 7, 7]


def test_one_class_keeps_everything():
    assert exponential_class_counts(7, 10, 1).tolist() == [7]


@pytest.mark.parametrize("arguments", [(500, 0.99, 10), (500, float("nan"), 10), (500, 100, 0), (0, 1, 10), (5, 100, 10)])
def test_counts_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError):
        exponential_class_counts(*arguments)


def test_head_is_the_more_frequent_half_whatever_the_label_order():
    head, tail = head_tail_partition([3, 50, 7, 20])
    assert head.tolist() == [1, 3] and tail.tolist() == [0, 2]


def test_with_an_odd_number_of_classes_the_head_has_one_more():
    head, tail = head_tail_partition([1, 2, 3, 4, 5])
    assert head.tolist() == [2, 3, 4] and tail.tolist() == [0, 1]


def test_a_tie_goes_to_the_smaller_class_index():
    head, tail = head_tail_partition([5, 5, 5, 5])
    assert head.tolist() == [0, 1] and tail.tolist() == [2, 3]
    head, tail = head_tail_partition([1, 9, 4, 4])
    assert head.tolist() == [1, 2] and tail.tolist() == [0, 3]


@pytest.mark.parametrize("share, heads", [(0.3, 3), (0.34, 3), (0.25, 3), (0.249, 2), (0.7, 7), (0, 1), (1, 9)])
def test_the_line_can_be_drawn_elsewhere_and_each_task_keeps_a_class(share, heads):
    head, tail = head_tail_partition(range(10), share)
    assert head.tolist() == list(range(10 - heads, 10)) and tail.tolist() == list(range(10 - heads))


def test_half_a_class_counts_up_also_where_binary_fractions_fall_short():
    assert [len(head_tail_partition(range(k), share)[0]) for k, share in ((50, 0.29), (100, 0.145), (50, 0.57))] == [15, 15, 29]


def test_every_class_is_in_exactly_one_half_and_one_group():
    counts = np.random.default_rng(0).integers(1, 300, 57)
    for parts in (head_tail_partition(counts), shot_groups(counts).values()):
        assert sorted(np.concatenate(list(parts)).tolist()) == list(range(57))


def test_groups_are_cut_at_20_and_100_images():
    groups = shot_groups([101, 100, 20, 19, 0])
    assert {name: members.tolist() for name, members in groups.items()} == {"many": [0], "medium": [1, 2], "few": [3, 4]}


@pytest.mark.parametrize("counts", [[5], [], [[1, 2]], [3, -1]])
def test_a_partition_of_nonsense_is_refused(counts):
    with pytest.raises(ValueError):
        head_tail_partition(counts)


def test_priors_are_frequencies_over_all_images():
    np.testing.assert_allclose(class_priors([6, 3, 1]), [0.6, 0.3, 0.1], rtol=1e-15)


def test_an_empty_class_has_no_prior_and_is_named():
    with pytest.raises(ValueError, match="1, 3"):
        class_priors([6, 0, 1, 0])
