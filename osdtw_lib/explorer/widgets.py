"""Live widgets for JupyterLab: the proxy under its sliders, and the toy of Fig. 1."""

from __future__ import annotations

import html
import json
import math

import ipywidgets as widgets
import plotly.graph_objects as go

from ..errors import UserError
from ..figures import data as data_figures
from ..proxy.grid import FORMS
from ..stages.run import Run
from ..stages.selection import choose, choose_proposed, in_sentences
from ..theory.boundary_toy import boundary_under_resampling
from . import linked_figures as views
from .load import load_landscape
from .state import DECADES, Landscape, in_words, marginal_rule

PAGE = "application/vnd.osdtw.explorer+json"  # what report.py turns into the explorer of the page
WIDTH = 360  # pixels of a figure, which does not follow its column: fits beside the file browser in a window of 800
CAPTIONS = {
    "map": "The proxy over both choices. Star: selected; cross: current; grey: not finite.",
    "over_depth": "Its three terms over the depth, at the current head weight.",
    "over_weight": "Its three terms over the head weight, at the current depth. Star: the best between 0 and 1; where all "
    "are the same, that of the nearest depth.",
    "marginal": "What sharing one block more saves and costs.",
    "by_depth": "Per depth: trace of each task's Fisher, and how far apart the two encoders are.",
}


def proxy_explorer(run: Run) -> ProxyExplorer:
    """Sliders for C, w_A, the form and the damping of this run's proxy, linked views, and a choice by hand."""
    explorer = ProxyExplorer(load_landscape(run))
    explorer.on_choice(lambda cell: choose(run, *cell), lambda: choose_proposed(run))
    return explorer


class ProxyExplorer(widgets.VBox):
    """The live explorer of a Landscape. Shown in a notebook it also leaves what the report's page needs."""

    def __init__(self, landscape: Landscape):
        self.landscape = landscape
        selected, evidence = landscape.selected, landscape.summary.evidence()
        wide = {"style": {"description_width": "120px"}, "layout": {"width": "440px"}}
        self.depth = widgets.IntSlider(selected["shared_depth"], 0, landscape.n_depths, description="shared depth C", **wide)
        self.weight = widgets.FloatSlider(selected["head_weight"], min=0, max=1, step=0.01, description="head weight w_A", **wide)
        buttons = {"style": wide["style"] | {"button_width": "85px"}, "layout": wide["layout"]}
        self.form = widgets.ToggleButtons(options=FORMS, value=selected["form"], description="form", **buttons)
        middle = math.log10(evidence)
        start = self._start = landscape.start_damping or evidence / 10**DECADES  # a slider of powers has no 0
        self.damping = widgets.FloatLogSlider(
            start,
            min=min(middle - DECADES, math.log10(start)),
            max=max(middle + DECADES, math.log10(start)),
            step=0.05,
            description="damping λ",
            readout_format=".3g",
            **wide,
        )
        self.evidence = widgets.Button(
            description=f"evidence: λ = {evidence:.3g}",
            tooltip="set the damping to the evidence value",
            layout={"width": "180px"},
        )
        self.use = widgets.Button(description="use this choice", tooltip="Stage 2 will use the current C and w_A", icon="check")
        self.back = widgets.Button(description="back to the proxy's choice", icon="undo", layout={"width": "210px"})
        self.cell, self.rule, self.network, self.choice = (widgets.HTML() for _ in range(4))
        made = views.make(landscape, views.ON_ANY_THEME)
        self.figures = {name: go.FigureWidget(figure.update_layout(width=WIDTH)) for name, figure in made.items()}
        for slider in (self.depth, self.weight, self.form, self.damping):
            slider.observe(self._moved, "value")
        self.evidence.on_click(lambda _: self.damping.set_trait("value", evidence))
        self._show_choice(selected)
        self._moved()
        damping = widgets.HBox([self.damping, self.evidence], layout={"flex_flow": "row wrap"})
        panels = {name: [widgets.HTML(caption), self.figures[name]] for name, caption in CAPTIONS.items()}
        panels["marginal"].insert(1, self.rule)
        network = [widgets.HTML("The two-branch network at this C. ψ is each decoder's final norm and head."), self.network]
        order = [panels["map"], network, *(panels[name] for name in ("over_depth", "over_weight", "marginal", "by_depth"))]
        grid = widgets.GridBox(
            [widgets.VBox(panel, layout={"min_width": "0"}) for panel in order],
            layout={"grid_template_columns": f"repeat(auto-fit, minmax({WIDTH}px, 1fr))", "grid_gap": "12px", "width": "100%"},
        )
        choices = widgets.HBox([self.use, self.back], layout={"flex_flow": "row wrap"})
        super().__init__([self.depth, self.weight, self.form, damping, self.cell, choices, self.choice, grid])

    @property
    def position(self) -> tuple[int, float, str, float]:
        """(C, w_A, form, damping) of the controls; until it is moved the damping's is that of the choice, which may be 0."""
        damping = self.landscape.start_damping if self.damping.value == self._start else self.damping.value
        return self.depth.value, round(self.weight.value, 2), self.form.value, damping

    def on_choice(self, use, back) -> None:
        """use((C, w_A, form, damping)) and back() keep a choice and return it."""
        self.use.on_click(lambda _: self._chosen(lambda: use(self.position)))
        self.back.on_click(lambda _: self._chosen(back))

    def _chosen(self, choose) -> None:
        try:
            self._show_choice(choose())
        except UserError as error:  # for instance while a run is under way
            self.choice.value = html.escape(str(error))

    def _moved(self, _=None) -> None:
        depth, weight, form, damping = self.position
        for view, changes in views.arrays(self.landscape, form, damping, depth, weight).items():
            figure = self.figures[view]
            with figure.batch_update():
                for trace, change in zip(figure.data, changes):
                    trace.update(change)
        over_depth = self.landscape.over_depth(form, damping, weight)
        self.cell.value = in_words(over_depth.iloc[depth])
        self.rule.value = f"<b>{marginal_rule(over_depth, depth)}</b>"
        self.network.value = self.landscape.schematic(depth)
        self.damping.disabled = self.evidence.disabled = form == "paper"

    def _show_choice(self, selected: dict) -> None:
        cell = selected["shared_depth"], selected["head_weight"]
        star = self.figures["map"].data[1]
        star.update(x=[cell[0]], y=[cell[1]])
        self.choice.value = f"Stage 2 uses {in_sentences(selected)}"

    def _repr_mimebundle_(self, **keywords) -> dict:
        made = views.make(self.landscape, views.ON_WHITE)
        page = self.landscape.page() | {"figures": {name: json.loads(figure.to_json()) for name, figure in made.items()}}
        return super()._repr_mimebundle_(**keywords) | {PAGE: page}


def boundary_explorer(n_head: int = 100, n_tail: int = 5) -> widgets.VBox:
    """Sliders for the images of a head and of a tail class: the band of boundaries they leave open."""
    head = widgets.IntSlider(n_head, 2, 500, description="head")
    tail = widgets.IntSlider(n_tail, 2, 500, description="tail")
    view = go.FigureWidget(data_figures.boundary_toy(*_toy(n_head, n_tail)))

    def moved(_=None):
        fresh = data_figures.boundary_toy(*_toy(head.value, tail.value))
        with view.batch_update():
            for old, new in zip(view.data, fresh.data):
                old.update(x=new.x, y=new.y, name=new.name)

    for slider in (head, tail):
        slider.observe(moved, "value")
    return widgets.VBox([widgets.HBox([head, tail]), view])


def _toy(n_head: int, n_tail: int):
    points, x, boundaries = boundary_under_resampling(n_head, n_tail)
    return points, boundaries, x, "Boundary under resampling"
