"""python -m osdtw_lib: the whole batch, one stage, a look at the data, what it will take, a prediction, an export, JupyterLab."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import warnings

from .config.paths import PROJECT
from .errors import UserError
from .legible import legible, speak_legibly
from .stages import CONTENTS

DEFAULT = str(PROJECT / "params" / "mnist_lt.yaml")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr for bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        speak_legibly()
        chosen = _parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
        return chosen.function(chosen) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("osdtw_lib"):
            raise
        print(f"error: this Python has no {error.name}; after ./run_all.sh: .venv/bin/python -m osdtw_lib ...", file=sys.stderr)
        return 2
    except BrokenPipeError:  # predict ... | head: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except BaseException as error:
        if not _interrupted(error):
            raise
        goes_on = "; the same command goes on from the last checkpoint" if {*arguments[:1]} & {"run", *CONTENTS} else ""
        print(f"interrupted{goes_on}", file=sys.stderr)
        return 130


def _interrupted(error: BaseException | None) -> bool:
    """Whether it is an interruption, or what a library's clearing up raised when one came in its midst."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    order = f"Stages in their order, each needs those before it: {', '.join(CONTENTS)}. run makes all, through the notebooks."
    parser = _Parser(prog="python -m osdtw_lib", description=__doc__, epilog=order)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    batch = commands.add_parser("run", help="all notebooks of one or more parameter files, then the report")
    batch.add_argument("params", nargs="*", default=[DEFAULT], help="parameter files (default: params/mnist_lt.yaml)")
    _add_set(batch)
    batch.add_argument("--from", dest="first", metavar="NN", help="redo from this notebook on, for instance 05")
    batch.add_argument("--ablations", action="store_true", help="notebook 08 too, which trains every cell of a grid")
    batch.add_argument("--verdict", action="store_true", help="notebook 09 too, which trains every method over seeds")
    batch.add_argument("--quick", action="store_true", help="the verdict over two seeds, without the rows that cost most")
    batch.add_argument("--budget", choices=["osdtw"], help="in the verdict also every method at OSDTW's compute (a night)")
    batch.add_argument(
        "--tuned", action="store_true", help="in the verdict also every method tuned by trials of its own (a night)"
    )
    batch.add_argument(
        "--with", nargs="+", action="extend", default=[], dest="others", metavar="ROW.json", help="rows made on another machine"
    )
    batch.add_argument(
        "--gpus-per-run",
        type=_count,
        metavar="N",
        help="several files at once, each on N GPUs (default where there are several of both: as many groups as files)",
    )
    _add_wait(batch)
    _add_verify(batch)
    batch.set_defaults(function=_run)
    for name, contents in CONTENTS.items():
        text = f"{contents.help} ({contents.notebook[:2]})"
        stage = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=order)
        stage.add_argument("params", nargs="?", default=DEFAULT, help="parameter file")
        _add_set(stage)
        _add_wait(stage)
        _add_verify(stage)
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
    plan.add_argument("--cores", type=_count, metavar="N", help="that read images (default: those here, or 12 a GPU)")
    plan.set_defaults(function=_plan)
    predict = commands.add_parser(
        "predict",
        help="class and probability of image files, a line each as it comes",
        epilog="A file that cannot be read is a line on stderr; the others are predicted all the same, and the exit status is 2.",
    )
    predict.add_argument("folder", help="a finished run, for instance outputs/mnist_lt, or its parameter file")
    predict.add_argument("images", nargs="+", help="image files, or folders: all images below them")
    predict.add_argument("--method", default="osdtw", metavar="NAME", help="a row of the accuracy table (default osdtw)")
    predict.add_argument("--top", type=_count, default=1, metavar="N", help="classes to print an image (default 1)")
    predict.add_argument(
        "--prior",
        metavar="MIX",
        help="the class mix to expect: uniform, training, estimate (from these images), or a CSV file class,share "
        "(default: what the row's training aims at, of OSDTW uniform)",
    )
    predict.add_argument("--output", metavar="FILE.csv", help="into this file instead, a file that cannot be read as a line too")
    predict.set_defaults(function=_predict)
    export = commands.add_parser(
        "export", help="weights, torch.export and ONNX programs, preprocessing, model card: a folder that needs nothing of this"
    )
    export.add_argument("run", help="a finished run, for instance outputs/mnist_lt, or its parameter file")
    export.add_argument("folder", help="what to write, a folder that is not there yet")
    export.add_argument("--method", default="osdtw", metavar="NAME", help="a row of the accuracy table (default osdtw)")
    export.set_defaults(function=_export)
    check = commands.add_parser("check", help="a small run on the digits, each stage's numbers against what they should be")
    _add_set(check)
    check.set_defaults(function=_check)
    lab = commands.add_parser("lab", help="JupyterLab on notebooks/")
    lab.add_argument("--reproducible", action="store_true", help="for parameter files with reproducible: true")
    lab.set_defaults(function=_lab)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="replace one key of the parameter file, for instance stage1.epochs=5",
    )


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="where another process works on this run, wait until it has ended")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify", action="store_true", help="read every image file again, whether or not its size or times have moved"
    )


def _run(chosen) -> int:
    from .report.notebooks import run_all

    swallowed = [name for name in chosen.others if name.endswith((".yaml", ".yml"))]
    if swallowed:
        raise UserError(f"--with {swallowed[0]}: is a parameter file; name parameter files before --with")
    if (chosen.quick or chosen.others or chosen.budget or chosen.tuned) and not chosen.verdict:
        raise UserError("--quick, --budget, --tuned and --with are of the verdict; add --verdict")
    overrides = chosen.overrides + (["verdict.quick=true"] if chosen.quick else [])
    if chosen.budget or chosen.tuned:
        budgets = ["epochs", *filter(None, [chosen.budget, "tuned" if chosen.tuned else None])]
        overrides += [f"verdict.budgets=[{', '.join(budgets)}]"]
    if chosen.others:
        _refuse_two_places(chosen.params, overrides)
        overrides += [f"verdict.others={_in_yaml(chosen.others)}"]
    optional = (["08"] if chosen.ablations else []) + (["09"] if chosen.verdict else [])
    return run_all(chosen.params, overrides, chosen.first, tuple(optional), chosen.wait, chosen.verify, chosen.gpus_per_run)


def _refuse_two_places(params: list[str], overrides: list[str]) -> None:
    """Raises UserError where verdict.others is said already, which --with would replace."""
    from .config.load import load_config

    for file in params:
        with contextlib.suppress(UserError):  # said where the file's turn comes
            if named := load_config(file, overrides).verdict.others:
                break
    else:
        return
    raise UserError(f"--with: {file} has verdict.others already, {', '.join(named)}; name all of them in one place")


def _in_yaml(texts: list[str]) -> str:
    """A list for --set: letters as they are, bytes of a path that are no UTF-8 escaped."""
    return re.sub(r"[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", json.dumps(texts, ensure_ascii=False))


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
    from .artifacts.lock import held
    from .backend import distributed
    from .stages import execute
    from .stages.run import Run

    with distributed.group(config.device) if distributed.started_by_torchrun() else contextlib.nullcontext():
        run = Run(config)
        with held(run.folder, chosen.wait):
            if chosen.verify:
                run.verify()
            execute(run, chosen.stage)


def _inspect(chosen) -> None:
    from .config.load import load_config
    from .data.inspection import inspect

    config = load_config(chosen.params, chosen.overrides)
    side = config.model.image_size
    if side is None:  # the architecture's, or the start's
        from .models.start_pixels import with_start_pixels
        from .models.vit import image_size, outline

        side = max(image_size(outline(with_start_pixels(config).model, 1)))
    for line in inspect(config, side):
        print(line, flush=True)


def _plan(chosen) -> None:
    config = _config_to_compute(chosen)
    from .planning.plan import make_plan

    print(make_plan(config, chosen.gpus, chosen.gpu, chosen.mfu, chosen.cores))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, got '{text}'")
    return int(text)


def _predict(chosen) -> None:
    from .inference.files import predict_files, save

    warnings.formatwarning = _in_a_line
    answers = predict_files(chosen.folder, chosen.images, chosen.top, chosen.method, chosen.prior, _say_mix)
    if chosen.output:
        good, bad = save(answers, chosen.output)
        print(f"{chosen.output}: {good:,} files predicted, {bad:,} that could not be read", file=sys.stderr, flush=True)
        if bad:
            raise UserError(f"{bad:,} of {good + bad:,} could not be read; the column error says why")
        return
    good = bad = 0
    for file, found in answers:
        if isinstance(found, UserError):
            bad += 1
            print(found, file=sys.stderr, flush=True)
            continue
        good += 1
        for name, probability in found:
            print(f"{legible(file)}\t{legible(name)}\t{probability:.4f}", flush=True)
    if bad:
        raise UserError(f"{bad:,} of {good + bad:,} could not be read, as said above; {good:,} were predicted")


def _in_a_line(message, *_) -> str:
    return f"warning: {message}\n"


def _say_mix(names, found) -> None:
    order = sorted(range(len(names)), key=lambda k: -found.shares[k])
    shown = [
        f"{names[k]} {100 * found.shares[k]:.1f} ± {100 * found.standard_error[k]:.1f}" for k in order[:10] if found.shares[k]
    ]
    more = f" and {len(names) - 10} more classes" if len(names) > 10 else ""
    print(f"estimated mix (% ± standard error): {', '.join(shown)}{more}", file=sys.stderr, flush=True)
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def _export(chosen) -> None:
    from .inference.export import export

    warnings.formatwarning = _in_a_line
    export(chosen.run, chosen.folder, chosen.method)


def _check(chosen) -> int:
    from .known_answers.check import check

    return check(chosen.overrides)


def _lab(chosen) -> None:
    from .backend import reproducible

    os.chdir(PROJECT)
    first = "/lab/tree/notebooks/01_data_split.ipynb"
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.root_dir=.", f"--LabApp.default_url={first}"]
    os.execve(sys.executable, command, os.environ | (reproducible.SETTINGS if chosen.reproducible else {}))


if __name__ == "__main__":
    sys.exit(main())
