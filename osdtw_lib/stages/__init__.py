"""What runs, in what order, from what? The stages of notebooks 01 to 10, a file each: what its key holds, what it makes.

CONTENTS is the table of contents: strings alone, so that `--help` waits for nothing. A notebook says
`execute(run, "stage1")`, the command line `python -m osdtw_lib stage1 params/NAME.yaml`; both find the result or make it.
Imports methods and below. Start with CONTENTS here, then pipeline.py, run.py, and stage1.py as an example of a stage.
"""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """A line of CONTENTS."""

    help: str
    notebook: str
    needs: tuple[str, ...] = ()  # what has to be there before it runs, but for what is made on the way
    row: str | None = None  # of runtime.csv
    together: bool = False  # several processes can share its work
    light: bool = False  # takes no time: made where it is needed, and what is made from it has its values in the key, not its key
    on_the_way: bool = False  # made where a later stage needs it, by whatever command asks for that one
    optional: bool = False  # hours on a large data set: only where asked for (--ablations, or --from 08)
    room: str = "stages"
    keeps: bool = False  # its folder holds results that know by themselves whether they are stale: redone, they are found again


CONTENTS = {
    "split": Stage("indices of training and test images", "01_data_split"),
    "start": Stage("Stage 0, or the given weights", "02_starting_point", ("split",), "start", together=True),
    "stage1": Stage("each task alone", "03_stage1_fisher", ("start",), "stage1", together=True),
    "fisher": Stage("diagonal empirical Fisher of both tasks", "03_stage1_fisher", ("stage1",), "fisher", together=True),
    "direct": Stage("the encoder bias measured by forward passes", "04_proxy_explorer", ("fisher",), "direct", together=True),
    "proxy": Stage("Eq. (18) over C and w_A", "04_proxy_explorer", ("fisher", "direct"), "search"),
    "selection": Stage("selection.json: the proxy's choice, or yours", "04_proxy_explorer", ("proxy",), light=True),
    "stage2": Stage("weighted joint training", "05_stage2_joint", ("selection", "start"), "stage2", together=True),
    "stage3": Stage(
        "assembly and refinement", "06_stage3_tables", ("selection", "stage1", "stage2"), "refinement", together=True
    ),
    "baselines": Stage("the methods compared, one training each", "06_stage3_tables", ("start",), "baselines", together=True),
    "scores": Stage(
        "every row's scores over the test images",
        "06_stage3_tables",
        ("selection", "stage1", "stage2", "stage3", "baselines"),
        together=True,
        on_the_way=True,
    ),
    "tables": Stage(
        "accuracy, confusion, run time",
        "06_stage3_tables",
        ("selection", "stage1", "fisher", "proxy", "stage2", "stage3", "baselines", "scores"),
        keeps=True,  # the verdict's and the ablation's tables lie there too
    ),
    "simulation": Stage("Theorem 1 against Monte Carlo", "07_theory"),
    "label_dependence": Stage("what head and tail labels say about each other here", "07_theory", ("fisher",)),
    "class_mix": Stage(
        "accuracy under other class mixes", "10_predictor", ("selection", "stage1", "stage2", "stage3", "baselines", "scores")
    ),
    "calibration": Stage(
        "whether probabilities are what they say, and prediction sets",
        "10_predictor",
        ("selection", "stage1", "stage2", "stage3", "baselines", "scores"),
    ),
    "pictures": Stage("every class in pictures: hits, misses, doubts", "10_predictor", ("split", "tables"), room="pictures"),
    "ablation": Stage(
        "the grid over C and w_A measured over seeds, and how each proxy ranks it", "08_ablations", optional=True, room="ablation"
    ),
    "verdict": Stage(
        "every method over seeds, with intervals, and who wins",
        "09_verdict",
        ("split",),
        optional=True,
        room="verdict",
        keeps=True,
    ),
}


def _books(optional: bool) -> dict[str, tuple[str, ...]]:
    books: dict[str, tuple[str, ...]] = {}
    for name, stage in CONTENTS.items():
        if stage.optional is optional:
            books[stage.notebook] = (*books.get(stage.notebook, ()), name)
    return books


# Which notebook makes which stages, in order; "to redo from 05" and "run 03 first" are read off here.
NOTEBOOKS, OPTIONAL = _books(False), _books(True)


def open_run(params_file):
    """Open a parameter file -> Run. Raises UserError, one line, where it is not valid."""
    from .run import open_run

    return open_run(params_file)


def execute(run, name: str, quiet: bool = False):
    """The results of a stage -> Artifact, found as they are or made here ("baselines": a list, one a method).

    quiet: nothing is said where they are found.
    """
    from .pipeline import execute

    return execute(run, name, quiet)
