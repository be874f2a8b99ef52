"""Scores counted by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from osdtw_lib.evaluation.accuracy_table import how_to_run_missing, shown
from osdtw_lib.evaluation.metrics import accuracies_of_counts, accuracy_by_group, calibration_error, metrics_of
from osdtw_lib.evaluation.scores import class_scores, negative_log_likelihood, predict
from osdtw_lib.models.likelihoods import task_likelihoods

GROUPS = {"many": np.array([0]), "medium": np.array([1, 2]), "few": np.array([], dtype=int)}
LABELS = np.array([0, 0, 1, 2, 2, 2])
PREDICTED = np.array([0, 1, 1, 2, 0, 2])


def test_accuracy_by_group_is_counted_over_the_images_of_its_classes():
    scores = accuracy_by_group(PREDICTED, LABELS, GROUPS)
    assert scores["many"] == 50 and scores["medium"] == 75 and scores["all"] == pytest.approx(100 * 4 / 6)
    assert np.isnan(scores["few"])


def test_accuracies_of_counts_by_hand():
    groups = {"many": [0], "medium": [1, 2], "few": []}
    found = accuracies_of_counts(np.array([[9, 6, 3], [9, 0, 3]]), np.array([10, 10, 10]), groups)
    assert found["all"].tolist() == pytest.approx([60, 40]) and found["class_mean"].tolist() == pytest.approx([60, 40])
    assert found["many"].tolist() == [90, 90] and found["medium"].tolist() == [45, 15] and np.isnan(found["few"]).all()
    assert found["worst_class"].tolist() == [30, 0] == found["worst_tenth"].tolist()
    assert found["harmonic_mean"].tolist() == pytest.approx([100 * 3 / (1 / 0.9 + 1 / 0.6 + 1 / 0.3), 0])  # 49.0909 and 0
    assert found["harmonic_mean_smoothed"][1] == pytest.approx(100 * 3 / (12 / 10 + 12 / 1 + 12 / 4))


def test_the_worst_tenth_is_a_mean_over_classes():
    counts = np.random.default_rng(0).permutation(25)
    found = accuracies_of_counts(counts, np.full(25, 50), None)
    assert found["worst_tenth"] == 100 * (0 + 1) / 2 / 50  # two of 25
    assert found["worst_class"] == 0


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.85, 0.65, 0.62, 0.30]), np.array([1, 1, 0, 1, 0], bool)
    # bins of 1/15: 0.65 and 0.62 share one, the others are alone
    gaps = [0.05, 0.15, abs(0.65 + 0.62 - 1), 0.30]
    assert calibration_error(confidence, right) == pytest.approx(100 * sum(gaps) / 5)  # 15.4
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    # an upper edge belongs to its bin: 1/15 with what is below it, not above
    assert calibration_error(np.array([0.04, 1 / 15, 0.1]), np.array([1, 0, 0], bool)) == pytest.approx(
        100 * (1 - 0.04 - 1 / 15 + 0.1) / 3
    )


@pytest.mark.filterwarnings("error")
def test_every_metric_of_a_row_by_hand():
    # the softmax of log p is p; class 3 has no test image
    p = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.8, 0.05, 0.05], [0.5, 0.2, 0.2, 0.1]])
    labels = np.array([0, 0, 1, 2])
    groups = {"many": np.array([0]), "medium": np.array([1, 2]), "few": np.array([3])}
    found = metrics_of(np.log(p) + np.array([[0], [500], [-500], [3]]), labels, groups)
    assert found["all"] == 50 and found["class_mean"] == pytest.approx(100 * (0.5 + 1 + 0) / 3)
    assert (found["many"], found["medium"]) == (50, 50) and np.isnan([found["few"], found["ece_few"]]).all()
    assert found["worst_class"] == found["worst_tenth"] == found["harmonic_mean"] == 0
    assert found["harmonic_mean_smoothed"] == pytest.approx(100 * 3 / (4 / 2 + 3 / 2 + 3 / 1))
    by_class = [-(np.log(0.7) + np.log(0.2)) / 2, -np.log(0.8), -np.log(0.2)]
    assert found["nll"] == pytest.approx(np.mean(by_class))
    # 0.7, 0.6, 0.8 and 0.5 lie in bins of their own
    assert found["ece"] == pytest.approx(100 * (0.3 + 0.6 + 0.2 + 0.5) / 4)
    assert found["ece_many"] == pytest.approx(100 * (0.3 + 0.6) / 2)
    assert found["ece_medium"] == pytest.approx(100 * (0.2 + 0.5) / 2)
    weighted = metrics_of(np.log(p), labels, groups, np.array([0.6, 0.2, 0.1, 0.1]))
    assert weighted["nll"] == pytest.approx(np.dot([0.6, 0.2, 0.1], by_class) / 0.9)
    assert weighted["ece"] == pytest.approx(found["ece"])
    order = np.array([2, 0, 3, 1])
    again = metrics_of(np.log(p)[order], labels[order], groups)
    assert again == pytest.approx(metrics_of(np.log(p), labels, groups), nan_ok=True)


def test_accuracies_agree_with_those_of_the_predictions():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 6)), rng.integers(0, 6, 60)
    groups = {"many": np.array([0, 1]), "medium": np.array([2, 3]), "few": np.array([4, 5])}
    found = metrics_of(scores, labels, groups)
    expected = accuracy_by_group(scores.argmax(1), labels, groups)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer, value", [("right", 100), ("wrong", 0)])
def test_all_right_and_all_wrong(answer, value):
    labels = np.arange(12) % 3
    scores = 50.0 * np.eye(3)[labels if answer == "right" else (labels + 1) % 3]
    found = metrics_of(scores, labels, {"many": [0], "medium": [1], "few": [2]})
    accuracies = ("all", "class_mean", "many", "medium", "few", "worst_class", "worst_tenth", "harmonic_mean")
    assert {found[name] for name in accuracies} == {value}
    assert found["ece"] == pytest.approx(100 - value) and found["nll"] == pytest.approx(0 if value else 50)


def test_metrics_refuse_what_they_cannot_count():
    scores, labels, groups = np.zeros((2, 3)), np.array([0, 2]), {"many": [0], "medium": [1], "few": [2]}
    with pytest.raises(ValueError, match="scores are"):
        metrics_of(scores, labels[:1], groups)
    with pytest.raises(ValueError, match="run from 0 to 2"):
        metrics_of(scores, labels + 1, groups)
    with pytest.raises(ValueError, match="not finite"):
        metrics_of(scores + np.nan, labels, groups)
    with pytest.raises(ValueError, match="prior"):
        metrics_of(scores, labels, groups, np.array([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_class_scores_put_both_heads_into_class_order(kind):
    groups = {"head": np.array([2, 0]), "tail": np.array([1, 3])}
    tasks = task_likelihoods(kind, [9, 2, 8, 1], groups)
    extra = kind == "categorical"

    class Fixed(torch.nn.Module):
        def forward(self, x):  # every class scores a hundred times its index, plus the image's number
            other = [torch.full((len(x), 1), 7.0)] if extra else []
            return {t: torch.cat([x + 100.0 * torch.tensor(k) + 7.0 * extra, *other], 1) for t, k in groups.items()}

    parts = [(torch.tensor([[0.0], [1.0]]), None), (torch.tensor([[2.0]]), None)]
    scores = class_scores(Fixed(), tasks, parts)
    assert scores.tolist() == [[0, 100, 200, 300], [1, 101, 201, 301], [2, 102, 202, 302]]
    assert predict(scores).tolist() == [3, 3, 3]


def test_negative_log_likelihood_is_the_weighted_mean_of_both_tasks():
    tasks = task_likelihoods("bernoulli", [6, 3, 2, 1], {"head": np.array([0, 1]), "tail": np.array([2, 3])})
    network = torch.nn.Linear(3, 4)
    both = torch.nn.Module()
    both.forward = lambda x: {"head": network(x)[:, :2], "tail": network(x)[:, 2:]}
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        each = -sum(tasks[t](both.forward(x)[t], y) for t in tasks).double().numpy()
    class_weights = np.array([1.0, 2.0, 3.0, 4.0])
    parts = [(x[:3], y[:3]), (x[3:], y[3:])]
    plain = negative_log_likelihood(both, tasks, parts)
    weighted = negative_log_likelihood(both, tasks, parts, class_weights)
    w = class_weights[y.numpy()]
    # the network and the likelihoods are float32
    assert plain == pytest.approx(each.mean(), rel=1e-6)
    assert weighted == pytest.approx((w * each).sum() / w.sum(), rel=1e-6)


def accuracy():
    rows = [("ce", 50.04, np.nan, 3.0, 20.0, 0), ("mine", 1.0, 2.0, 3.0, 4.0, 0)]
    return pd.DataFrame(rows, columns=["method", "many", "medium", "few", "all", "seed"])


def test_the_shown_table_has_titles_one_decimal_and_a_dash_for_an_empty_group():
    table = shown(accuracy(), {"ce": "cross-entropy"})
    assert table.iloc[0].tolist() == ["cross-entropy", "50.0", "-", "3.0", "20.0"]
    assert table["method"].tolist() == ["cross-entropy", "mine"]


def test_a_method_that_was_not_run_is_named_with_the_way_to_run_it():
    line = how_to_run_missing(accuracy(), ["balanced_bce", "ce"])
    assert line.startswith("not run for this table: balanced_bce;") and "--from 06" in line
    assert how_to_run_missing(accuracy(), ["ce"]) == ""
