"""Figures of the results: accuracy by group, confusion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .style import BLUE, ORANGE, SKY, captioned, plain

GROUP_PATTERNS = {"many": "", "medium": "/", "few": "x"}
MOST_CLASSES = 100  # rows of a confusion matrix that a page can show


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


def confusion(counts: pd.DataFrame, title: str = "Confusion, OSDTW refined") -> go.Figure:
    """counts (K, K): row = true class, column = predicted; above MOST_CLASSES neighbours in the order given are joined."""
    names, values = plain(counts.columns), counts.to_numpy()
    joined = -(-len(names) // MOST_CLASSES)
    if joined > 1:
        starts = np.arange(0, len(names), joined)
        values = np.add.reduceat(np.add.reduceat(values, starts, 0), starts, 1)
        names = [f"{names[i]} .. {names[min(i + joined, len(names)) - 1]}" for i in starts]
    share = 100 * values / np.maximum(values.sum(1, keepdims=True), 1)
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
