"""Does the proxy's pick follow the measured optimum as the data and Stage 1 change? One factor at a time, a grid for each value.

    python benchmarks/sensitivity.py [PARAMS.yaml] [--set KEY=VALUE]... [--quick] [--out FOLDER]

The factors: imbalance ratio, where the line between head and tail is drawn, Stage 1's length (half and twice). For each value
both tasks are trained, the proxy picks, and every cell of the ablation's grid is trained; the parameter file's own values stand
in all three. A value that the images do not allow is left out and said.
A killed run goes on in the cell it was in. Some hours on 2 cores; several cells at once, as notebook 08. Columns:
benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import shutil

import pandas as pd
import plotly.graph_objects as go
from common import machine, parser, show, write
from end_to_end import TINY
from plotly.subplots import make_subplots

from osdtw_lib.ablation import grid_cell, tables
from osdtw_lib.ablation.ranking import one_cell_at_zero, rank
from osdtw_lib.ablation.variant import Variant
from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.files import write_text
from osdtw_lib.artifacts.lock import held
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Config
from osdtw_lib.errors import UserError
from osdtw_lib.figures.style import BLUE, RED
from osdtw_lib.proxy.grid import CELL, Search
from osdtw_lib.stages.run import Run
from osdtw_lib.stages.side_by_side import everywhere

FACTORS = {
    "imbalance ratio": ("data.imbalance_ratio", (10, 50, 100, 200)),
    "classes in the head": ("head_share", (0.3, 0.5, 0.7)),
    "epochs of Stage 1": ("stage1.epochs", (0.5, 2)),  # times the file's own
}
QUICK = {"classes in the head": ("head_share", (0.3, 0.5))}
SMALL_GRID = (
    "ablation.depths=[]",
    "ablation.head_weights=[0.5]",
    "ablation.refinement_epochs=1",
    "stage2.epochs=1",
    "stage2.warmup_epochs=0",
)
SHOWN = ("paper", "damped", "direct")  # at evidence damping, `direct` with the file's own loss and merge

PICKS = {"direct": ("direct's pick", "diamond", BLUE), "paper": ("Eq. (18)'s pick", "x", RED)}


def variant_at(config: Config) -> Variant:
    made = Variant(Run(config), config.seed, config.likelihood)
    made.locked = made.folder.parents[1]  # the file's own run, whose lock `main` holds: two processes work on one setting
    return made


def prepare(base: Config, config: Config) -> None:
    """Everything a proxy is made of."""
    made = variant_at(config)
    borrow(made.artifact("start"), variant_at(base).artifact("start"))
    grid_cell.prepare(made)


def measure(base: Config, config: Config, weight: float, depths: list[int]) -> None:
    made = variant_at(config)
    borrow(made.weighted(weight).artifact("stage2"), variant_at(base).weighted(weight).artifact("stage2"))
    grid_cell.measure(made, weight, depths)


def borrow(own: Artifact, base: Artifact) -> None:
    """Where the factor does not touch it, what was trained with the file's own values."""
    if own.why_not_done() and own.key == base.key and not base.why_not_done():
        shutil.rmtree(own.folder, ignore_errors=True)
        shutil.copytree(base.folder, own.folder)


def cells_and_forms(config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The refined networks' rows of `tables.cells`, and what every form says of the cells."""
    variant, weights = variant_at(config), config.ablation.head_weights
    depths = grid_cell.depths_of(variant)
    cells = tables.cells([variant], weights, depths).query("network == 'refined'")
    found = tables.forms([variant], depths, weights)
    wanted = {"paper": ("0", "-"), "damped": ("evidence", "-"), "direct": ("evidence", config.selection.loss)}
    forms = [found.query("form == @f and damping == @d and loss == @loss") for f, (d, loss) in wanted.items()]
    return cells, pd.concat(forms)


def judged(cells: pd.DataFrame, forms: pd.DataFrame) -> list[dict]:
    """A row a form: where it picks, where the best cell is, and how they compare."""
    measured = one_cell_at_zero(cells)
    best = measured.loc[measured["all"].idxmax()]
    rows = []
    for form, totals in forms.groupby("form", sort=False):
        pick = Search.select(totals)
        weight = pick.head_weight if pick.shared_depth else 0.0  # as one_cell_at_zero has it
        own = measured[(measured["shared_depth"] == pick.shared_depth) & (measured["head_weight"] == weight)]
        rows.append(
            {"form": form}
            | {f"pick_{name}": getattr(pick, name) for name in CELL}
            | {f"best_{name}": best[name] for name in CELL}
            | {"pick_all": own["all"].iloc[0], "best_all": best["all"]}
            | rank(cells, totals)
        )
    return rows


def drawn(cells: pd.DataFrame, table: pd.DataFrame, factors: dict) -> go.Figure:
    """A column a factor. Above: at each value, what the best weight of every depth loses against the best cell; below: what the
    best depth of every weight loses. A diamond: `direct`'s pick; a cross: Eq. (18)'s."""
    titles = ["shared depth C", "head weight w_A"]
    figure = make_subplots(2, len(factors), shared_yaxes="rows", vertical_spacing=0.12, row_titles=titles)
    for column, factor in enumerate(factors, start=1):
        own = cells[cells["factor"] == factor]
        for row, name in enumerate(CELL, start=1):
            shared = own if row == 1 else own[own["shared_depth"] > 0]
            grid = shared.pivot_table(index=name, columns="value", values="all", aggfunc="max")
            short = grid - own.groupby("value")["all"].max()
            x, y = [f"{value:g}" for value in short.columns], [f"{value:g}" for value in short.index]
            shades = go.Heatmap(x=x, y=y, z=short.to_numpy(), colorscale="Cividis", zmin=-8, zmax=0, hovertemplate="%{z:.1f}")
            bar = {"title": "points<br>behind<br>the best<br>(to 8)", "len": 0.9}
            figure.add_trace(shades.update(colorbar=bar, showscale=(row, column) == (1, 1)), row=row, col=column)
            for form, (label, symbol, colour) in PICKS.items():
                picks = table[(table["factor"] == factor) & (table["form"] == form)]
                if row == 2:
                    picks = picks[picks["pick_shared_depth"] > 0]  # else no weight is picked
                figure.add_scatter(
                    x=[f"{value:g}" for value in picks["value"]],
                    y=[f"{value:g}" for value in picks[f"pick_{name}"]],
                    mode="markers",
                    marker={"symbol": symbol, "size": 14, "color": colour, "line": {"color": "white", "width": 2}},
                    name=label,
                    showlegend=(row, column) == (1, 1),
                    row=row,
                    col=column,
                )
            figure.update_xaxes(type="category", title=factor if row == 2 else None, showgrid=False, row=row, col=column)
            figure.update_yaxes(type="category", categoryarray=y, showgrid=False, row=row, col=column)
    legend = {"orientation": "h", "y": 1.08}
    return figure.update_layout(height=640, width=1150, legend=legend, title="Does the pick follow the optimum?")


def settings_of(path: str, own: list[str], factors: dict) -> dict[tuple[str, float], Config]:
    """(factor, value) -> parameters; the file's own values are one run, whatever the factor."""
    base, found = load_config(path, own), {}
    for factor, (key, values) in factors.items():
        section, _, last = key.rpartition(".")
        here = getattr(getattr(base, section) if section else base, last, None)
        if here is None:
            print(f"not run: {factor}: this data set has no {key}", flush=True)
            continue
        for value in sorted({here, *((round(here * v) for v in values) if key == "stage1.epochs" else values)}):
            try:
                Run(load_config(path, [*own, f"{key}={value}"])).indices  # noqa: B018  drawn, to see whether they can be
            except UserError as error:
                print(f"not run: {key} {value:g}: {error}", flush=True)
                continue
            where = [f"name={last}_{value:g}", f"outputs={base.folder / 'sensitivity'}"]
            same = load_config(path, [*own, f"{key}={value}"]) == base
            found[factor, value] = load_config(path, [*own, *where, *(["name=as_it_is"] if same else [f"{key}={value}"])])
    return found


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("params", nargs="?", default=str(PROJECT / "params" / "mnist_lt.yaml"))
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace one key, for instance seed=3")
    asked = made.parse_args()
    own = asked.set
    own += [*TINY, *SMALL_GRID, f"outputs={asked.out}"] if asked.quick else []
    factors, base = QUICK if asked.quick else FACTORS, Run(load_config(asked.params, own))
    settings = settings_of(asked.params, own, factors)
    runs = sorted({config.name: config for config in settings.values()}.values(), key=lambda config: config.name != "as_it_is")
    with held(base.locked):
        first = Run(runs[0])
        prepare(runs[0], runs[0])
        everywhere(first, prepare, [(config,) for config in runs[1:]])
        everywhere(first, measure, [(c, *share) for c in runs for share in grid_cell.shares_of(variant_at(c))])
    cells, rows, read = [], [], {config.name: cells_and_forms(config) for config in runs}
    for (factor, value), config in settings.items():
        measured, forms = read[config.name]
        cells.append(measured.assign(factor=factor, value=value))
        rows += [{"factor": factor, "value": value, **row} for row in judged(measured, forms)]
    table, cells, name = pd.DataFrame(rows), pd.concat(cells), base.config.name
    print(machine())
    columns = ["factor", "value", *(f"{which}_{what}" for which in ("pick", "best") for what in CELL), "spearman", "regret"]
    for form in SHOWN:
        show(f"{name}, seed {base.config.seed}: {form}", table.loc[table["form"] == form, columns].round(2))
    write(table, asked.out, f"sensitivity_{name}.csv")
    write(cells[["factor", "value", *CELL, "few", "all"]], asked.out, f"sensitivity_{name}_cells.csv")
    page = asked.out / f"sensitivity_{name}.html"
    write_text(page, drawn(cells, table, factors).to_html(include_plotlyjs=True))
    print(f"wrote {page}", flush=True)


if __name__ == "__main__":
    main()
