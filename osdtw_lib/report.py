"""HTML that shows everything with the network off: a page a notebook, a page a data set, one index.

plotly.js is put into a page once; formulas become MathML, which browsers draw themselves; widgets, which need a
kernel, are left out. The data set's page is made of the notebook cells tagged `story`.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path

import jinja2
import latex2mathml.converter
import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from plotly.offline import get_plotlyjs

from .artifacts import damage, read_manifest, write_text
from .config import BASELINES
from .errors import UserError
from .evaluation import METHOD_NAMES, how_to_run_missing, shown
from .runs import NOTEBOOKS

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"


def write_page(notebook: Path, page: Path) -> Path:
    """An executed notebook as one self-contained HTML file."""
    nb = nbformat.read(notebook, as_version=4)
    nb.metadata.pop("widgets", None)
    nb.metadata["title"] = f"{notebook.stem} · {notebook.parent.name}"
    nb.cells = [cell for cell in nb.cells if not _is_parameters(cell)]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas(cell.source)
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = _static(output["data"])
    links = ['<a href="../index.html">all data sets</a>', f'<a href="index.html">{html.escape(notebook.parent.name)}</a>']
    links += [f'<span class="here">{b}</span>' if b == notebook.stem else f'<a href="{b}.html">{b}</a>' for b in NOTEBOOKS]
    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])
    resources = {"plotly_js": _plotly_js(), "page_style": _style(), "navigation": " ".join(links)}
    body, _ = exporter.from_notebook_node(nb, resources)
    write_text(page, body)
    return page


def write_index(outputs: Path) -> Path:
    """outputs/index.html and outputs/NAME/index.html of every run that has tables."""
    runs = []
    for folder in sorted(path.parent.parent for path in outputs.glob("*/tables/manifest.json")):
        manifest, chosen = read_manifest(folder / "tables"), read_manifest(folder / "proxy")
        if not manifest or not chosen or damage(folder / "tables", manifest) or damage(folder / "proxy", chosen):
            print(f"{folder}: left out of the report, its tables are not as they were written; run it again", flush=True)
            continue
        selection = json.loads((folder / "proxy" / "selection.json").read_text())
        accuracy = pd.read_csv(folder / "tables" / "accuracy.csv")
        runs.append(_summary(folder.name, accuracy, selection, manifest))
        _write_run(folder, accuracy, selection, manifest)
    if not runs:
        raise UserError(f"{outputs}: no finished run to report on")
    page = outputs / "index.html"
    write_text(page, _template("index").render(runs=runs, style=_style()))
    return page


def formulas(markdown: str) -> str:
    """$$...$$ and $...$ in a markdown text as MathML; code is left as it is."""
    pattern = re.compile(r"```.*?```|`[^`]*`|\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", re.DOTALL)

    def convert(match: re.Match) -> str:
        if match.group(0).startswith("`"):
            return match.group(0)
        display = "block" if match.group(1) else "inline"
        made = latex2mathml.converter.convert((match.group(1) or match.group(2)).strip(), display=display)
        # HTML needs no namespace, and nbconvert would turn it into a prefix in headings
        return made.replace("\n", "").replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")

    return pattern.sub(convert, markdown)


def figure_html(figure: dict) -> str:
    """A plotly figure (its JSON) as a <figure>; plotly.js must be on the page."""
    layout = dict(figure.get("layout", {}))
    caption = (layout.get("meta") or {}).get("caption", "")
    data = json.dumps({"data": figure["data"], "layout": layout}).replace("</", "<\\/")
    config = '{"responsive": true, "displaylogo": false}'
    script = (
        "(function(){var box=document.currentScript.previousElementSibling;var f=" + data + ";"
        f"Plotly.newPlot(box,f.data,f.layout,{config});}})();"
    )
    return f'<figure class="plot"><div></div><script>{script}</script><figcaption>{html.escape(caption)}</figcaption></figure>'


def _static(data: dict) -> dict:
    """One output without what needs a kernel or a network."""
    if PLOTLY in data:
        return {"text/html": figure_html(data[PLOTLY])}
    if WIDGET in data:
        return {"text/html": '<p class="quiet">Live in JupyterLab: open this notebook there.</p>'}
    return data


def _write_run(folder: Path, accuracy: pd.DataFrame, selection: dict, manifest: dict) -> None:
    table = shown(accuracy).to_html(index=False, border=0)
    how = html.escape(how_to_run_missing(accuracy))
    runtime = pd.read_csv(folder / "tables" / "runtime.csv").to_html(index=False, float_format="%.1f", border=0)
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    page = _template("run").render(
        name=folder.name,
        style=_style(),
        plotly_js=_plotly_js(),
        books=[book for book in NOTEBOOKS if (folder / f"{book}.html").exists()],
        selection=selection,
        headline=accuracy.set_index("method").at["osdtw", "all"],
        table=table + (f'<p class="quiet">{how}</p>' if how else ""),
        story=_story(folder),
        runtime=runtime,
        about=f"Seed {accuracy['seed'].iloc[0]}, last epoch, {manifest['device']}, {versions}, {manifest['finished']}.",
    )
    write_text(folder / "index.html", page)


def _story(folder: Path) -> list[str]:
    """The cells tagged `story` of the executed notebooks, in order."""
    parts = []
    for book in NOTEBOOKS:
        path = folder / f"{book}.ipynb"
        for cell in nbformat.read(path, as_version=4).cells if path.exists() else []:
            if "story" not in cell.metadata.get("tags", []):
                continue
            if cell.cell_type == "markdown":
                parts.append(markdown2html(formulas(cell.source)))
            for output in cell.get("outputs", []):
                data = _static(output.get("data", {}))
                if "text/html" in data:
                    parts.append(f'<div class="scroll">{data["text/html"]}</div>')
    return parts


def _summary(name: str, accuracy: pd.DataFrame, selection: dict, manifest: dict) -> dict:
    score = accuracy.set_index("method")["all"]
    best = score.reindex(BASELINES).dropna()
    return {
        "name": name,
        "osdtw": f"{score['osdtw']:.1f}",
        "baseline": f"{best.max():.1f} ({METHOD_NAMES[best.idxmax()]})" if len(best) else "not run",
        "depth": selection["shared_depth"],
        "weight": selection["head_weight"],
        "finished": manifest["finished"][:16].replace("T", " "),
        "device": manifest["device"],
    }


def _is_parameters(cell) -> bool:
    return bool({"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])))


def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES / "pages")).get_template(f"{name}.html.j2")


@cache
def _style() -> str:
    return (TEMPLATES / "pages" / "style.css").read_text()


@cache
def _plotly_js() -> str:
    return get_plotlyjs().replace("</script>", "<\\/script>")
