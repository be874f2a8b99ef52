"""The two index pages: outputs/index.html over all data sets, and outputs/NAME/index.html, the story of one.

The story is the notebook cells tagged `story`, between the final table and the run times. What a page shows of a file
is shown only where the file is as it was written; a run that is not whole has a line that says so instead.
"""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd
from nbconvert.filters import markdown2html

from .. import methods
from ..artifacts.files import write_text
from ..artifacts.manifest import damage, read_manifest
from ..artifacts.tables import read_table
from ..errors import UserError
from ..evaluation import published as paper
from ..evaluation.accuracy_table import how_to_run_missing, shown
from ..evaluation.one_seed import one_seed
from ..legible import legible
from ..longtail import TASKS, head_tail_partition
from ..methods.osdtw import ROWS
from ..stages import NOTEBOOKS, OPTIONAL
from ..stages.selection import origin, remarks
from .page import formulas, page_script, plotly_script, static, style, template
from .written import is_of_another_run, was_run, what_changed

RUNTIME = (
    "Where time and compute go, measured here. A pass is a forward and a backward of one plain network over every training "
    "image, by the FLOPs that were counted: a training of 40 epochs takes 40."
)


def write_index(folder: Path) -> Path:
    """outputs/NAME/index.html of the run in `folder`, and outputs/index.html, which is returned, over all there are.

    Of other runs only what their tables say is read, and none of them can keep this one from its pages. Raises
    UserError where this run has no tables, or not as they were written.
    """
    runs, broken = [], {}
    for other in sorted({folder, *(path.parent.parent for path in folder.parent.glob("*/tables/manifest.json"))}):
        try:
            facts = _facts(other)
        except Exception as error:  # whatever lies there: it is another run's
            if other == folder:
                raise
            why = str(error) if isinstance(error, UserError) else "written by another version; run it again"
            print(f"{other}: left out of the report, {why}", flush=True)
            broken[legible(other.name)] = why
            continue
        runs.append(facts)
        if other == folder:
            _write_run(folder, facts)
    page = folder.parent / "index.html"
    write_text(page, template("index").render(runs=runs, broken=broken, style=style(), page_js=page_script()))
    return page


def _facts(folder: Path) -> dict:
    """What both pages say about a run. Raises UserError where its tables are not as they were written."""
    manifest, _ = (_whole(folder, stage) for stage in ("tables", "split"))
    read = {
        name: read_table(folder / path)
        for name, path in (
            ("accuracy", "tables/accuracy.csv"),
            ("runtime", "tables/runtime.csv"),
            ("classes", "split/classes.csv"),
            ("tested", "tables/classes.csv"),
        )
    }
    selection = json.loads((folder / "tables" / "selection.json").read_text(encoding="utf-8"))
    score, counts = read["accuracy"].set_index("method"), read["classes"]["training_images"]
    best = score["all"].drop(list(ROWS)).dropna()
    titles = manifest["notes"].get("titles") or titles_here(score.index)
    few = score.at["osdtw", "few"]
    headline = f"{titles['osdtw']} names {score.at['osdtw', 'all']:.1f} % of the test images right"
    headline += f", and {few:.1f} % of those of the rarest classes (under 20 images)" if pd.notna(few) else ""
    if len(best):
        headline += f"; the best of the {len(best)} other methods in this table, {titles[best.idxmax()]}, {best.max():.1f} %"
    ahead = score.at["osdtw", "all"] - best.max() if len(best) else None
    headline += f". {one_seed(int(read['tested']['test_images'].sum()), score.at['osdtw', 'all'], ahead)}"
    if over_seeds := _verdict(folder, titles["osdtw"]):
        headline = f"{over_seeds} At the run's own seed: {headline}"
    trained = (read_manifest(folder / "stage1") or {}).get("parameters", {})
    parts = zip(TASKS, head_tail_partition(counts, trained.get("head_share", 0.5)))
    tasks = ", ".join(f"{len(members)} {task} classes with {counts[members].sum()} images" for task, members in parts)
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    seconds = read["runtime"].set_index("stage")["seconds"]["total"]
    return read | {
        "name": legible(folder.name),
        "link": quote(os.fsencode(folder.name)),
        "classes": len(counts),
        "table": read["accuracy"],
        "titles": titles,
        "images": counts.sum(),
        "split": f"{counts.sum()} training images of {len(counts)} classes, from {counts.max()} to {counts.min()} a class: "
        f"{tasks}.",
        "headline": headline,
        "osdtw": f"{score.at['osdtw', 'all']:.1f}",
        "few": f"{few:.1f}" if pd.notna(few) else "-",
        "baseline": f"{best.max():.1f}" if len(best) else "not run",
        "depth": selection["shared_depth"],
        "weight": selection["head_weight"],
        "origin": ". ".join([origin(selection), *remarks(selection)]),
        "minutes": f"{seconds / 60:.1f}",
        "finished": manifest["finished"][:16].replace("T", " "),
        "caption": f"{manifest['notes']['caption']}. Last epoch; start: {manifest['notes']['start']}.",
        "about": f"Seed {score['seed'].iloc[0]}, {manifest['device']}, {versions}, {manifest['finished']}.",
        "key": manifest["key"],
        "books": [book for book in sorted(NOTEBOOKS | OPTIONAL) if (folder / f"{book}.html").is_file()],
    }


def _verdict(folder: Path, title: str) -> str | None:
    """The first sentence of the verdict at the same epochs over several seeds; None where there is none of this run's results."""
    manifest, book = read_manifest(folder / "verdict"), folder / "09_verdict.ipynb"
    if not manifest or damage(folder / "verdict", manifest) or not was_run(book) or what_changed(book) or is_of_another_run(book):
        return None
    asked = manifest["parameters"]
    seeds, ending = len(asked["seeds"][:2] if asked["quick"] else asked["seeds"]), f". {title} names"
    said = json.loads((folder / "verdict" / "verdict.json").read_text(encoding="utf-8"))["epochs"]
    return f"Over {seeds} seeds, notebook 09: {said.split(ending)[0]}." if seeds > 1 and ending in said else None


def _pictured(folder: Path, tables: str) -> bool:
    """Whether the pages with pictures are there, whole, and of these tables; says so where they were and are not."""
    manifest, there = read_manifest(folder / "pictures"), (folder / "pictures").exists()
    if manifest and manifest["inputs"].get("tables") == tables and not damage(folder / "pictures", manifest):
        return True
    if there:
        print(
            f"{folder / 'pictures'}: left out of the report, damaged or of other tables; run ./run_all.sh --from 10 with its "
            "parameter file",
            flush=True,
        )
    return False


def titles_here(names) -> dict[str, str]:
    """What a reader calls the methods of tables that do not say it; a method of a file of its own keeps its name."""
    known = methods.names()
    return {name: ROWS[name].title if name in ROWS else methods.load(name).title if name in known else name for name in names}


def _whole(folder: Path, stage: str) -> dict:
    """The manifest of a stage of this run. Raises UserError, without its folder, where it or a file it lists has changed."""
    manifest = read_manifest(folder / stage)
    wrong = damage(folder / stage, manifest) if manifest else "its manifest is missing or damaged"
    if wrong:
        raise UserError(f"{stage}: {wrong}; run it again")
    return manifest


def _write_run(folder: Path, run: dict) -> None:
    how = html.escape(how_to_run_missing(run["accuracy"], methods.names()))
    reference, times = paper.of(folder.name)
    page = template("run").render(
        run=run,
        pictures=_pictured(folder, run["key"]),
        style=style(),
        plotly_js=plotly_script(),
        page_js=page_script(),
        table=_table(shown(run["accuracy"], run["titles"]), f"Accuracy (%), measured here. {run['caption']}")
        + (f'<p class="quiet">{how}</p>' if how else ""),
        paper=[_table(reference, "The paper's accuracy (%). Not measured here.")] if reference is not None else [],
        story=_story(folder),
        runtime=_table(run["runtime"], RUNTIME),
        paper_runtime=[] if times is None else [_table(times, "The paper's seconds, ViT-B on 4 RTX 4090. Not measured here.")],
    )
    write_text(folder / "index.html", page)


def _table(table: pd.DataFrame, caption: str) -> str:
    made = table.to_html(index=False, border=0, na_rep="-", float_format="%.1f")
    return made.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)


def _story(folder: Path) -> list[str]:
    """The cells tagged `story` of the executed notebooks, in order; a line for a notebook that is not as it was written."""
    parts = []
    for book in sorted(NOTEBOOKS | OPTIONAL):
        path = folder / f"{book}.ipynb"
        if not path.exists() and not was_run(path):
            continue
        page = path.with_suffix(".html")
        if was_run(path) and not page.is_file():
            print(f"{page}: is not there, so no link leads to it; run it again", flush=True)
            parts.append(f'<p class="quiet">{page.name} is not there any more; run it again.</p>')
        changed = what_changed(path)
        if changed:
            print(f"{path}: left out of the report, {changed}", flush=True)
            parts.append(f'<p class="quiet">{html.escape(f"{path.name} {changed}, so what it tells is left out.")}</p>')
            continue
        if is_of_another_run(path):
            print(f"{path}: left out of the report, of other results; run it again", flush=True)
            said = "is of other results than this run has now, so what it tells is left out; run it again."
            parts.append(f'<p class="quiet">{path.name} {said}</p>')
            continue
        for cell in nbformat.read(path, as_version=4).cells:
            if "story" not in cell.metadata.get("tags", []):
                continue
            if cell.cell_type == "markdown":
                parts.append(markdown2html(formulas(cell.source)))
            for output in cell.get("outputs", []):
                data = static(output.get("data", {}))
                if "text/html" in data:
                    parts.append(f'<div class="scroll">{data["text/html"]}</div>')
                elif "text/markdown" in data:  # a sentence, with titles that others may have given
                    parts.append(markdown2html(html.escape(data["text/markdown"], quote=False)))
    return parts
