"""The figures of notebook 08, after the paper's Figs. 3 and 4. Each takes tables and returns a Figure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..longtail import GROUPS
from ..proxy.grid import CELL
from .style import BLUE, GREEN, ORANGE, RED, SKY, captioned

GROUP_COLOURS = {"many": BLUE, "medium": SKY, "few": ORANGE, "all": "black"}
COLUMNS = 3  # maps beside one another


def maps(panels: dict[str, tuple], title: str, caption: str) -> go.Figure:
    """panels: {title: (table with CELL and a value, the value's column, smaller is better)}; bright is good in each.

    The best cell of a map has a white box, as in the paper's Fig. 4, or the Choice that stands fourth; at C = 0, where no weight
    matters, all of the column. A cell that was not measured is grey.
    """
    rows = math.ceil(len(panels) / COLUMNS)
    figure = make_subplots(rows, min(COLUMNS, len(panels)), subplot_titles=list(panels), vertical_spacing=0.5 / rows)
    for i, (table, value, smaller, *pick) in enumerate(panels.values()):
        row, column = i // COLUMNS + 1, i % COLUMNS + 1
        grid = table.pivot_table(index=CELL[1], columns=CELL[0], values=value)
        z = grid.where(np.isfinite(grid)).to_numpy()
        depths, weights = [f"{c}" for c in grid.columns], [f"{w:g}" for w in grid.index]
        scale = "Cividis_r" if smaller else "Cividis"
        hover = f"C %{{x}}, w_A %{{y}}: %{{z:.4g}}<extra>{list(panels)[i]}</extra>"
        figure.add_heatmap(x=depths, y=weights, z=z, colorscale=scale, showscale=False, hovertemplate=hover, row=row, col=column)
        w, c = np.unravel_index(np.nanargmin(z if smaller else -z), z.shape)
        if pick:
            w, c = list(grid.index).index(pick[0].head_weight), list(grid.columns).index(pick[0].shared_depth)
        low_w, high_w, at_weight = (0, len(weights) - 1, "") if grid.columns[c] == 0 else (w, w, f", w_A = {weights[w]}")
        figure.add_shape(
            type="rect",
            x0=c - 0.5,
            x1=c + 0.5,
            y0=low_w - 0.5,
            y1=high_w + 0.5,
            line={"color": "white", "width": 4},
            row=row,
            col=column,
        )
        low, high = np.nanmin(z), np.nanmax(z)
        figure.layout.annotations[
            i
        ].text += f"<br><sup>{low:.3g} to {high:.3g}, {'pick' if pick else 'best'}: C = {depths[c]}{at_weight}</sup>"
        figure.update_xaxes(title="C" if row == rows else None, type="category", showgrid=False, row=row, col=column)
        figure.update_yaxes(title="w_A" if column == 1 else None, type="category", showgrid=False, row=row, col=column)
    figure.update_layout(title=title, height=310 * rows + 110, plot_bgcolor="#999999", margin={"t": 140})
    return captioned(figure, caption)


def by_weight(panels: dict[str, pd.DataFrame], title: str, caption: str) -> go.Figure:
    """panels: {title: table with head_weight, accuracy by group and its standard error over seeds, GROUP_error}."""
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), shared_yaxes=True)
    for column, table in enumerate(panels.values(), start=1):
        for group in (*GROUPS, "all"):
            if table[group].notna().any():
                figure.add_scatter(
                    x=table["head_weight"],
                    y=table[group],
                    error_y={"array": table[f"{group}_error"]},
                    name=group,
                    mode="lines+markers",
                    line={"color": GROUP_COLOURS[group]},
                    showlegend=column == 1,
                    row=1,
                    col=column,
                )
    figure.update_xaxes(title="head weight w_A")
    figure.update_yaxes(title="accuracy (%)", row=1, col=1)
    figure.update_layout(title=title, height=420, margin={"t": 90})
    return captioned(figure, caption)


def ranking(table: pd.DataFrame, ceiling: float, title: str, caption: str) -> go.Figure:
    """table: label, spearman, spearman_error, regret, regret_error. Bars; the line is what the true order would reach against so
    noisy a grid."""
    titles = "rank correlation with accuracy", "regret of the pick (points)"
    figure = make_subplots(1, 2, subplot_titles=titles, shared_yaxes=True)
    for column, (value, colour) in enumerate((("spearman", BLUE), ("regret", RED)), start=1):
        errors = {"array": table[f"{value}_error"]}
        figure.add_bar(
            x=table[value],
            y=table["label"],
            error_x=errors,
            orientation="h",
            marker_color=colour,
            showlegend=False,
            row=1,
            col=column,
        )
    if math.isfinite(ceiling):
        figure.add_vline(ceiling, line={"color": GREEN, "dash": "dash"}, annotation_text="the true order", row=1, col=1)
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(title=title, height=170 + 26 * len(table), margin={"t": 100})
    return captioned(figure, caption)


def likelihoods(table: pd.DataFrame, titles: dict[str, str], title: str, caption: str) -> go.Figure:
    """table: method, likelihood ("-": a single network has none), all, all_error (over seeds); titles: {method: what a reader
    calls it}. One bar a row."""
    likelihoods = [f", {name}" if name != "-" else "" for name in table["likelihood"]]
    names = [titles.get(method, method) + likelihood for method, likelihood in zip(table["method"], likelihoods)]
    colours = {"bernoulli": BLUE, "categorical": ORANGE}
    figure = go.Figure(
        go.Bar(
            x=table["all"],
            y=names,
            error_x={"array": table["all_error"]},
            orientation="h",
            marker_color=[colours.get(likelihood, "#999999") for likelihood in table["likelihood"]],
        )
    )
    figure.update_xaxes(title="accuracy (%), all classes")
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(title=title)
    return captioned(figure, caption)
