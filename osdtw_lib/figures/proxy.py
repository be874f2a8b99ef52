"""Figures of the proxy: Fisher by depth, the map over (C, w_A), its terms, the measured bias."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .style import BLUE, GREEN, ORANGE, PURPLE, RED, TASK_COLOURS, captioned

TERMS = {"encoder_variance": BLUE, "encoder_bias": ORANGE, "decoder_variance": GREEN}


def by_depth(table: pd.DataFrame) -> go.Figure:
    """table: depth, trace_head, trace_tail, mismatch_norm (Proxy.by_depth)."""
    figure = make_subplots(1, 2, subplot_titles=("Fisher trace", "mismatch |φᴮ − φᴬ|"))
    for task in TASK_COLOURS:
        figure.add_bar(x=table["depth"], y=table[f"trace_{task}"], name=task, marker_color=TASK_COLOURS[task], row=1, col=1)
    figure.add_bar(x=table["depth"], y=table["mismatch_norm"], name="mismatch", marker_color=GREEN, row=1, col=2)
    figure.update_xaxes(title="depth", dtick=1)
    figure.update_yaxes(title="trace (nats)", type="log", exponentformat="power", row=1, col=1)
    figure.update_yaxes(title="Euclidean norm", rangemode="tozero", row=1, col=2)
    return captioned(
        figure,
        "Per depth (the first is the embedding and block 1): trace of each task's diagonal Fisher, log scale, and how far "
        "apart the two encoders are.",
    )


def heat_map(grid: pd.DataFrame, picks: dict[str, tuple[int, float]], title: str) -> go.Figure:
    """grid: one form's cells; picks: {label: (shared_depth, head_weight)} marked on it. Grey = not finite. Colours end at the
    largest value of a head weight that can be picked: beyond it one at 0 or 1 would leave all others the same colour."""
    depths, weights, values = as_map(grid)
    inside = values[(weights > 0) & (weights < 1)]
    ends = {"zmin": np.nanmin(values), "zmax": np.nanmax(inside)} if np.isfinite(inside).any() else {}
    figure = go.Figure(
        go.Heatmap(
            x=depths,
            y=weights,
            z=values,
            **ends,
            colorscale="Cividis",
            colorbar={"title": "proxy (nats)"},
            hovertemplate="C %{x}, w_A %{y:.2f}: %{z:.4f} nats<extra></extra>",
        )
    )
    symbols = {"selected": "star", "current": "x-thin"}
    others = iter(["circle-open", "square-open", "diamond-open"])
    for label, (depth, weight) in picks.items():
        symbol, size = symbols.get(label) or next(others), 11 if label == "selected" else 18
        figure.add_scatter(
            x=[depth],
            y=[weight],
            name=label,
            mode="markers",
            marker={"symbol": symbol, "size": size, "color": RED, "line": {"width": 2, "color": RED}},
        )
    # no margin round the cells: it would look as cells that are not finite do
    step = weights[1] - weights[0] if len(weights) > 1 else 0.1
    figure.update_xaxes(title="shared depth C", dtick=1, showgrid=False, range=[depths[0] - 0.5, depths[-1] + 0.5])
    figure.update_yaxes(title="head weight w_A", showgrid=False, range=[weights[0] - step / 2, weights[-1] + step / 2])
    figure.update_layout(title=title, plot_bgcolor="#999999", legend={"orientation": "h", "y": -0.35})
    rule = "The smallest value at a head weight between 0 and 1 is the proxy's pick; grey cells are not finite."
    return captioned(figure, f"{title}. {rule}")


def as_map(grid: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(depths, weights, totals (weights, depths)) of one form's cells; NaN where a total is not finite."""
    table = grid.pivot(index="head_weight", columns="shared_depth", values="total")
    values = table.to_numpy(dtype=float)
    return table.columns.to_numpy(), table.index.to_numpy(), np.where(np.isfinite(values), values, np.nan)


def direct_bias(table: pd.DataFrame) -> go.Figure:
    """table: shared_depth, and bias_LOSS and standard_error_LOSS of direct.LOSSES, at one head weight."""
    figure = go.Figure()
    for loss, colour in (("prediction", PURPLE), ("balanced", ORANGE), ("training", BLUE)):
        figure.add_scatter(
            x=table["shared_depth"],
            y=table[f"bias_{loss}"],
            name=loss,
            line={"color": colour},
            error_y={"array": 2 * table[f"standard_error_{loss}"]},
        )
    weight = table["head_weight"].iloc[0]
    figure.update_xaxes(title="shared depth C", dtick=1)
    figure.update_yaxes(title="measured bias (nats a sample)")
    figure.update_layout(title=f"Measured bias at w_A = {weight:g}")
    added = "Loss added when the first C depths are the weighted optimum of both encoders; bars: two standard errors."
    return captioned(figure, added)


def terms(grid: pd.DataFrame, over: str, title: str) -> go.Figure:
    """The three terms stacked over `over` ("shared_depth" or "head_weight"), their sum on top, minimum marked."""
    figure = go.Figure()
    for term, colour in TERMS.items():
        figure.add_bar(x=grid[over], y=grid[term], name=term.replace("_", " "), marker_color=colour)
    figure.add_scatter(x=grid[over], y=grid["total"], name="total", mode="lines+markers", line={"color": "black"})
    finite = grid[np.isfinite(grid["total"])]
    if len(finite):
        best = finite.loc[finite["total"].idxmin()]
        figure.add_scatter(
            x=[best[over]],
            y=[best["total"]],
            name="minimum",
            mode="markers",
            marker={"symbol": "star", "size": 14, "color": RED},
        )
    figure.update_xaxes(title={"shared_depth": "shared depth C", "head_weight": "head weight w_A"}[over])
    figure.update_yaxes(title="nats")
    figure.update_layout(title=title, barmode="relative")
    return captioned(figure, f"{title}: the three terms of the proxy, stacked, and their sum.")
