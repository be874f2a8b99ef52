"""Scores counted by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from osdtw_lib.evaluation.accuracy_table import how_to_run_missing, shown
from osdtw_lib.evaluation.metrics import accuracy_by_group, confusion
from osdtw_lib.evaluation.scores import class_scores, negative_log_likelihood, predict
from osdtw_lib.models.likelihoods import task_likelihoods

GROUPS = {"many": np.array([0]), "medium": np.array([1, 2]), "few": np.array([], dtype=int)}
LABELS = np.array([0, 0, 1, 2, 2, 2])
PREDICTED = np.array([0, 1, 1, 2, 0, 2])


def test_accuracy_by_group_is_counted_over_the_images_of_its_classes():
    scores = accuracy_by_group(PREDICTED, LABELS, GROUPS)
    assert scores["many"] == 50 and scores["medium"] == 75 and scores["all"] == pytest.approx(100 * 4 / 6)
    assert np.isnan(scores["few"])


def test_the_confusion_has_true_classes_in_its_rows():
    assert confusion(PREDICTED, LABELS, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


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
    assert line.startswith("not run: balanced_bce;") and "--from 06" in line
    assert how_to_run_missing(accuracy(), ["ce"]) == ""
