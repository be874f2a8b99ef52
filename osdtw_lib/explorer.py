"""Live widgets for JupyterLab: the proxy under two sliders, and the toy of Fig. 1."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from . import figures
from .search import Search
from .toy import boundary_under_resampling


def proxy_explorer(search: Search, selected: dict, measured_bias: pd.DataFrame) -> widgets.VBox:
    """Sliders for the shared depth C and the head weight w_A: the three terms there, and where that is on the map."""
    depth = widgets.IntSlider(selected["shared_depth"], 0, search.n_depths, description="C")
    weight = widgets.FloatSlider(selected["head_weight"], min=0, max=1, step=0.01, description="w_A")
    form = widgets.ToggleButtons(options=["paper", "damped", "direct"], value=selected["form"])
    readout = widgets.HTML()
    selected_damping = selected["damping"] or search.evidence()

    def grid(depths=None, weights=None):
        return search.grid(depths, weights, form.value, selected_damping, measured_bias)

    cell = (selected["shared_depth"], selected["head_weight"])
    view = go.FigureWidget(figures.heat_map(grid(), {"selected": cell, "current": cell}, " "))
    table, current = view.data[0], view.data[2]

    def moved(_=None):
        here = grid([depth.value], [weight.value]).iloc[0]
        with view.batch_update():
            current.x, current.y = [depth.value], [weight.value]
        parts = " + ".join(f"{name.replace('_', ' ')} {here[name]:.4g}" for name in figures.TERMS)
        readout.value = f"C = {depth.value}, w_A = {weight.value:.2f}: {parts} = <b>{here['total']:.4g} nats</b>"

    def changed(_=None):
        with view.batch_update():
            table.z = figures.as_map(grid())[2]
            view.layout.title.text = f"Proxy, form “{form.value}”"
        moved()

    for slider in (depth, weight):
        slider.observe(moved, "value")
    form.observe(changed, "value")
    changed()
    return widgets.VBox([widgets.HBox([depth, weight, form]), readout, view])


def boundary_explorer(n_head: int = 100, n_tail: int = 5) -> widgets.VBox:
    """Sliders for the images of a head and of a tail class: the band of boundaries they leave open."""
    head = widgets.IntSlider(n_head, 2, 500, description="head")
    tail = widgets.IntSlider(n_tail, 2, 500, description="tail")
    view = go.FigureWidget(figures.boundary_toy(*_toy(n_head, n_tail)))

    def moved(_=None):
        fresh = figures.boundary_toy(*_toy(head.value, tail.value))
        with view.batch_update():
            for old, new in zip(view.data, fresh.data):
                old.update(x=new.x, y=new.y, name=new.name)

    for slider in (head, tail):
        slider.observe(moved, "value")
    return widgets.VBox([widgets.HBox([head, tail]), view])


def _toy(n_head: int, n_tail: int):
    points, x, boundaries = boundary_under_resampling(n_head, n_tail)
    return points, boundaries, x, "Boundary under resampling"
