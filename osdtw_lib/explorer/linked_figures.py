"""The explorer's linked views: five figures made once, and the arrays that change with the sliders.

`arrays` is what the kernel sends to the live figures; templates/pages/explorer.js computes the same on a page.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..figures import proxy as proxy_figures
from ..figures import style as style_figures
from ..proxy.grid import DEFAULT_WEIGHTS, best_weight
from .state import HUNDREDTHS, Landscape, marginal

ON_ANY_THEME = "#808080"  # ink that can be read on white and on JupyterLab's dark background
ON_WHITE = "#1c1c1c"


def arrays(landscape: Landscape, form: str, damping: float, depth: int, weight: float) -> dict[str, list[dict]]:
    """{view: [what changes in each of its traces]} at one position of the controls."""
    over_depth, over_weight = landscape.over_depth(form, damping, weight), landscape.over_weight(form, damping, depth)
    steps = marginal(over_depth)
    return {
        "map": [{"z": proxy_figures.as_map(landscape.map(form, damping))[2]}, {}, {"x": [depth], "y": [weight]}],
        "over_depth": _stack(over_depth, "shared_depth", depth, _smallest(over_depth)),
        "over_weight": _stack(over_weight, "head_weight", weight, best_weight(landscape.cells(form, damping), depth)),
        "marginal": [{"y": _finite(steps["saves"])}, {"y": _finite(steps["costs"])}, {"x": [depth + 1], "y": [0]}],
    }


def _stack(cells: pd.DataFrame, over: str, here: float, best: int | None) -> list[dict]:
    """The three terms, the total, its minimum (best: that row's label), the current cell."""
    total = _finite(cells["total"])
    where = cells[over].to_numpy()
    best = np.flatnonzero(cells.index == best)
    at = np.flatnonzero(where == here)
    bars = [{"y": _finite(cells[term])} for term in proxy_figures.TERMS]
    return [*bars, {"y": total}, {"x": where[best], "y": total[best]}, {"x": where[at], "y": total[at]}]


def _smallest(cells: pd.DataFrame) -> int | None:
    finite = cells["total"][np.isfinite(cells["total"])]
    return finite.idxmin() if len(finite) else None


def _finite(values: pd.Series) -> np.ndarray:
    """NaN, which is not drawn, for what is not finite."""
    values = values.to_numpy(dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def make(landscape: Landscape, ink: str) -> dict[str, go.Figure]:
    """The figures where the choice lies. ink: the colour of text and of the line of totals."""
    selected = landscape.selected
    here = selected["form"], landscape.start_damping, selected["shared_depth"], selected["head_weight"]
    depths = list(range(landscape.n_depths + 1))
    cell = (selected["shared_depth"], selected["head_weight"])
    made = {
        "map": proxy_figures.heat_map(landscape.map(*here[:2]), {"selected": cell, "current": cell}, ""),
        "over_depth": _stack_figure(depths, "shared depth C", ink),
        "over_weight": _stack_figure(HUNDREDTHS.tolist(), "head weight w<sub>A</sub>", ink),
        "marginal": _marginal_figure(depths[1:], ink),
    }
    made["map"].update_traces(zauto=True, zmin=None, zmax=None, selector={"type": "heatmap"})  # its values move
    made["map"].update_yaxes(title="head weight w<sub>A</sub>", tickvals=list(DEFAULT_WEIGHTS[::2]))
    for view, changes in arrays(landscape, *here).items():
        for trace, change in zip(made[view].data, changes):
            trace.update(change)
    made["by_depth"] = proxy_figures.by_depth(landscape.by_depth).update_xaxes(title="depth")
    for view in made:
        made[view].update_layout(title=None, meta=None, paper_bgcolor="rgba(0,0,0,0)", font_color=ink, height=340)
        made[view].update_layout(
            margin={"t": 75, "r": 15, "b": 50},
            legend={"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom", "font_size": 11},
        )
        made[view].update_xaxes(title_standoff=8, tickangle=0)
        if view != "map":  # the map's own background is what cells that are not finite show
            made[view].update_layout(plot_bgcolor="rgba(0,0,0,0)")
            made[view].update_xaxes(gridcolor="rgba(128,128,128,.25)", zerolinecolor="rgba(128,128,128,.5)")
            made[view].update_yaxes(gridcolor="rgba(128,128,128,.25)", zerolinecolor="rgba(128,128,128,.5)")
    made["by_depth"].update_layout(legend_y=1.14, xaxis_domain=[0, 0.4], xaxis2_domain=[0.6, 1])  # room for titles
    made["by_depth"].update_xaxes(dtick=1 if landscape.n_depths < 9 else 2)
    for title, middle in zip(made["by_depth"].layout.annotations, (0.2, 0.8)):
        title.x = middle
    return made


def _stack_figure(x: list, title: str, ink: str) -> go.Figure:
    figure = go.Figure()
    for term, colour in proxy_figures.TERMS.items():
        figure.add_bar(x=x, name=term.replace("_", " "), marker={"color": colour, "line": {"width": 0}})
    figure.add_scatter(x=x, name="total", mode="lines", line={"color": ink})
    minimum = "minimum" if len(x) < 40 else "minimum, by hundredths"  # picks are of tenths
    figure.add_scatter(name=minimum, mode="markers", marker={"symbol": "star", "size": 14, "color": style_figures.RED})
    figure.add_scatter(
        name="current",
        mode="markers",
        marker={"symbol": "circle-open", "size": 12, "color": style_figures.RED, "line": {"width": 3}},
    )
    margin = 0.6 if len(x) < 40 else 0.01
    figure.update_xaxes(title=title, dtick=1 if len(x) < 40 else 0.1, range=[x[0] - margin, x[-1] + margin])
    figure.update_yaxes(title="proxy (nats)", exponentformat="power")
    return figure.update_layout(barmode="relative", bargap=0.2 if len(x) < 40 else 0)


def _marginal_figure(depths: list[int], ink: str) -> go.Figure:
    figure = go.Figure()
    figure.add_bar(x=depths, name="saves (variance)", marker_color=style_figures.GREEN)
    figure.add_bar(x=depths, name="costs (bias)", marker_color=style_figures.ORANGE)
    figure.add_scatter(
        name="next block",
        mode="markers",
        marker={"symbol": "triangle-up", "size": 14, "color": style_figures.RED},
        cliponaxis=False,
    )
    figure.update_xaxes(title="block shared as well", dtick=1, range=[0.4, len(depths) + 0.6])
    figure.update_yaxes(title="nats", exponentformat="power")
    return figure
