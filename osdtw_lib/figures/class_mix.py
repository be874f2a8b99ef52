"""Figure of accuracy over class mixes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .style import BLUE, GREEN, ORANGE, captioned

WAYS = {
    "none": ("as the row scores", BLUE, "solid", "circle"),
    "true": ("corrected with the true mix", GREEN, "dash", "square"),
    "estimated": ("corrected with the estimated mix", ORANGE, "dot", "diamond"),
}


def shifted(table: pd.DataFrame, method: str, title: str) -> go.Figure:
    """table: method, mix, none, true, estimated (accuracy in %); the row of one method as three lines over the mixes."""
    own, figure = table[table["method"] == method], go.Figure()
    for way, (name, colour, dash, symbol) in WAYS.items():
        line = {"color": colour, "dash": dash}
        figure.add_scatter(x=own["mix"], y=own[way], name=name, mode="lines+markers", line=line, marker_symbol=symbol)
    figure.update_xaxes(title="class mix of the test images: direction and ratio", type="category")
    figure.update_yaxes(title="accuracy (%)")
    figure.update_layout(title=f"Other class mixes: {title}", height=460, legend={"orientation": "h", "y": -0.3, "x": 0})
    return captioned(
        figure,
        "Accuracy where classes come with other shares than in the test set: forward, as in training (50: the first class 50 "
        "times as often as the last); backward, the other way round. The test images are re-weighted; nothing is drawn.",
    )
