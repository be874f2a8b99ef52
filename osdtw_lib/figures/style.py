"""Plotly figures. Each takes tables and arrays and returns a Figure; none reads results or trains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.subplots import make_subplots

from ..evaluation.metrics import METHOD_NAMES

# Okabe and Ito's palette: distinct for colour-blind readers too
BLUE, ORANGE, GREEN, RED, SKY, YELLOW, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#F0E442", "#CC79A7"
TASK_COLOURS = {"head": BLUE, "tail": ORANGE}
GROUP_PATTERNS = {"many": "", "medium": "/", "few": "x"}
TERMS = {"encoder_variance": BLUE, "encoder_bias": ORANGE, "decoder_variance": GREEN}

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


def captioned(figure: go.Figure, caption: str) -> go.Figure:
    """Keep a caption with the figure; the report prints it underneath."""
    return figure.update_layout(meta={"caption": caption})


MOST_CLASSES = 100  # rows of a confusion matrix that a page can show


def class_counts(classes: pd.DataFrame) -> go.Figure:
    """classes: class, training_images, task, group. Bars: colour = task, pattern = shot group."""
    figure = go.Figure()
    for (task, group), part in classes.groupby(["task", "group"], sort=False):
        figure.add_bar(
            x=part["class"].astype(str),
            y=part["training_images"],
            name=f"{task}, {group}",
            marker={"color": TASK_COLOURS[task], "pattern": {"shape": GROUP_PATTERNS[group]}},
            text=part["training_images"] if len(classes) <= 30 else None,
            textposition="outside",
        )
    figure.update_xaxes(title="class", type="category", categoryarray=classes["class"].astype(str).tolist())
    figure.update_yaxes(title="training images")
    figure.update_layout(title="Training images a class", barmode="stack")
    return captioned(figure, "Training images a class: colour is the task (head or tail), pattern the shot group.")


def image_rows(rows: dict[str, np.ndarray], title: str, caption: str) -> go.Figure:
    """rows: {label: images (n, H, W, channels), uint8 or float}; a row of images under one another."""
    n = max(len(images) for images in rows.values())
    figure = make_subplots(len(rows), n, horizontal_spacing=0.004, vertical_spacing=0.02, row_titles=list(rows))
    for r, images in enumerate(rows.values(), start=1):
        for c, image in enumerate(images, start=1):
            figure.add_trace(go.Image(z=_to_rgb(image), hoverinfo="skip"), row=r, col=c)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(title=title, height=70 * len(rows) + 90, margin={"r": 130, "b": 10})
    figure.for_each_annotation(lambda a: a.update(textangle=0, xanchor="left", x=1.0))
    return captioned(figure, caption)


def curves(tables: dict[str, pd.DataFrame], title: str, y_title: str, caption: str) -> go.Figure:
    """tables: {panel: history of `fit`}; one line a loss over the epochs."""
    figure = go.Figure()
    for panel, history in tables.items():
        for name in [c for c in history.columns if c not in ("epoch", "learning_rate")]:
            label = " ".join(part for part in (panel, name) if part)
            colour = TASK_COLOURS.get(name)
            figure.add_scatter(x=history["epoch"], y=history[name], name=label, mode="lines", line={"color": colour})
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=y_title)
    figure.update_layout(title=title, showlegend=True)
    return captioned(figure, caption)


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
    """grid: one form's cells; picks: {label: (shared_depth, head_weight)} marked on it. Grey = not finite."""
    depths, weights, values = as_map(grid)
    figure = go.Figure(
        go.Heatmap(
            x=depths,
            y=weights,
            z=values,
            colorscale="Cividis",
            colorbar={"title": "proxy (nats)"},
            hovertemplate="C %{x}, w_A %{y:.2f}: %{z:.4f} nats<extra></extra>",
        )
    )
    symbols = {"selected": "star", "current": "x-thin"}
    others = iter(["circle-open", "square-open", "diamond-open"])
    for label, (depth, weight) in picks.items():
        symbol = symbols.get(label) or next(others)
        figure.add_scatter(
            x=[depth], y=[weight], name=label, mode="markers",
            marker={"symbol": symbol, "size": 16, "color": RED, "line": {"width": 3, "color": RED}},
        )
    # no margin round the cells: it would look as cells that are not finite do
    step = weights[1] - weights[0] if len(weights) > 1 else 0.1
    figure.update_xaxes(title="shared depth C", dtick=1, showgrid=False, range=[depths[0] - 0.5, depths[-1] + 0.5])
    figure.update_yaxes(title="head weight w_A", showgrid=False, range=[weights[0] - step / 2, weights[-1] + step / 2])
    figure.update_layout(title=title, plot_bgcolor="#999999", legend={"orientation": "h", "y": -0.25})
    return captioned(figure, f"{title}. The smallest value is the proxy's pick; grey cells are not finite.")


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
            x=table["shared_depth"], y=table[f"bias_{loss}"], name=loss, line={"color": colour},
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
            x=[best[over]], y=[best["total"]], name="minimum", mode="markers",
            marker={"symbol": "star", "size": 14, "color": RED},
        )
    figure.update_xaxes(title={"shared_depth": "shared depth C", "head_weight": "head weight w_A"}[over])
    figure.update_yaxes(title="nats")
    figure.update_layout(title=title, barmode="relative")
    return captioned(figure, f"{title}: the three terms of the proxy, stacked, and their sum.")


def accuracy(table: pd.DataFrame) -> go.Figure:
    """table: method, many, medium, few, all. Grouped bars."""
    figure = go.Figure()
    names = table["method"].map(lambda m: METHOD_NAMES.get(m, m))
    for group, colour in {"many": BLUE, "medium": SKY, "few": ORANGE, "all": "black"}.items():
        figure.add_bar(x=names, y=table[group], name=group, marker_color=colour)
    figure.update_yaxes(title="accuracy (%)", range=[0, 100])
    figure.update_layout(title="Accuracy on the test set", barmode="group", height=420)
    return captioned(figure, "Accuracy by shot group; `all` is the balanced accuracy over all test images.")


def confusion(counts: pd.DataFrame, title: str = "Confusion, OSDTW refined") -> go.Figure:
    """counts (K, K): row = true class, column = predicted; above MOST_CLASSES neighbours in the order given are joined."""
    names, values = list(map(str, counts.columns)), counts.to_numpy()
    joined = -(-len(names) // MOST_CLASSES)
    if joined > 1:
        starts = np.arange(0, len(names), joined)
        values = np.add.reduceat(np.add.reduceat(values, starts, 0), starts, 1)
        names = [f"{names[i]} .. {names[min(i + joined, len(names)) - 1]}" for i in starts]
    share = 100 * values / np.maximum(values.sum(1, keepdims=True), 1)
    figure = go.Figure(
        go.Heatmap(
            x=names, y=names, z=share, colorscale="Cividis", colorbar={"title": "%"},
            hovertemplate="true %{y}, predicted %{x}: %{z:.1f} %<extra></extra>",
            texttemplate="%{z:.0f}" if len(names) <= 20 else None,
        )
    )
    figure.update_xaxes(title="predicted class", type="category")
    figure.update_yaxes(title="true class", type="category", autorange="reversed")
    figure.update_layout(title=title, height=480)
    return captioned(figure, "Confusion matrix, % of each true class.")


def boundary_toy(points: dict, boundaries: np.ndarray, x: np.ndarray, title: str) -> go.Figure:
    """points: {"head": (n, 2), "tail": (n, 2)}; boundaries (resamples, len(x)): heights of each resample's boundary."""
    low, middle, high = np.quantile(boundaries, [0.05, 0.5, 0.95], axis=0)
    figure = go.Figure()
    for task, cloud in points.items():
        figure.add_scatter(
            x=cloud[:, 0], y=cloud[:, 1], mode="markers", name=f"{task} ({len(cloud)})",
            marker={"color": TASK_COLOURS[task], "size": 6, "opacity": 0.7},
        )
    for name, line, dash in (("5 %", low, "dash"), ("boundary", middle, "solid"), ("95 %", high, "dash")):
        figure.add_scatter(x=x, y=line, mode="lines", name=name, line={"color": "black", "dash": dash})
    figure.update_xaxes(title="feature 1", range=[x[0], x[-1]])
    figure.update_yaxes(title="feature 2", range=[-5, 5])
    figure.update_layout(title=title)
    return captioned(figure, "The boundary between a head and a tail class; dashed: 5 % and 95 % over resampled training sets.")


def _to_rgb(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.clip(255 * image, 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
