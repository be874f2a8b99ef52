"""Figures of the data: counts of the classes, images, the toy of a boundary between few and many."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .results import GROUP_PATTERNS
from .style import TASK_COLOURS, captioned, plain


MOST_BARS = 200  # classes that a page has room to show one by one


def class_counts(classes: pd.DataFrame) -> go.Figure:
    """classes: class, training_images, task, group; colour = task, pattern = shot group.

    Bars in label order; of more than MOST_BARS classes steps, the largest class first, on a logarithmic axis.
    """
    bars = len(classes) <= MOST_BARS
    figure = _bars(classes) if bars else _steps(classes)
    figure.update_yaxes(title="training images")
    figure.update_layout(title="Training images a class")
    caption = "Training images a class: colour is the task (head or tail), pattern the shot group."
    return captioned(figure, caption if bars else f"{caption} The largest class comes first; the axis is logarithmic.")


def _bars(classes: pd.DataFrame) -> go.Figure:
    figure = go.Figure()
    for (task, group), part in classes.groupby(["task", "group"], sort=False):
        figure.add_bar(
            x=plain(part["class"]),
            y=part["training_images"],
            name=f"{task}, {group}",
            marker={"color": TASK_COLOURS[task], "pattern": {"shape": GROUP_PATTERNS[group]}},
            text=part["training_images"] if len(classes) <= 30 else None,
            textposition="outside",
        )
    figure.update_xaxes(title="class", type="category", categoryarray=plain(classes["class"]))
    return figure.update_layout(barmode="stack")


def _steps(classes: pd.DataFrame) -> go.Figure:
    """An area for each task and group: both follow the counts, so each is one piece."""
    figure = go.Figure()
    ranked = classes.sort_values("training_images", ascending=False, kind="stable")
    ranked.index = np.arange(1, len(ranked) + 1)
    for (task, group), part in ranked.groupby(["task", "group"], sort=False):
        figure.add_scatter(
            x=part.index,
            y=part["training_images"],
            name=f"{task}, {group}",
            mode="lines",
            line={"color": TASK_COLOURS[task], "shape": "hvh", "width": 1},
            fill="tozeroy",
            fillcolor=TASK_COLOURS[task],
            fillpattern={"shape": GROUP_PATTERNS[group]},
            text=plain(part["class"]),
            hovertemplate="%{text}: %{y}<extra>%{fullData.name}</extra>",
        )
    low, high = np.log10((0.8, 1.25)) + np.log10(ranked["training_images"].iloc[[-1, 0]])
    figure.update_yaxes(type="log", range=[low, high], dtick=1)
    return figure.update_xaxes(title="class, by falling number of training images", type="linear")


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


def boundary_toy(points: dict, boundaries: np.ndarray, x: np.ndarray, title: str) -> go.Figure:
    """points: {"head": (n, 2), "tail": (n, 2)}; boundaries (resamples, len(x)): heights of each resample's boundary."""
    low, middle, high = np.quantile(boundaries, [0.05, 0.5, 0.95], axis=0)
    figure = go.Figure()
    for task, cloud in points.items():
        figure.add_scatter(
            x=cloud[:, 0],
            y=cloud[:, 1],
            mode="markers",
            name=f"{task} ({len(cloud)})",
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
