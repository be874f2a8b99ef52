"""HTML that shows everything with the network off: a page a notebook, and the pieces index.py makes the indexes of.

plotly.js is put into a page once; formulas become MathML, which browsers draw themselves; widgets, which need a
kernel, are left out, but for the explorer, which answers from the page.
"""

from __future__ import annotations

import html
import json
import math
import re
from functools import cache
from pathlib import Path

import jinja2
import latex2mathml.converter
import nbformat
from nbconvert import HTMLExporter
from plotly.offline import get_plotlyjs

from ..artifacts.files import write_text
from ..proxy.grid import FORMS
from ..stages import NOTEBOOKS, OPTIONAL
from .progress_lines import log_html

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY = "application/vnd.plotly.v1+json"
EXPLORER = "application/vnd.osdtw.explorer+json"
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
                output["data"] = static(output["data"])
        if cell.cell_type == "code":
            cell.outputs = [_folded(output) for output in _joined(cell.outputs)]
    books = sorted({*NOTEBOOKS, *(b for b in OPTIONAL if b == notebook.stem or notebook.with_name(f"{b}.html").is_file())})
    links = ['<a href="../index.html">all data sets</a>', f'<a href="index.html">{html.escape(notebook.parent.name)}</a>']
    links += [f'<span class="here">{b}</span>' if b == notebook.stem else f'<a href="{b}.html">{b}</a>' for b in books]
    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])
    resources = {"plotly_js": plotly_script(), "page_style": style(), "page_js": page_script(), "navigation": " ".join(links)}
    body, _ = exporter.from_notebook_node(nb, resources)
    write_text(page, body)
    return page


def _joined(outputs: list) -> list:
    """What was printed without anything between as one output: a kernel sends it as it comes, a line every few seconds."""
    joined: list = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


def _folded(output):
    """A log of many lines, or of a training, in few; the whole of it one click away."""
    page = log_html(output.text) if output.output_type == "stream" else None
    return output if page is None else nbformat.v4.new_output("display_data", {"text/html": page})


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


def in_script(value) -> str:
    """`value` as JSON that nothing in it can end or comment out: HTML looks for <!--, <script and </script in any script."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e")


def figure_html(figure: dict) -> str:
    """A plotly figure (its JSON) as a <figure>; plotly.js must be on the page."""
    layout = dict(figure.get("layout", {}))
    caption = (layout.get("meta") or {}).get("caption", "")
    data = in_script({"data": figure["data"], "layout": layout})
    config = '{"responsive": true, "displaylogo": false}'
    script = (
        "(function(){var box=document.currentScript.previousElementSibling;var f=" + data + ";"
        f"Plotly.newPlot(box,f.data,f.layout,{config});}})();"
    )
    return f'<figure class="plot"><div></div><script>{script}</script><figcaption>{html.escape(caption)}</figcaption></figure>'


def explorer_html(data: dict) -> str:
    """The explorer (Landscape.page and its figures) as a page's own; plotly.js must be on the page."""
    offset = math.log10(data["start_damping"] / data["evidence"]) if data["start_damping"] else -data["decades"]
    return template("explorer").render(
        **{name: data[name] for name in ("n_depths", "selected", "decades", "evidence")},
        forms=FORMS,
        offset=round(offset, 2),
        data=in_script(data),
        script=(TEMPLATES / "pages" / "explorer.js").read_text(encoding="utf-8"),
    )


def static(data: dict) -> dict:
    """One output without what needs a kernel or a network."""
    if PLOTLY in data:
        return {"text/html": figure_html(data[PLOTLY])}
    if EXPLORER in data:
        return {"text/html": explorer_html(data[EXPLORER])}
    if WIDGET in data:
        return {"text/html": '<p class="quiet">Live in JupyterLab: open this notebook there.</p>'}
    return data


def _is_parameters(cell) -> bool:
    return bool({"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])))


def template(name: str) -> jinja2.Template:
    """A page's frame. What is put into it is escaped, but for what the frame itself marks as HTML or as a script."""
    frames = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES / "pages"), autoescape=True)
    return frames.get_template(f"{name}.html.j2")


@cache
def page_script() -> str:
    """Sorting and copying of tables, figures that fit when printed."""
    return (TEMPLATES / "pages" / "page.js").read_text(encoding="utf-8")


@cache
def style() -> str:
    return (TEMPLATES / "pages" / "style.css").read_text(encoding="utf-8")


@cache
def plotly_script() -> str:
    return get_plotlyjs().replace("</script>", "<\\/script>")
