"""Notebook 04: the choice of shared depth and head weight: the proxy's, one named in the parameter file, or one made by hand.

outputs/NAME/selection.json shows it. A choice by hand lies there too: the explorer writes it, for the very proxy it looks at.
Stages 2 and 3 have in their keys the values they use of it, so that a new proxy that chooses the same repeats nothing.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import write_text
from ..artifacts.lock import held
from ..artifacts.manifest import own_checksum
from ..backend import distributed
from .pipeline import execute, require
from .proxy_inputs import load_summary, measured_bias
from .run import Run


def parameters(run: Run) -> dict:
    return {"chosen": _by_hand(run) or _named(run)}


def make(run: Run, write: Writer) -> None:
    by_hand, last = _by_hand(run), write.artifact.folder / "selection.json"
    text = json.dumps(by_hand, indent=1) if by_hand else _proposal(run)
    chosen = json.loads(text)
    said = f"shared_depth {chosen['shared_depth']}, head_weight {chosen['head_weight']}, {origin(chosen)}"
    print("selection: " + ". ".join([said, *remarks(chosen)]), flush=True)
    _show(run, text, _text(last) or text)
    write.text("selection.json", text)


def publish(run: Run, artifact: Artifact) -> None:
    if distributed.rank() == 0:
        text = (artifact.folder / "selection.json").read_text(encoding="utf-8")
        _show(run, text, text)


def _show(run: Run, text: str, last: str) -> None:
    """outputs/NAME/selection.json as selected; where it is neither that nor what was selected last, somebody edited it."""
    shown = run.folder / "selection.json"
    there = _text(shown)
    if shown.exists() and there not in (text, last):
        print(
            "selection.json is not what was selected: put right (name shared_depth and head_weight in the "
            "parameter file to choose yourself, or choose in the explorer of notebook 04)"
        )
    if there != text:
        write_text(shown, text)


def _text(path: Path) -> str | None:
    """A file as it lies there; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


# reading --------------------------------------------------------------------------------------------------------


def selection(run: Run) -> dict:
    """What was selected: shared_depth, head_weight, form, damping, total, chosen_by. Raises UserError where nothing was."""
    return json.loads((require(run, "selection").folder / "selection.json").read_text(encoding="utf-8"))


def chosen(run: Run) -> dict:
    """shared_depth, head_weight and chosen_by, as Stages 2, 3 and the tables use them: known before the selection is
    made where the run is at a fixed choice or the choice is yours."""
    return run.fixed_choice or _by_hand(run) or _named(run) or selection(run)


def proposed(run: Run) -> dict:
    """The proxy's own choice, whatever was chosen by hand."""
    return json.loads(_proposal(run))


def origin(selected: dict) -> str:
    """Who chose, in words for a reader."""
    return {
        "hand": "chosen by hand in the explorer",
        "parameters": "named in the parameter file",
        "proxy": f"picked by the proxy, form “{selected['form']}”",
    }[selected["chosen_by"]]


def in_sentences(selected: dict) -> str:
    """The choice for a reader, in sentences: what, by whom, and what it means where it lies at an edge."""
    cell = f"C = {selected['shared_depth']}, w_A = {selected['head_weight']:.2f}: {origin(selected)}"
    return ". ".join([cell, *remarks(selected)]) + "."


def remarks(selected: dict) -> list[str]:
    """What sharing nothing, or a weight that leaves a task out, means; none for other choices."""
    said, weight = [], selected["head_weight"]
    if selected["shared_depth"] == 0:
        said.append("Nothing is shared: the predictor is two whole networks, about twice the parameters and FLOPs of one")
        if selected["chosen_by"] == "proxy":
            said.append("The proxy is the same at every w_A there; this one is the best at the nearest depth")
    if weight in (0, 1):
        task = "tail" if weight else "head"
        said.append(f"At w_A = {weight:g} Stage 2 does not train the {task} classes at all")
        if selected["chosen_by"] == "proxy":
            said[-1] += "; an earlier version picked that, ./run_all.sh --from 04 with its parameter file picks again"
    return said


def _proposal(run: Run) -> str:
    return (require(run, "proxy").folder / "selection.json").read_text(encoding="utf-8")


def _named(run: Run) -> dict | None:
    wanted = run.config.selection
    if wanted.shared_depth is None:
        return None
    return {"shared_depth": wanted.shared_depth, "head_weight": wanted.head_weight, "chosen_by": "parameters"}


def _by_hand(run: Run) -> dict | None:
    """What selection.json holds if it is a choice by hand made from this very proxy, with the checksum it was written with;
    None for anything else."""
    try:
        chosen = json.loads(_text(run.folder / "selection.json") or "null")
    except ValueError:
        return None
    if not isinstance(chosen, dict) or chosen.get("checksum") != own_checksum(chosen):
        return None
    return chosen if chosen.get("chosen_by") == "hand" and chosen.get("proxy") == run.artifact("proxy").key else None


# choosing -------------------------------------------------------------------------------------------------------


def choose(run: Run, shared_depth: int, head_weight: float, form: str, damping: float) -> dict:
    """Choose by hand, until the proxy changes or `choose_proposed` is called."""
    at = load_summary(run).grid([shared_depth], [head_weight], form, damping, measured_bias(run)).iloc[0]
    used = 0.0 if form == "paper" else damping
    total = float(at["total"]) if math.isfinite(at["total"]) else None  # JSON has no infinity
    cell = {"shared_depth": shared_depth, "head_weight": head_weight, "total": total, "form": form, "damping": used}
    cell |= {"chosen_by": "hand", "proxy": require(run, "proxy").key}
    cell["checksum"] = own_checksum(cell)
    return _choose(run, json.dumps(cell, indent=1))


def choose_proposed(run: Run) -> dict:
    """Back to the proxy's choice."""
    return _choose(run, _proposal(run))


def _choose(run: Run, text: str) -> dict:
    with held(run.locked):
        write_text(run.folder / "selection.json", text)
        execute(run, "selection", quiet=True)
    return selection(run)
