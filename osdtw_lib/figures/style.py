"""Plotly figures. Each takes tables and arrays and returns a Figure; none reads results or trains."""

from __future__ import annotations

import html
from collections.abc import Iterable

import plotly.graph_objects as go
import plotly.io

# Okabe and Ito's palette: distinct for colour-blind readers too
BLUE, ORANGE, GREEN, RED, SKY, YELLOW, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#F0E442", "#CC79A7"
TASK_COLOURS = {"head": BLUE, "tail": ORANGE}
plotly.io.templates["osdtw"] = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "colorway": [BLUE, ORANGE, GREEN, RED, SKY, PURPLE],
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {"gridcolor": "#e5e5e5", "zerolinecolor": "#cccccc", "automargin": True},
        "yaxis": {"gridcolor": "#e5e5e5", "zerolinecolor": "#cccccc", "automargin": True},
        "margin": {"t": 50, "r": 20},
        "height": 380,
    }
)
plotly.io.templates.default = "osdtw"
# One representation, drawn by JupyterLab itself; the HTML report adds plotly.js once a page.
plotly.io.renderers.default = "plotly_mimetype"


def plain(names: Iterable) -> list[str]:
    """Names for plotly to show as they are: it takes <b>, &amp; and $...$ in any text for markup."""
    return [html.escape(str(name), quote=False).replace("$", "&#36;") for name in names]


def captioned(figure: go.Figure, caption: str) -> go.Figure:
    """Keep a caption with the figure; the report prints it underneath."""
    return figure.update_layout(meta={"caption": caption})
