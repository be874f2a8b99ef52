"""python -m osdtw_lib: the whole batch, one stage, a look at the data, what it will take, a prediction, or JupyterLab."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from .config.paths import PROJECT
from .errors import UserError

DEFAULT = str(PROJECT / "params" / "mnist_lt.yaml")
STAGES = {
    "split": "indices of training and test images (notebook 01)",
    "start": "Stage 0, or the given weights (02)",
    "stage1": "each task alone (03)",
    "fisher": "diagonal empirical Fisher of both tasks (03)",
    "direct": "the encoder bias measured by forward passes (04)",
    "proxy": "Eq. (18) over C and w_A, selection.json (04)",
    "stage2": "weighted joint training (05)",
    "stage3": "assembly and refinement (06)",
    "baselines": "one network with all classes, a method each (06)",
    "tables": "accuracy, confusion, run time (06)",
    "simulation": "Theorem 1 against Monte Carlo (07)",
    "label_dependence": "what head and tail labels say about each other here (07)",
    "ablation": "the grid over C and w_A measured over seeds, and how each proxy ranks it (08)",
}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr for bad input."""
    parser = _parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
    try:
        return chosen.function(chosen) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m osdtw_lib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    batch = commands.add_parser("run", help="all notebooks of one or more parameter files, then the report")
    batch.add_argument("params", nargs="*", default=[DEFAULT], help="parameter files (default: params/mnist_lt.yaml)")
    _add_set(batch)
    batch.add_argument("--from", dest="first", metavar="NN", help="redo from this notebook on, for instance 05")
    batch.add_argument("--ablations", action="store_true", help="notebook 08 too, which trains every cell of a grid")
    batch.set_defaults(function=_run)
    for name, text in STAGES.items():
        stage = commands.add_parser(name, help=text)
        stage.add_argument("params", nargs="?", default=DEFAULT, help="parameter file")
        _add_set(stage)
        stage.set_defaults(function=_stage, stage=name)
    look = commands.add_parser("inspect", help="counts, imbalance, odd and unreadable images of a data set, before training")
    look.add_argument("params", nargs="?", default=DEFAULT, help="parameter file")
    _add_set(look)
    look.set_defaults(function=_inspect)
    plan = commands.add_parser("plan", help="memory, batch split, images/s and hours a stage, before anything runs")
    plan.add_argument("params", nargs="?", default=DEFAULT, help="parameter file")
    _add_set(plan)
    plan.add_argument("--gpus", type=int, metavar="N", help="for so many GPUs (default: those here; 0: the CPU)")
    plan.add_argument("--gpu", default="H100", metavar="NAME", help="which kind, where none is here (default H100)")
    plan.add_argument("--mfu", type=float, default=0.4, metavar="SHARE", help="assumed where none is here (default 0.4)")
    plan.set_defaults(function=_plan)
    predict = commands.add_parser("predict", help="class and probability of image files")
    predict.add_argument("folder", help="a finished run, for instance outputs/mnist_lt, or its parameter file")
    predict.add_argument("images", nargs="+")
    predict.add_argument("--top", type=int, default=1, help="classes to print an image (default 1)")
    predict.set_defaults(function=_predict)
    lab = commands.add_parser("lab", help="JupyterLab on notebooks/")
    lab.add_argument("--reproducible", action="store_true", help="for parameter files with reproducible: true")
    lab.set_defaults(function=_lab)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="replace one key of the parameter file, for instance stage1.epochs=5")


def _run(chosen) -> int:
    from .report.notebooks import run_all

    return run_all(chosen.params, chosen.overrides, chosen.first, chosen.ablations)


def _config_to_compute(chosen):
    """The parameter file; where it is to be reproducible this process starts again first, before torch is loaded."""
    from .backend import reproducible
    from .config.load import load_config

    config = load_config(chosen.params, chosen.overrides)
    if config.reproducible and not reproducible.active():
        reproducible.restart(chosen.arguments)
    return config


def _stage(chosen) -> None:
    config = _config_to_compute(chosen)
    from .ablation.stage import ablation
    from .backend import distributed
    from .stages.all import STAGES
    from .stages.run import Run

    with distributed.group(config.device) if distributed.started_by_torchrun() else contextlib.nullcontext():
        (STAGES | {"ablation": ablation})[chosen.stage](Run(config))


def _inspect(chosen) -> None:
    from .config.load import load_config
    from .data.inspection import inspect

    for line in inspect(load_config(chosen.params, chosen.overrides)):
        print(line, flush=True)


def _plan(chosen) -> None:
    config = _config_to_compute(chosen)
    from .planning.plan import make_plan

    print(make_plan(config, chosen.gpus, chosen.gpu, chosen.mfu))


def _predict(chosen) -> None:
    from .inference.predictor import predict_files

    for file, name, probability in predict_files(chosen.folder, chosen.images, chosen.top):
        print(f"{file}\t{name}\t{probability:.4f}")


def _lab(chosen) -> None:
    from .backend import reproducible

    os.chdir(PROJECT)
    first = "/lab/tree/notebooks/01_data_split.ipynb"
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.root_dir=.", f"--LabApp.default_url={first}"]
    os.execve(sys.executable, command, os.environ | (reproducible.SETTINGS if chosen.reproducible else {}))


if __name__ == "__main__":
    sys.exit(main())
