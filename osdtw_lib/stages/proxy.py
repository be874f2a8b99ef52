"""Notebook 04: every form of the proxy over (C, w_A), and its pick (Algorithm 1, lines 6 to 13)."""

from __future__ import annotations

import math
import time

import pandas as pd

from ..artifacts.artifact import Artifact, Writer
from ..proxy.binned import ProxySummary
from ..proxy.grid import Choice
from .pipeline import execute
from .proxy_inputs import load_proxy, measured_bias
from .run import Run


def parameters(run: Run) -> dict:
    return run.dump("selection")


def make(run: Run, write: Writer) -> None:
    started = time.monotonic()
    search, wanted = load_proxy(run), run.config.selection
    damping = search.evidence() if wanted.damping == "evidence" else wanted.damping
    bias = measured_bias(run)
    grids = {
        "paper": search.grid(form="paper"),
        "damped": search.grid(form="damped", damping=damping),
        "direct": search.grid(form="direct", damping=damping, measured_bias=bias),
    }
    used = {form: 0.0 if form == "paper" else damping for form in grids}
    picks = {form: search.select(grid) for form, grid in grids.items()}
    write.notes |= {"search_seconds": round(time.monotonic() - started, 3), "dead_parameters": search.dead}
    write.table("grid", pd.concat([grid.assign(form=form, damping=used[form]) for form, grid in grids.items()]))
    write.table("picks", pd.DataFrame([{"form": f, "damping": used[f], **vars(pick)} for f, pick in picks.items()]))
    write.table("by_depth", search.by_depth())
    summary = ProxySummary.of(search)
    write.table("encoder_bins", summary.encoder)
    write.table("decoder_bins", summary.decoders)
    write.notes["evidence"] = summary.evidence()
    if wanted.shared_depth is None:
        pick, chosen_by = picks[wanted.form], "proxy"
    else:
        named = [wanted.shared_depth], [wanted.head_weight]
        total = float(search.grid(*named, wanted.form, used[wanted.form], bias)["total"].iloc[0])
        total = total if math.isfinite(total) else None  # JSON has no infinity
        pick, chosen_by = Choice(wanted.shared_depth, wanted.head_weight, total), "parameters"
    write.json("selection", {**vars(pick), "form": wanted.form, "damping": used[wanted.form], "chosen_by": chosen_by})


def publish(run: Run, artifact: Artifact) -> None:
    """What it proposes is selected at once, unless the choice is yours."""
    execute(run, "selection", quiet=True)
