"""Plotly figures of notebook 07. As in figures.py, each takes tables and returns a Figure; none computes or trains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .style import BLUE, GREEN, ORANGE, PURPLE, RED, captioned

MODEL_NAMES = {
    "gaussian": "Gaussian linear model",
    "bernoulli": "Bernoulli-logistic model",
    "network": "network, assembled",
    "network_refined": "network, decoders refined",
}
FORMULAS = {
    "eq18": ("Eq. (18)", RED, "solid"),
    "exact_bias": ("exact bias", BLUE, "dash"),
    "no_blocks": ("without blocks", GREEN, "dot"),
}
AXES = {"ratio": "J<sup>A</sup> : J<sup>B</sup>", "head_weight": "head weight w_A", "mismatch": "mismatch (standard errors)"}


def bias_map(ratios: np.ndarray, weights: np.ndarray, values: np.ndarray) -> go.Figure:
    """values (weights, ratios): bias of Eq. (18) over the exact one."""
    figure = go.Figure(
        go.Heatmap(
            x=np.log10(ratios),
            y=weights,
            z=np.log2(values),
            zmid=0,
            zmin=-2,
            zmax=2,
            colorscale="RdBu",
            reversescale=True,
            colorbar={"title": "ratio", "tickvals": [-2, -1, 0, 1, 2], "ticktext": ["1/4", "1/2", "1", "2", "4"]},
            customdata=values,
            hovertemplate="w_A %{y:.2f}: %{customdata:.2f} times the exact bias<extra></extra>",
        )
    )
    figure.add_contour(
        x=np.log10(ratios),
        y=weights,
        z=np.log2(values),
        contours={"coloring": "none", "start": 0, "end": 0, "size": 1},
        line={"color": "black", "width": 2},
        showscale=False,
        hoverinfo="skip",
    )
    figure.update_xaxes(title=AXES["ratio"], tickvals=[-2, -1, 0, 1, 2], ticktext=["1/100", "1/10", "1", "10", "100"])
    figure.update_yaxes(title=AXES["head_weight"])
    figure.update_layout(title="Bias of Eq. (18) over the exact one, one parameter")
    caption = "White and the black lines: Eq. (18) is right. Red: it says too much, blue: too little. Capped at 4 and 1/4."
    return captioned(figure, caption)


def at_a_glance(theorem: pd.DataFrame) -> go.Figure:
    """theorem: simulation.theorem; each formula over the simulated error, against the ratio of the Fishers."""
    figure = _panels(theorem["model"].unique())
    for place, part in _by_model(theorem[theorem["swept"] == "ratio"]):
        band = 200 * part["standard_error"] / part["simulated"]
        figure.add_scatter(
            x=part["ratio"],
            y=np.full(len(part), 100.0),
            error_y={"array": band},
            mode="markers",
            name="simulated",
            marker={"color": "black"},
            legendgroup="simulated",
            showlegend=place == (1, 1),
            row=place[0],
            col=place[1],
        )
        for column, (name, colour, dash) in FORMULAS.items():
            figure.add_scatter(
                x=part["ratio"],
                y=100 * part[column] / part["simulated"],
                name=name,
                line={"color": colour, "dash": dash},
                legendgroup=name,
                showlegend=place == (1, 1),
                row=place[0],
                col=place[1],
            )
    _ratio_axis(figure)
    figure.update_yaxes(range=[0, 200], dtick=50)  # one scale, so that the panels compare
    figure.update_yaxes(title="% of simulated", col=1)
    figure.update_layout(title="Each formula, in % of the simulated error", height=620)
    return captioned(
        figure,
        "100 % is right; bars: two standard errors of the simulation. Head weight 1/2, mismatch of two standard errors. "
        "“Without blocks” drops the block-diagonal assumption as well.",
    )


def error_over(theorem: pd.DataFrame, swept: str) -> go.Figure:
    """The simulated error with two standard errors and every formula, times N, along one swept column."""
    figure = _panels(theorem["model"].unique())
    for place, part in _by_model(theorem[theorem["swept"] == swept]):
        _simulated(figure, part, swept, place)
        for column, (name, colour, dash) in (FORMULAS | {"separate": ("nothing shared", PURPLE, "dashdot")}).items():
            figure.add_scatter(
                x=part[swept],
                y=part["samples"] * part[column],
                name=name,
                line={"color": colour, "dash": dash},
                legendgroup=name,
                showlegend=place == (1, 1),
                row=place[0],
                col=place[1],
            )
    if swept == "ratio":
        _ratio_axis(figure)
    figure.update_xaxes(title=AXES[swept])
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="N × error (nats)", col=1)
    figure.update_layout(title=f"Error against the {AXES[swept]}", height=620)
    return captioned(figure, "Points: simulation, with two standard errors. The two Fishers differ by a factor of four.")


def rate(table: pd.DataFrame) -> go.Figure:
    """table: simulation.rate; what each formula leaves over, against N, both axes logarithmic."""
    models = table["model"].unique()
    figure = make_subplots(1, len(models), subplot_titles=[MODEL_NAMES[m] for m in models])
    lines = [
        (4.0, "fixed", "eq18", "Eq. (18), Δ fixed", ORANGE, "dot"),
        (4.0, "local", "eq18", "Eq. (18), Fishers 4 : 1", RED, "solid"),
        (1.0, "local", "eq18", "Eq. (18), Fishers equal", RED, "dash"),
        (4.0, "local", "exact_bias", "exact bias, 4 : 1", BLUE, "dash"),
        (4.0, "local", "no_blocks", "without blocks, 4 : 1", GREEN, "dot"),
    ]
    for column, model in enumerate(models, start=1):
        for ratio, regime, formula, name, colour, dash in lines:
            part = table[(table["model"] == model) & (table["ratio"] == ratio) & (table["regime"] == regime)]
            figure.add_scatter(
                x=part["samples"],
                y=part[f"remainder_{formula}"].abs(),
                error_y={"array": 2 * part["standard_error"]},
                name=name,
                line={"color": colour, "dash": dash},
                legendgroup=name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(title="N", type="log", dtick=1, exponentformat="power")
    figure.update_yaxes(type="log", dtick=1, exponentformat="power")
    figure.update_yaxes(title="|simulated − formula| (nats)", col=1)
    figure.update_layout(title="How fast each formula becomes right", height=460, legend=_legend(-0.25), margin={"t": 90})
    caption = "A slope of −1 is an error of the order of the formula itself; o(1/N) falls faster. Bars: two standard errors."
    return captioned(figure, caption)


def dependence(table: pd.DataFrame) -> go.Figure:
    """table: simulation.dependence at one head weight; left correlated noises, right labels that exclude each other."""
    figure = make_subplots(1, 2, subplot_titles=("Gaussian, correlated noises", "labels that exclude each other"))
    left = table[table["model"] == "gaussian"]
    right = table[(table["model"] != "gaussian") & (table["dependence"] == 1)]
    for column, part in enumerate((left, right), start=1):
        x = part["dependence"] if column == 1 else part["model"].map(MODEL_NAMES)
        scale = part["samples"] if column == 1 else 100 / part["simulated"]
        figure.add_scatter(
            x=x,
            y=scale * part["simulated"],
            error_y={"array": 2 * scale * part["standard_error"]},
            mode="markers",
            name="simulated",
            marker={"color": "black"},
            legendgroup="s",
            showlegend=column == 1,
            row=1,
            col=column,
        )
        for formula, name, colour, symbol in (
            ("no_blocks", "without the cross term", RED, "diamond-open"),
            ("no_blocks_with_cross", "with it", BLUE, "circle-open"),
        ):
            figure.add_scatter(
                x=x,
                y=scale * part[formula],
                name=name,
                mode="lines+markers" if column == 1 else "markers",
                line={"color": colour},
                marker={"symbol": symbol, "size": 11, "line": {"width": 2}},
                legendgroup=name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(title="correlation", row=1, col=1)
    figure.update_yaxes(title="N × error (nats)", row=1, col=1)
    figure.update_yaxes(title="% of simulated", row=1, col=2)
    figure.update_layout(title="What the block model leaves out", height=440, legend=_legend(-0.3), margin={"t": 90})
    caption = "Equal Fishers. Points: simulation, with two standard errors; the formulas without and with E[s_A s_B']."
    return captioned(figure, caption)


def ridge(table: pd.DataFrame) -> go.Figure:
    """table: simulation.ridge at one head weight."""
    figure = go.Figure()
    x = table["damping"].map("{:g}".format)
    for column, error, name, colour, symbol in (
        ("simulated", "standard_error", "simulated, from the regularised optimum", "black", "circle"),
        ("from_truth", "from_truth_standard_error", "simulated, from the truth", PURPLE, "square"),
    ):
        figure.add_scatter(
            x=x,
            y=table[column],
            error_y={"array": 2 * table[error]},
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 9},
        )
    lines = (("damped", "damped", ORANGE), ("exact_bias", "exact bias", BLUE), ("eq18", "Eq. (18)", RED))
    for column, name, colour in lines:
        figure.add_scatter(x=x, y=table[column], name=name, mode="lines", line={"color": colour})
    figure.update_xaxes(title="ridge λ a sample", type="category")
    figure.update_yaxes(title="error (nats)", rangemode="tozero", exponentformat="power")
    figure.update_layout(title="Training with a ridge", height=440, legend=_legend(-0.25))
    return captioned(figure, "Gaussian model, Fishers 4 : 1. The formulas have the mismatch between the two regularised optima.")


def cross_by_depth(table: pd.DataFrame) -> go.Figure:
    """table: depth, images, damping, share and its standard error noise (% of the encoder variance)."""
    figure = go.Figure()
    colours = {("training", False): BLUE, ("training", True): "#7FB8D8", ("test", False): ORANGE, ("test", True): "#F3CF80"}
    for (images, damping), part in table.groupby(["images", "damping"], sort=False):
        name = f"{images} images, " + (f"damping {damping:.2g}" if damping else "Eq. (18)")
        figure.add_bar(
            x=part["depth"],
            y=part["share"],
            name=name,
            marker_color=colours[images, damping > 0],
            error_y={"array": 2 * part["noise"], "thickness": 1, "width": 2},
        )
    figure.update_xaxes(title="depth", type="category")
    figure.update_yaxes(title="% of the encoder variance")
    figure.update_layout(title="The cross term of this data set's two tasks", barmode="group", height=440, legend=_legend(-0.25))
    caption = "What E[s_A s_B] adds to the encoder variance at head weight 1/2; bars: two standard errors over images."
    return captioned(figure, caption)


def why_full_sharing(table: pd.DataFrame) -> go.Figure:
    """table: form, shared_depth, variance, bias at head weight 1/2."""
    figure = go.Figure()
    names = {"paper": ("Eq. (18)", RED), "damped": ("damped", BLUE), "direct": ("measured", GREEN)}
    for form, part in table.groupby("form", sort=False):
        name, colour = names[form]
        if form != "direct":
            figure.add_scatter(x=part["shared_depth"], y=part["variance"], name=f"variance, {name}", line={"color": colour})
        figure.add_scatter(
            x=part["shared_depth"],
            y=part["bias"].where(part["bias"] > 0),
            name=f"bias, {name}",
            line={"color": colour, "dash": "dot"},
        )
    figure.update_xaxes(title="shared depth C", dtick=1)
    figure.update_yaxes(title="nats", type="log", dtick=1, exponentformat="power")
    figure.update_layout(title="Variance and bias at head weight 1/2", height=440, legend=_legend(-0.25))
    caption = (
        "Logarithmic. A solid line's step is what one block more saves, a dotted line's what it costs: where the one is far "
        "larger than the other at every block, sharing everything is the only answer there is."
    )
    return captioned(figure, caption)


def damping_sweep(table: pd.DataFrame, evidence: float) -> go.Figure:
    """table: damping, shared_depth, head_weight, effective (parameters that count)."""
    figure = make_subplots(1, 3, subplot_titles=("shared depth picked", "head weight picked", "parameters that count"))
    for column, (name, colour) in enumerate((("shared_depth", BLUE), ("head_weight", ORANGE), ("effective", GREEN)), start=1):
        figure.add_scatter(
            x=table["damping"],
            y=table[name].where((name != "head_weight") | (table["shared_depth"] > 0)),
            mode="lines+markers",
            marker={"size": 5},
            line={"color": colour},
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_vline(x=evidence, line={"color": RED, "dash": "dash"}, row=1, col=column)
    figure.update_xaxes(title="damping λ", type="log", dtick=2, exponentformat="power")
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_yaxes(range=[0, 1], row=1, col=2)
    figure.update_yaxes(type="log", dtick=2, exponentformat="power", row=1, col=3)
    figure.update_layout(title="What damping does to the pick", margin={"t": 90})
    caption = "Red: the evidence rule's damping. Right: the sum of (J / (J + λ))² over both networks' parameters."
    return captioned(figure, caption + " Without sharing there is no weight to pick.")


def _panels(models) -> go.Figure:
    figure = make_subplots(2, 2, subplot_titles=[MODEL_NAMES[m] for m in models], vertical_spacing=0.22)
    return figure.update_layout(legend=_legend(-0.15), margin={"t": 90})


def _by_model(table: pd.DataFrame):
    for number, (_, part) in enumerate(table.groupby("model", sort=False)):
        yield (number // 2 + 1, number % 2 + 1), part


def _simulated(figure: go.Figure, part: pd.DataFrame, x: str, place: tuple[int, int]) -> None:
    figure.add_scatter(
        x=part[x],
        y=part["samples"] * part["simulated"],
        error_y={"array": 2 * part["samples"] * part["standard_error"]},
        mode="markers",
        name="simulated",
        marker={"color": "black"},
        legendgroup="simulated",
        showlegend=place == (1, 1),
        row=place[0],
        col=place[1],
    )


def _ratio_axis(figure: go.Figure) -> None:
    values, names = [1 / 16, 1 / 4, 1, 4, 16], ["1/16", "1/4", "1", "4", "16"]
    figure.update_xaxes(title=AXES["ratio"], type="log", tickvals=values, ticktext=names)


def _legend(y: float) -> dict:
    return {"orientation": "h", "y": y}
