"""The verdict's trainings, several at once, in an order in which what stands on another's network finds it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch

from .. import methods
from ..artifacts.files import make_folder
from ..backend.progress import clock
from ..config.schema import Config
from ..errors import DivergedError, UserError
from ..models.flops import training_flops
from ..stages import execute
from ..stages.pipeline import phase_flops
from ..stages.run import Run
from ..stages.side_by_side import everywhere, opened, places_of
from .cells import CHAIN, LIKELIHOODS, Cell, at_osdtws_budget, of_method, of_osdtw, trials, tuned
from .rows import AS_MANY, taken_from_elsewhere
from .seed_run import SeedRun, seed_run, seeds_of
from .tuning import TRIALS, tuning_run

DEAR = 1.25
Job = tuple[str, int, str]  # kind, seed, name: a row's, or of "chain" a likelihood's


def measure(run: Run) -> None:
    """Every cell that is not done: first the starts, then what stands on them, then what stands on that."""
    seeds, budgets = seeds_of(run), run.config.verdict.budgets
    without = left_out(run)
    kinds = {name: asked for name, asked in seed_run(run, seeds[0]).asked.items() if name not in without}
    if lacking := sorted(without - {name for name, *_ in taken_from_elsewhere(run)}):
        print(f"verdict: --quick leaves out {', '.join(lacking)}; without it they are trained too", flush=True)
    alone = [name for name, (kind, _) in kinds.items() if not kind.after]
    standing = [name for name, (kind, _) in kinds.items() if kind.after]
    likelihoods = [run.config.likelihood] if without else LIKELIHOODS
    chains = [("chain", seed, likelihood) for seed in seeds for likelihood in likelihoods]
    asked = [("epochs", "method", kinds), ("osdtw", "longer", kinds), ("tuned", "tuned", ("osdtw", *kinds))]
    jobs = [(kind, seed, name) for budget, kind, names in asked if budget in budgets for seed in seeds for name in names]
    to_do = _to_do(run, chains + jobs)
    needed = {seed for _, seed, _ in to_do}  # rows from elsewhere need no start
    hours = hours_of(run, to_do)
    if run.device.type == "cuda":
        torch.cuda.empty_cache()  # what was counted there was built there: its memory is the trainings'
    if hours >= 0.1:
        print(
            f"verdict: {len(to_do)} trainings and the starts they need: some {hours:.1f} hours at Stage 2's pace here", flush=True
        )
    everywhere(run, _start, [(s,) for s in seeds if s in needed and seed_run(run, s).artifact("start").why_not_done()])
    _all(run, chains + [("method", seed, name) for seed in seeds for name in alone])
    _on_their_ground(run, [("method", seed, name) for seed in seeds for name in standing])
    if "osdtw" in budgets:
        _all(run, [("longer", seed, name) for seed in seeds for name in alone])
        missing = _to_do(run, [("longer", seed, name) for seed in seeds for name in standing])
        everywhere(run, _longer, [(s, own) for s in seeds if (own := [name for _, seed, name in missing if seed == s])])
    if "tuned" in budgets:
        lacking = {name for _, _, name in _to_do(run, [("tuned", seed, name) for seed in seeds for name in ("osdtw", *kinds)])}
        everywhere(run, _start, [(None,)] if lacking and tuning_run(run).artifact("start").why_not_done() else [])
        numbers, seed = [f"trial{i}" for i in range(TRIALS)], run.config.seed
        _all(run, [(number, seed, name) for name in ("osdtw", *alone) if name in lacking for number in numbers])
        _all(run, [(number, seed, name) for name in standing if name in lacking for number in numbers])
        _all(run, [("tuned", seed, name) for seed in seeds for name in ("osdtw", *alone)])
        _on_their_ground(run, [("tuned", seed, name) for seed in seeds for name in standing])


@functools.lru_cache(maxsize=4)
def left_out(run: Run) -> frozenset[str]:
    """The rows that `quick` does not train, unless methods are named: methods, but for the run's own, that cost more than DEAR
    plain trainings, and OSDTW's by the other likelihood, another whole chain."""
    if not run.config.verdict.quick or run.config.verdict.methods is not None:
        return frozenset()
    own = seed_run(run, run.config.seed)
    plain = training_flops(run.config.model, len(run.class_names)) * len(run.train) * run.config.stage2.epochs
    dear = [name for name in own.asked if name not in run.asked and _flops_of(own, name) > DEAR * plain]
    others = [seed_run(run, run.config.seed, likelihood) for likelihood in LIKELIHOODS if likelihood != run.config.likelihood]
    many = [AS_MANY] if "ensemble" in dear and "osdtw" in run.config.verdict.budgets else []
    return frozenset((*dear, *many, *(cell.name for other in others for cell in of_osdtw(other))))


def hours_of(run: Run, jobs: list[Job]) -> float:
    """How long they will take, about: by the FLOPs of what is to be trained, the time Stage 2 took for its own here, and how
    many are trained at once. NaN where Stage 2 is not there."""
    stage2, own = run.artifact("stage2"), seed_run(run, run.config.seed)
    if stage2.why_not_done():
        return float("nan")
    costs = {name: _flops_of(own, name) for name in {name for _, _, name in jobs} if name in own.asked}
    done = [run.artifact(stage) for stage in CHAIN if stage != "start"]
    counted = {made.name: made.notes().get("flops", 0) for made in done if made.why_not_done() is None}
    osdtw, again = sum(counted.values()), counted.get("stage2", 0) + 2 * counted.get("stage3", 0)  # Eq. (18)'s, other refinement
    chains = {run.config.likelihood: osdtw + again}

    def of(kind: str, name: str) -> float:
        if kind == "longer":
            return osdtw * (2 if name == "ensemble" else 1)
        return costs.get(name, chains.get(name, osdtw))

    rows = sum(of(kind, name) for kind, _, name in jobs)
    tuned = TRIALS * sum(costs.get(name, osdtw) for name in {name for kind, _, name in jobs if kind == "tuned"})
    starts = len({seed for _, seed, _ in jobs} - {run.config.seed}) + bool(tuned)
    whole = rows + tuned + starts * run.artifact("start").notes().get("flops", 0)
    return whole / stage2.notes()["flops"] * stage2.seconds() / 3600 / _times_as_many(run, len(jobs))


def _times_as_many(run: Run, jobs: int) -> float:
    """How many times the cores or GPUs are at work that Stage 2 had."""
    places = places_of(run, jobs)
    if run.device.type == "cpu":
        return max(1, len(places)) if run.by_one_thread else 1  # else it had all cores
    return max(1, len(set(places)) / run.workers)


def _flops_of(run: SeedRun, name: str) -> float:
    """Of a method's training as `baselines` trains it, counted without training."""
    kind, parameters = run.asked[name]
    method = kind(run.problem, parameters)
    network = method.build()
    return sum(phase_flops(run, phase.prepared(network), phase)[1] for phase in method.phases())


def _on_their_ground(run: Run, jobs: list[Job]) -> None:
    """Jobs of methods that stand on another's network: first those networks, where rows from elsewhere have brought none."""
    missing = _to_do(run, jobs)
    stood_on = {(seed, seed_run(run, seed).asked[name][0].after) for _, seed, name in missing}
    lacking = [(s, name) for s, name in sorted(stood_on) if seed_run(run, s).artifact(f"baselines/{name}").why_not_done()]
    everywhere(run, _network, lacking)
    _all(run, missing)


def _all(run: Run, jobs: list[Job]) -> None:
    missing = _to_do(run, jobs)
    if missing:
        print(f"verdict: {len(missing)} trainings to do; how far each is: {run.folder / 'verdict'}/*/log.txt", flush=True)
        everywhere(run, _job, missing)


def _to_do(run: Run, jobs: list[Job]) -> list[Job]:
    given = taken_from_elsewhere(run).keys()

    def is_there(cell: Cell | None) -> bool:
        if cell is None:
            return False
        return cell.place in given or bool(cell.done() or cell.failed())

    brought = {("tuned", seed, name) for name, budget, seed in given if budget == "tuned"}  # their trials were made elsewhere too
    return [job for job in jobs if job not in brought and not all(map(is_there, _made_by(run, *job)))]


def _made_by(run: Run, kind: str, seed: int, name: str) -> list[Cell | None]:
    if kind == "chain":
        return of_osdtw(seed_run(run, seed, name))
    if kind.startswith("trial"):
        return [cell for cell in trials(run, name) if cell.budget == kind]
    own = seed_run(run, seed)
    if kind == "method":
        return [of_method(own, name, "epochs")]
    return at_osdtws_budget(own, name) if kind == "longer" else [tuned(own, name)]


def _start(config: Config, seed: int | None) -> None:
    """Of a seed; None: of the tuning."""
    run = tuning_run(opened(config)) if seed is None else seed_run(opened(config), seed)
    with _logged(run):
        for stage in ("split", "start"):
            execute(run, stage, quiet=True)
    of = "tuning" if seed is None else f"seed {seed}"
    print(f"verdict: {of}, its start: {clock(run.artifact('start').seconds())}", flush=True)


def _network(config: Config, seed: int, name: str) -> None:
    """That of a method others stand on. Where it diverges they will, each of which is noted then."""
    run = seed_run(opened(config), seed)
    with contextlib.suppress(DivergedError):
        for one in (*methods.stands_on(run.asked[name][0]), name):
            execute(run, f"baselines/{one}", quiet=True)


def _longer(config: Config, seed: int, names: list[str]) -> None:
    """One after the other: they share the network they stand on."""
    for name in names:
        _job(config, "longer", seed, name)


def _job(config: Config, kind: str, seed: int, name: str) -> None:
    run = opened(config)
    given = taken_from_elsewhere(run).keys()
    for cell in _made_by(run, kind, seed, name):
        if cell and cell.place not in given and not cell.done() and not cell.failed():
            budget = {"method": "", "chain": "", "longer": ", at OSDTW's compute"}.get(kind, f", {kind}")
            print(f"verdict: seed {seed}, {cell.title}{budget}: {_outcome(cell)}", flush=True)


def _outcome(cell: Cell) -> str:
    """What came of a cell, in words; one that cannot be made (a loss that is not finite) keeps no other from its row."""
    try:
        with _logged(cell.run):
            cell.make()
    except DivergedError as error:
        with contextlib.suppress(UserError):  # a later row of a chain has no key without the choice
            cell.note_failure(str(error))
        return f"failed: {error}"
    return f"{cell.result()['metrics']['class_mean']:.1f} %"


@contextlib.contextmanager
def _logged(run: SeedRun) -> Iterator[None]:
    """Inside, what is printed goes to the log of the seed: several at once would print over each other."""
    with open(make_folder(run.top) / "log.txt", "a", buffering=1, encoding="utf-8") as log, contextlib.redirect_stdout(log):
        yield
