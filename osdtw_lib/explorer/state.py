"""The proxy of one run as the explorer shows it: every cell for any form and damping, and its page as JSON.

The live explorer (explorer.py) asks this object; the report's page carries `page()` and computes the same in
templates/pages/explorer.js.
"""

from __future__ import annotations

import base64
import math
import shlex
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from ..proxy.binned import ProxySummary
from ..proxy.grid import COLUMNS, DEFAULT_WEIGHTS

HUNDREDTHS = np.arange(101) / 100  # the head weights the sliders stop at
DECADES = 4  # the damping slider spans so many powers of ten on either side of the evidence value


@dataclass(frozen=True, eq=False)
class Landscape:
    """summary: the binned proxy; measured_bias: shared_depth, head_weight, bias (nats); by_depth: Proxy.by_depth;
    selected, proposed: the choice Stage 2 uses and the proxy's own; costs: shared_depth 0..L, parameters, flops (an
    image) of the two-branch network; single: the same of one network with all classes; params_file: of the run, for a command.
    """

    summary: ProxySummary
    measured_bias: pd.DataFrame
    by_depth: pd.DataFrame
    selected: dict
    proposed: dict
    costs: pd.DataFrame
    single: tuple[int, int]
    params_file: str = ""

    @property
    def n_depths(self) -> int:
        return self.summary.n_depths

    @property
    def start_damping(self) -> float:
        """The damping the choice was made with; the evidence value where its form has none."""
        return self.summary.evidence() if self.selected["form"] == "paper" else self.selected["damping"]

    @lru_cache(maxsize=32)  # noqa: B019  one landscape a page
    def cells(self, form: str, damping: float) -> pd.DataFrame:
        """Search.grid over every depth and every hundredth of the head weight."""
        return self.summary.grid(None, HUNDREDTHS, form, damping, self.measured_bias)

    def over_depth(self, form: str, damping: float, weight: float) -> pd.DataFrame:
        return self.cells(form, damping).iloc[round(100 * weight) :: len(HUNDREDTHS)]

    def over_weight(self, form: str, damping: float, depth: int) -> pd.DataFrame:
        return self.cells(form, damping).iloc[depth * len(HUNDREDTHS) : (depth + 1) * len(HUNDREDTHS)]

    def map(self, form: str, damping: float) -> pd.DataFrame:
        """The cells the search looks at: head weights 0, 0.1 .. 1."""
        cells = self.cells(form, damping)
        return cells[np.isin(cells["head_weight"], DEFAULT_WEIGHTS)]

    def page(self) -> dict:
        """What the page needs, fit for JSON: bins in base64 (float32, little-endian), tables as lists."""
        summary = self.summary
        bias = {"head_weight": [], "bias": []}
        for depth in range(self.n_depths + 1):
            there = self.measured_bias[self.measured_bias["shared_depth"] == depth].sort_values("head_weight")
            for column, values in bias.items():
                values.append(there[column].tolist())
        return {
            "n_depths": self.n_depths,
            "n_samples": summary.n_samples,
            "command": " ".join(["./run_all.sh", *filter(None, [self.params_file and shlex.quote(self.params_file)])]),
            "evidence": summary.evidence(),
            "decades": DECADES,
            "start_damping": self.start_damping,
            "selected": {
                "shared_depth": self.selected["shared_depth"],
                "head_weight": round(100 * self.selected["head_weight"]) / 100,  # as the live one's sliders have it
                "form": self.selected["form"],
            },
            "encoder": _packed(summary.alive, self.n_depths),
            "decoders": _packed(summary.decoders, self.n_depths + 1),
            "bias": bias,
            "schematics": [self.schematic(depth) for depth in range(self.n_depths + 1)],
        }

    def schematic(self, depth: int) -> str:
        """The two-branch network that shares `depth` depths, as HTML: a drawing, and what it costs."""
        row = self.costs.iloc[depth]
        times = [f"{value / one:.2f} x" for value, one in zip((row["parameters"], row["flops"]), self.single)]
        return (
            f"{_drawing(depth, self.n_depths)}<p>{_short(row['parameters'])} parameters ({times[0]} those of one ViT with all "
            f"classes), {_short(row['flops'])} FLOPs an image ({times[1]}). One ViT: {_short(self.single[0])} and "
            f"{_short(self.single[1])}.</p>"
        )


def marginal(over_depth: pd.DataFrame) -> pd.DataFrame:
    """A row a depth 1..L: what sharing it too `saves` in variance and `costs` in bias, in nats."""
    variance = (over_depth["encoder_variance"] + over_depth["decoder_variance"]).to_numpy()
    return pd.DataFrame(
        {
            "depth": over_depth["shared_depth"].to_numpy()[1:],
            "saves": variance[:-1] - variance[1:],
            "costs": np.diff(over_depth["encoder_bias"].to_numpy()),
        }
    )


def marginal_rule(over_depth: pd.DataFrame, depth: int) -> str:
    """The rule at one shared depth, in words."""
    table = marginal(over_depth)
    if depth == len(table):
        return f"All {depth} blocks are shared; there is no next one."
    saves, costs = table.loc[depth, ["saves", "costs"]]
    if not math.isfinite(saves) or not math.isfinite(costs):
        return f"Sharing block {depth + 1}: the proxy is not finite at this weight."
    worth = "worth it" if saves > costs else "not worth it"
    return f"Sharing block {depth + 1} saves {saves:.3g} and costs {costs:.3g} nats: {worth}."


def in_words(cell: pd.Series) -> str:
    """One cell: where it is, its three terms, their sum."""
    terms = " + ".join(f"{name.replace('_', ' ')} {cell[name]:.4g}" for name in COLUMNS[2:5])
    total = f"{cell['total']:.4g}" if math.isfinite(cell["total"]) else "not finite:"
    return f"C = {cell['shared_depth']:.0f}, w_A = {cell['head_weight']:.2f}: {terms} = <b>{total} nats</b>"


def _packed(table: pd.DataFrame, n_depths: int) -> dict:
    """{column: base64}, rows sorted by depth, and how many `rows` each depth has."""
    rows = np.bincount(table["depth"], minlength=n_depths + 1)[1:].tolist()
    table = table.sort_values("depth", kind="stable").drop(columns="depth")
    return {"rows": rows} | {c: base64.b64encode(table[c].to_numpy("<f4").tobytes()).decode() for c in table.columns}


def _drawing(depth: int, n_depths: int) -> str:
    """SVG: images from the left, `depth` shared blocks, then a row of the head's and a row of the tail's."""
    step = 26
    width = step * (n_depths + 1) + 150

    def box(i, y, colour, text):
        return (
            f'<rect x="{60 + i * step}" y="{y}" width="{step - 4}" height="24" rx="3" fill="{colour}"/>'
            f'<text x="{60 + i * step + step / 2 - 2}" y="{y + 16}" text-anchor="middle" fill="#fff">{text}</text>'
        )

    shared, own = range(depth), range(depth, n_depths)
    parts = [box(i, 33, "#555555", i + 1) for i in shared]
    for task, y, colour in (("head", 8, "#0072B2"), ("tail", 58, "#B35900")):
        parts += [box(i, y, colour, i + 1) for i in own]
        parts.append(box(n_depths, y, colour, "ψ"))
        parts.append(f'<text x="{66 + (n_depths + 1) * step}" y="{y + 16}" fill="currentColor">{task} classes</text>')
    parts.append('<text x="0" y="50" fill="currentColor">image →</text>')
    label = f"{depth} shared blocks, then {n_depths - depth} of the head and of the tail each"
    return (
        f'<svg viewBox="0 0 {width} 90" role="img" aria-label="{label}" style="width:100%;max-width:{width}px" '
        f'font-size="12" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
