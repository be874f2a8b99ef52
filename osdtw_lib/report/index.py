"""The two index pages: outputs/index.html over all data sets, and outputs/NAME/index.html, the story of one.

The story is the notebook cells tagged `story`, between the final table and the run times.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert.filters import markdown2html

from ..artifacts.files import write_text
from ..artifacts.manifest import damage, read_manifest
from .. import methods
from ..errors import UserError
from ..evaluation import published as paper
from ..evaluation.accuracy_table import how_to_run_missing, shown
from ..methods.osdtw import ROWS
from ..stages import NOTEBOOKS, OPTIONAL
from ..stages.selection import origin
from .page import formulas, page_script, plotly_script, static, style, template


def write_index(outputs: Path) -> Path:
    """outputs/index.html and outputs/NAME/index.html of every run that has tables."""
    runs = []
    for folder in sorted(path.parent.parent for path in outputs.glob("*/tables/manifest.json")):
        manifest = read_manifest(folder / "tables")
        if not manifest or damage(folder / "tables", manifest) or "selection.json" not in manifest["files"]:
            print(f"{folder}: left out of the report, its tables are not as they were written; run it again", flush=True)
            continue
        runs.append(_facts(folder, manifest))
        _write_run(folder, runs[-1])
    if not runs:
        raise UserError(f"{outputs}: no finished run to report on")
    page = outputs / "index.html"
    write_text(page, template("index").render(runs=runs, style=style(), page_js=page_script()))
    return page


def _facts(folder: Path, manifest: dict) -> dict:
    """What both pages say about a run."""
    read = {name: pd.read_csv(folder / path) for name, path in (
        ("accuracy", "tables/accuracy.csv"), ("runtime", "tables/runtime.csv"), ("classes", "split/classes.csv"),
    )}
    selection = json.loads((folder / "tables" / "selection.json").read_text())
    score, counts = read["accuracy"].set_index("method"), read["classes"]["training_images"]
    best = score["all"].drop(list(ROWS)).dropna()
    titles = manifest["notes"].get("titles") or titles_here(score.index)
    few = score.at["osdtw", "few"]
    headline = f"OSDTW, refined, names {score.at['osdtw', 'all']:.1f} % of the test images right"
    headline += f", and {few:.1f} % of those of the rarest classes (under 20 images)" if pd.notna(few) else ""
    if len(best):
        headline += f"; the best single network, trained with {titles[best.idxmax()]}, {best.max():.1f} %"
    by_task = read["classes"].groupby("task")["training_images"].agg(["size", "sum"])
    tasks = ", ".join(f"{row['size']} {task} classes with {row['sum']} images" for task, row in by_task.iterrows())
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    seconds = read["runtime"].set_index("stage")["seconds"]["total"]
    return read | {
        "name": folder.name,
        "classes": len(counts),
        "table": read["accuracy"],
        "titles": titles,
        "images": counts.sum(),
        "split": f"{counts.sum()} training images of {len(counts)} classes, from {counts.max()} to {counts.min()} a class: {tasks}.",
        "headline": f"{headline}.",
        "osdtw": f"{score.at['osdtw', 'all']:.1f}",
        "few": f"{few:.1f}" if pd.notna(few) else "-",
        "baseline": f"{best.max():.1f}" if len(best) else "not run",
        "depth": selection["shared_depth"],
        "weight": selection["head_weight"],
        "origin": origin(selection),
        "minutes": f"{seconds / 60:.1f}",
        "finished": manifest["finished"][:16].replace("T", " "),
        "caption": f"{manifest['notes']['caption']}. Last epoch; start: {manifest['notes']['start']}.",
        "about": f"Seed {score['seed'].iloc[0]}, {manifest['device']}, {versions}, {manifest['finished']}.",
        "books": [book for book in NOTEBOOKS | OPTIONAL if (folder / f"{book}.html").exists()],
    }


def titles_here(names) -> dict[str, str]:
    """What a reader calls the methods of tables that do not say it; a method of a file of its own keeps its name."""
    known = methods.names()
    return {name: ROWS[name].title if name in ROWS else methods.load(name).title if name in known else name for name in names}


def _write_run(folder: Path, run: dict) -> None:
    how = html.escape(how_to_run_missing(run["accuracy"], methods.names()))
    reference, times = paper.of(folder.name)
    page = template("run").render(
        run=run,
        style=style(),
        plotly_js=plotly_script(),
        page_js=page_script(),
        table=_table(shown(run["accuracy"], run["titles"]), f"Accuracy (%), measured here. {run['caption']}")
        + (f'<p class="quiet">{how}</p>' if how else ""),
        paper=[_table(reference, "The paper's accuracy (%). Not measured here.")] if reference is not None else [],
        story=_story(folder),
        runtime=_table(run["runtime"], "Seconds a stage took, measured here."),
        paper_runtime=[_table(times, "The paper's seconds, ViT-B on 4 RTX 4090. Not measured here.")] if times is not None else [],
    )
    write_text(folder / "index.html", page)


def _table(table: pd.DataFrame, caption: str) -> str:
    made = table.to_html(index=False, border=0, na_rep="-", float_format="%.1f")
    return made.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)


def _story(folder: Path) -> list[str]:
    """The cells tagged `story` of the executed notebooks, in order."""
    parts = []
    for book in NOTEBOOKS | OPTIONAL:
        path = folder / f"{book}.ipynb"
        for cell in nbformat.read(path, as_version=4).cells if path.exists() else []:
            if "story" not in cell.metadata.get("tags", []):
                continue
            if cell.cell_type == "markdown":
                parts.append(markdown2html(formulas(cell.source)))
            for output in cell.get("outputs", []):
                data = static(output.get("data", {}))
                if "text/html" in data:
                    parts.append(f'<div class="scroll">{data["text/html"]}</div>')
    return parts
