"""Figures of a training: curves over epochs."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .style import TASK_COLOURS, captioned


def curves(
    tables: dict[str, pd.DataFrame], title: str, y_title: str, caption: str, beside: pd.DataFrame | None = None
) -> go.Figure:
    """tables: {panel: history of `fit`}; one line a loss over the epochs. beside: evaluation.milestones of it, as points."""
    figure = go.Figure()
    for panel, history in tables.items():
        for name in [c for c in history.columns if c not in ("epoch", "learning_rate")]:
            label = " ".join(part for part in (panel, name) if part)
            colour = TASK_COLOURS.get(name)
            figure.add_scatter(x=history["epoch"], y=history[name], name=label, mode="lines", line={"color": colour})
    if beside is not None and len(beside):
        points = {"mode": "markers", "marker": {"symbol": "diamond", "size": 9, "color": "#555555"}}
        figure.add_scatter(x=beside["epoch"], y=beside["theirs"], name="LiVT's log", **points)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=y_title)
    figure.update_layout(title=title, showlegend=True)
    return captioned(figure, caption)
