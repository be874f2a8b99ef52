"""Figures of the results: accuracy by group, confusion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..evaluation.per_class import dense
from .style import BLUE, ORANGE, SKY, captioned, plain

GROUP_PATTERNS = {"many": "", "medium": "/", "few": "x"}
MOST_CLASSES = 50  # rows of a confusion matrix that can be read
SHOWN = 50  # confusions where there are more classes


def accuracy(table: pd.DataFrame, titles: dict[str, str]) -> go.Figure:
    """table: method, many, medium, few, all; titles: {method: what a reader calls it}. Grouped bars."""
    figure = go.Figure()
    names = [titles.get(name, name) for name in table["method"]]
    for group, colour in {"many": BLUE, "medium": SKY, "few": ORANGE, "all": "black"}.items():
        figure.add_bar(x=names, y=table[group], name=group, marker_color=colour)
    figure.update_xaxes(type="category")
    figure.update_yaxes(title="accuracy (%)", range=[0, 100])
    figure.update_layout(title="Accuracy on the test set", barmode="group", height=420)
    return captioned(
        figure,
        "Accuracy by shot group, each the share of its test images named right; `all`: of all test images. "
        "Where the classes have unequally many test images, that is not the mean over classes.",
    )


def confusion(table: pd.DataFrame, names, title: str = "Confusion, OSDTW refined") -> go.Figure:
    """table: true, predicted, count; names (K,): of all classes. A map up to MOST_CLASSES, else the commonest confusions."""
    return _map(dense(table, names), names, title) if len(names) <= MOST_CLASSES else _commonest(table, title)


def _map(counts: np.ndarray, names, title: str) -> go.Figure:
    share, names = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1), plain(names)
    figure = go.Figure(
        go.Heatmap(
            x=names,
            y=names,
            z=share,
            colorscale="Cividis",
            colorbar={"title": "%"},
            hovertemplate="true %{y}, predicted %{x}: %{z:.1f} %<extra></extra>",
            texttemplate="%{z:.0f}" if len(names) <= 20 else None,
        )
    )
    figure.update_xaxes(title="predicted class", type="category")
    figure.update_yaxes(title="true class", type="category", autorange="reversed")
    figure.update_layout(title=title, height=480)
    return captioned(figure, "Confusion matrix, % of each true class.")


def _commonest(table: pd.DataFrame, title: str) -> go.Figure:
    wrong = table[table["true"] != table["predicted"]].sort_values("count", ascending=False, kind="stable").head(SHOWN)
    pairs = plain(f"{true} → {predicted}" for true, predicted in zip(wrong["true"], wrong["predicted"]))
    figure = go.Figure(go.Bar(x=wrong["count"], y=pairs, orientation="h", marker_color=ORANGE))
    figure.update_xaxes(title="test images")
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(title=title, height=120 + 18 * len(wrong))
    return captioned(
        figure, f"The {len(wrong)} commonest confusions, true class → predicted class; all of them: tables/confusion.csv."
    )
