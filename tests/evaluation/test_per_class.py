"""Every class by itself: against scikit-learn and scipy, and by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from osdtw_lib.evaluation.per_class import classes, confusions, dense, further_accuracies

NAMES = ["NA", "a", "b", "unseen", "never named"]
LABELS = np.array([0] * 10 + [1] * 6 + [2] * 4 + [4] * 2)
PREDICTED = np.array([0] * 7 + [1, 1, 2] + [1] * 5 + [0] + [2] * 4 + [3, 0])
TRAINING = np.array([40, 20, 10, 5, 2])


def test_recall_and_precision_are_scikit_learns():
    table = classes(PREDICTED, LABELS, NAMES, TRAINING)
    with_images = [0, 1, 2, 4]
    recall = recall_score(LABELS, PREDICTED, labels=range(5), average=None, zero_division=0)
    precision = precision_score(LABELS, PREDICTED, labels=range(5), average=None, zero_division=0)
    np.testing.assert_allclose(table["recall"][with_images], 100 * recall[with_images])
    np.testing.assert_allclose(table["precision"][:4], 100 * precision[:4])
    assert np.isnan(table["recall"][3]) and np.isnan(table["recall_low"][3]) and np.isnan(table["precision"][4])
    for k in with_images:
        interval = binomtest(int(table["right"][k]), int(table["test_images"][k])).proportion_ci(method="wilson")
        assert (table["recall_low"][k], table["recall_high"][k]) == pytest.approx((100 * interval.low, 100 * interval.high))


def test_the_commonest_mistake_is_named_and_counted():
    table = classes(PREDICTED, LABELS, NAMES, TRAINING)
    assert table["taken_for"].tolist() == ["a", "NA", "", "", "NA"]  # of the last one's two the first
    assert table["taken_for_images"].tolist() == [2, 1, 0, 0, 1]
    assert table["training_images"].tolist() == TRAINING.tolist() and table["class"].tolist() == NAMES


def test_confusions_are_the_whole_matrix():
    table = confusions(PREDICTED, LABELS, NAMES)
    assert (table["count"] > 0).all() and table["count"].sum() == len(LABELS)
    assert dense(table, NAMES).tolist() == confusion_matrix(LABELS, PREDICTED, labels=range(5)).tolist()


def test_means_over_classes_and_groups_by_hand():
    groups = {"many": np.array([0]), "medium": np.array([1, 2]), "few": np.array([3, 4])}
    found = further_accuracies(PREDICTED, LABELS, groups)
    assert found["class_mean"] == pytest.approx(100 * (0.7 + 5 / 6 + 1 + 0) / 4) and found["worst_class"] == 0
    assert found["harmonic_groups"] == 0  # none of the few is right
    better = np.where(LABELS == 4, 4, PREDICTED)
    assert further_accuracies(better, LABELS, groups)["harmonic_groups"] == pytest.approx(300 / (1 / 0.7 + 10 / 9 + 1))
    empty = groups | {"many": np.array([], int), "medium": np.array([0, 1, 2])}
    assert further_accuracies(better, LABELS, empty)["harmonic_groups"] == pytest.approx(200 / (20 / 16 + 1))
