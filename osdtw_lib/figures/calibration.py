"""Figures of calibration: the reliability diagram."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .style import BLUE, ORANGE, captioned, plain

LOOKS = {
    "before": {"color": BLUE, "symbol": "circle", "dash": "solid", "name": "as scored"},
    "after": {"color": ORANGE, "symbol": "diamond-open", "dash": "dot", "name": "with temperatures"},
}


def reliability(table: pd.DataFrame, title: str) -> go.Figure:
    """table: when (before, and perhaps after), group, images, confidence, accuracy, of one row. A panel a group."""
    groups = list(dict.fromkeys(table["group"]))
    names = [
        f"{group}, {table[(table['group'] == group) & (table['when'] == 'before')]['images'].sum():,} images" for group in groups
    ]
    figure = make_subplots(1, len(groups), subplot_titles=names, shared_yaxes=True)
    for column, group in enumerate(groups, start=1):
        diagonal = {"color": "grey", "dash": "dash", "width": 1}
        figure.add_scatter(
            x=[0, 100], y=[0, 100], mode="lines", line=diagonal, name="what it says", showlegend=column == 1, row=1, col=column
        )
        for when, look in LOOKS.items():
            own = table[(table["group"] == group) & (table["when"] == when)]
            if len(own):
                figure.add_scatter(
                    x=100 * own["confidence"],
                    y=100 * own["accuracy"],
                    customdata=own["images"],
                    mode="lines+markers",
                    marker={"symbol": look["symbol"], "size": 8},
                    line={"color": look["color"], "dash": look["dash"]},
                    name=look["name"],
                    legendgroup=when,
                    showlegend=column == 1,
                    hovertemplate="says %{x:.1f} %, right %{y:.1f} % of %{customdata} images<extra></extra>",
                    row=1,
                    col=column,
                )
        figure.update_xaxes(title="probability said (%)", range=[0, 102], row=1, col=column)
    figure.update_yaxes(range=[-2, 102])
    figure.update_yaxes(title="named right (%)", row=1, col=1)
    figure.update_layout(
        title=f"Reliability, {plain([title])[0]}", height=400, margin={"t": 80}, legend={"orientation": "h", "y": -0.3}
    )
    return captioned(
        figure,
        "Reliability diagram on the test set: images of each group of true classes in 15 bins of equally many, by the chance "
        "given to the class named; below the dashed line a network promises too much. A group's own line may lie off it even "
        "where all images together do not, since the group of a new image is not known.",
    )
