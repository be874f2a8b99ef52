"""The figures of notebook 09: every row with its interval, accuracy over compute, who wins. Each takes tables of the verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .style import BLUE, GREEN, ORANGE, captioned, plain

MOST_WITH_NUMBERS = 16  # rows; of more the numbers would lie over each other, and show under the pointer
OSDTW = "osdtw"
BUDGETS = {"epochs": "same epochs", "osdtw": "OSDTW's compute"}
SHADES = {"wins": 1.0, "undecided": 0.0, "loses": -1.0}


def intervals(summary: pd.DataFrame, metric: str, title: str, caption: str) -> go.Figure:
    """summary: row, title, ours, METRIC with _low and _high; a line a row, the best on top, OSDTW's own in another colour."""
    figure, table = go.Figure(), summary.sort_values(metric, na_position="first")
    order = plain(table["title"])
    for ours, colour, name in ((True, ORANGE, "OSDTW"), (False, BLUE, "others")):
        shown = table[table["ours"].astype(bool) == ours]
        above, below = shown[f"{metric}_high"] - shown[metric], shown[metric] - shown[f"{metric}_low"]
        bars = {"array": above, "arrayminus": below, "symmetric": False}
        figure.add_scatter(
            x=shown[metric], y=plain(shown["title"]), error_x=bars, mode="markers", marker={"color": colour, "size": 9}, name=name
        )
    figure.update_yaxes(categoryorder="array", categoryarray=order)
    figure.update_xaxes(title=f"{metric.replace('_', ' ')} (%)")
    figure.update_layout(title=title, height=140 + 26 * len(table))
    return captioned(figure, caption)


def over_compute(summaries: dict[str, pd.DataFrame], title: str, caption: str) -> go.Figure:
    """summaries: {budget: summary}; class-mean accuracy over training passes, an arrow from the first budget to the next."""
    figure = go.Figure()
    for (budget, table), symbol in zip(summaries.items(), ("circle", "diamond")):
        shown = table.dropna(subset=["passes"])
        named = shown[(shown["row"] == OSDTW) | (shown["class_mean"] == shown["class_mean"].max())]
        for ours, whose, colour in ((True, "OSDTW", ORANGE), (False, "others", BLUE if symbol == "circle" else GREEN)):
            part = shown[shown["ours"].astype(bool) == ours]
            figure.add_scatter(
                x=part["passes"],
                y=part["class_mean"],
                text=plain(part["title"]),
                mode="markers",
                name=f"{whose}, {BUDGETS[budget]}",
                marker={"symbol": symbol, "size": 10, "color": colour},
                error_y={
                    "array": part["class_mean_high"] - part["class_mean"],
                    "arrayminus": part["class_mean"] - part["class_mean_low"],
                    "symmetric": False,
                    "thickness": 1,
                },
                hovertemplate="%{text}: %{y:.1f} % after %{x:.0f} passes<extra></extra>",
            )
        for _, row in named.iterrows():
            figure.add_annotation(x=row["passes"], y=row["class_mean"], text=plain([row["title"]])[0], showarrow=False, yshift=16)
    if len(summaries) == 2:
        before, after = (table.set_index("row") for table in summaries.values())
        for row in before.index.intersection(after.index):
            (x0, y0), (x1, y1) = (t.loc[row, ["passes", "class_mean"]] for t in (before, after))
            if x0 != x1 and np.isfinite([x0, x1]).all():
                arrow = {"x": x1, "y": y1, "ax": x0, "ay": y0, "xref": "x", "yref": "y", "axref": "x", "ayref": "y"}
                figure.add_annotation(**arrow, text="", showarrow=True, arrowhead=2, arrowwidth=1, arrowcolor="#999999")
    figure.update_xaxes(title="passes: forward and backward of one network over every training image")
    figure.update_yaxes(title="class-mean accuracy (%)")
    figure.update_layout(title=title, height=480)
    return captioned(figure, caption)


def who_wins(wins: pd.DataFrame, titles: dict[str, str], title: str, caption: str) -> go.Figure:
    """wins: row, other, difference, low, high, verdict; a cell is row less column, coloured where decided."""
    order = [name for name in titles if name in set(wins["row"])]
    cells = wins.set_index(["row", "other"])
    difference, shade = (np.full((len(order), len(order)), np.nan) for _ in range(2))
    text = [[""] * len(order) for _ in order]
    for i, row in enumerate(order):
        for j, other in enumerate(order):
            if (row, other) in cells.index:  # two without a common seed are not compared
                cell = cells.loc[(row, other)]
                difference[i, j], shade[i, j] = cell["difference"], SHADES[cell["verdict"]]
                text[i][j] = f"{round(cell['difference'], 1) + 0.0:+.1f}"
    names, scale = plain(titles[name] for name in order), [[0, "#f0aaa5"], [0.5, "#f4f4f4"], [1, "#a9d8c8"]]
    figure = go.Figure(
        go.Heatmap(
            z=shade,
            x=names,
            y=names,
            zmin=-1,
            zmax=1,
            text=text,
            texttemplate="%{text}" if len(order) <= MOST_WITH_NUMBERS else None,
            textfont={"size": 10},
            colorscale=scale,
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate="%{y} against %{x}: %{text} points<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=-45)
    figure.update_layout(title=title, height=260 + 26 * len(order))
    return captioned(figure, caption)
