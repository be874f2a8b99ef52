"""The choice of shared depth and head weight: the proxy's, one made by hand in the explorer, or one named."""

from __future__ import annotations

import json
import math

from ..artifacts.files import write_text
from ..proxy.grid import FORMS
from .execute import require
from .proxy_inputs import load_summary, measured_bias
from .run import Run


def cell(selected: dict) -> dict:
    """What the artifacts of Stage 2 and 3 depend on besides the parameter file."""
    return {"head_weight": selected["head_weight"], "shared_depth": selected["shared_depth"]}


def selection(run: Run) -> dict:
    """The choice Stage 2 uses: shared_depth, head_weight, form, damping, total, chosen_by.

    outputs/NAME/selection.json shows it: the proxy's, or one made by hand in the explorer from the same proxy. Should
    that file have been edited otherwise, it is put right from the proxy's.
    """
    text = _proposal(run)
    by_hand = chosen_by_hand(run)
    if by_hand:
        return by_hand
    shown = run.folder / "selection.json"
    if not shown.exists() or shown.read_text(encoding="utf-8") != text:
        if shown.exists():
            print("selection.json is not what the proxy wrote: put right (name shared_depth and head_weight in the "
                  "parameter file to choose yourself, or choose in the explorer of notebook 04)")
        write_text(shown, text)
    return json.loads(text)


def proposed(run: Run) -> dict:
    """The proxy's own choice, whatever was chosen by hand."""
    return json.loads(_proposal(run))


def _proposal(run: Run) -> str:
    return (require(run, "proxy").folder / "selection.json").read_text(encoding="utf-8")


def choose(run: Run, shared_depth: int, head_weight: float, form: str, damping: float) -> dict:
    """Choose by hand: selection.json then holds this cell until the proxy changes or `choose_proposed` is called."""
    at = load_summary(run).grid([shared_depth], [head_weight], form, damping, measured_bias(run)).iloc[0]
    used = 0.0 if form == "paper" else damping
    total = float(at["total"]) if math.isfinite(at["total"]) else None  # JSON has no infinity
    chosen = {"shared_depth": shared_depth, "head_weight": head_weight, "total": total, "form": form, "damping": used}
    chosen |= {"chosen_by": "hand", "proxy": require(run, "proxy").key}
    write_text(run.folder / "selection.json", json.dumps(chosen, indent=1))
    return chosen


def choose_proposed(run: Run) -> dict:
    """Back to the proxy's choice."""
    write_text(run.folder / "selection.json", _proposal(run))
    return selection(run)


def chosen_by_hand(run: Run) -> dict | None:
    """What selection.json holds if it is a choice by hand made from this very proxy; None for anything else."""
    try:
        chosen = json.loads((run.folder / "selection.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"shared_depth", "head_weight", "total", "form", "damping", "chosen_by", "proxy"}
    if not isinstance(chosen, dict) or chosen.keys() != keys or chosen["chosen_by"] != "hand":
        return None
    numbers = [chosen["head_weight"], chosen["damping"], 0 if chosen["total"] is None else chosen["total"]]
    if type(chosen["shared_depth"]) is not int or any(type(n) not in (int, float) or not math.isfinite(n) for n in numbers):
        return None
    fits = 0 <= chosen["shared_depth"] <= run.n_depths and 0 <= chosen["head_weight"] <= 1 and chosen["damping"] >= 0
    made_here = chosen["form"] in FORMS and chosen["proxy"] == run.artifact("proxy").key
    return chosen if fits and made_here else None


def origin(selected: dict) -> str:
    """Who chose, in words for a reader."""
    return {
        "hand": "chosen by hand in the explorer",
        "parameters": "named in the parameter file",
        "proxy": f"picked by the proxy, form “{selected['form']}”",
    }[selected["chosen_by"]]
