"""How fast: training steps by the GPU's peak, the Fisher by a plain pass, the search by its aims."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from statistics import median

import fisher as fisher_benchmark
import proxy
import torch
import train
from peers import METHODS, OURS, PLAIN, plain

from osdtw_lib.backend.torch_compile import can_compile, compile_networks
from osdtw_lib.config import schema as cfg
from osdtw_lib.fisher.sums import add_squared_products
from osdtw_lib.models.flops import device_name, mfu as share_of_peak, training_flops
from osdtw_lib.planning.steps import seconds_of
from osdtw_lib.stages.run import Run
from osdtw_lib.training.loop import fit
from osdtw_lib.training.phase import Phase

from .correct import products, which_sums
from .pictures import opened
from .rows import Step

H100 = "H100"
PARTS = (64, 128, 256)
MFU, COMPILED_GAIN, GRAPHS = 0.45, 1.25, 1  # bars: on an H100; images/s by the eager ones; of a network
FISHER_TIME, FISHER_MEMORY, FISHER_RATE = 1.05, 1.2, 2000  # by a plain pass; images/s of one task on an H100
KERNEL = {torch.float32: None, torch.bfloat16: 250.0}  # TFLOP/s on an H100
SEARCH_SECONDS, ANSWER_MILLISECONDS = 0.3, 10.0


# training -------------------------------------------------------------------------------------------------------


def mfu(step: Step) -> None:
    sizes = (4,) if step.quick else PARTS
    shares = [synthetic(step, size, ("all",)) for size in sizes]
    synthetic(step, sizes[min(1, len(sizes) - 1)], ("head", "tail"))
    best = max((share for share in shares if share), default=float("nan"))
    step.add("synthetic, compiled, the best size: MFU", best, "of the peak", least=MFU, on=H100)
    for size in sizes:
        with step.attempt(f"decoded JPEGs in parts of {size}"):
            decoded(step, size)


def setup_of(step: Step, size: int) -> train.Setup:
    if step.quick:
        return dataclasses.replace(train.setups(True)[0], device=str(step.device), batch_size=size)
    return train.Setup(train.ON_GPU, cfg.Model(), 1000, size, warm_up=5, steps=20, rounds=1, device="cuda", precision="bf16")


def synthetic(step: Step, size: int, names: tuple[str, ...]) -> float | None:
    """Rows of one batch again and again, eager and compiled; returns the MFU of the compiled."""
    setup, rates, share = setup_of(step, size), {}, None
    kinds = {"eager": train.ours, "compiled": train.compiled} if setup.compile else {"eager": train.ours}
    torch.compiler.reset()
    for kind, method in kinds.items():
        what = f"synthetic, {len(names)} network{'s' * (len(names) > 1)}, parts of {size}, {kind}"
        with step.attempt(what):
            if kind == "compiled":
                can_compile(setup.device)  # its own small graph is none of the network's
            batches, before = setup.batches(), graphs()
            run = method(setup, setup.networks(names), batches)
            first = time.perf_counter()
            run()
            first = time.perf_counter() - first
            again = time.perf_counter()
            run()
            again = time.perf_counter() - again
            rates[kind] = size * setup.steps / batches.seconds
            share = share_of_peak(rates[kind], len(names) * training_flops(setup.model, setup.classes), device_name(step.device))
            step.add(f"{what}: rate", rates[kind], "images/s")
            if share:
                step.add(f"{what}: MFU", share, "of the peak")
            if kind == "compiled":
                step.add(f"{what}: compiling", first - again, "s")
                step.add(f"{what}: graphs a network", (graphs() - before) / len(names), "graphs", most=GRAPHS, on="")
                step.add(f"{what}: rate by the eager one", rates[kind] / rates["eager"], "times", least=COMPILED_GAIN, on=H100)
    return share if "compiled" in rates else None


def graphs() -> int:
    """Graphs compiled since the process began."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def decoded(step: Step, size: int) -> None:
    """One network from the cache, by the whole recipe; the last part of an epoch is a shorter one."""
    run = opened(step, "data.cache=true", f"recipe.batch_size={size}", "recipe.micro_batch=null", "recipe.drop_path=0.1")
    for compiled in (False, True) if setup_of(step, size).compile else (False,):
        what = f"decoded JPEGs, 1 network, parts of {size}, {'compiled' if compiled else 'eager'}"
        with step.attempt(what):
            torch.compiler.reset()
            before = graphs()
            rate = rate_of(step, run, compiled)
            share = share_of_peak(rate, training_flops(run.config.model, len(run.class_names)), device_name(step.device))
            step.add(f"{what}: rate", rate, "images/s")
            if share:
                step.add(f"{what}: MFU", share, "of the peak")
            if compiled:
                step.add(f"{what}: graphs with the shorter part", graphs() - before, "graphs", most=GRAPHS, on="")


def rate_of(step: Step, run: Run, compiled: bool) -> float:
    """Images a second after the first epoch, the wait for each of the next two epochs' first images included."""
    times: dict[int, float] = {}

    def note(number: int) -> None:
        if step.on_gpu:
            torch.cuda.synchronize()
        times[number] = time.perf_counter()

    batches = run.batches(run.train)
    watched = train.Watched(batches, lambda number: note(number) if number % len(batches) == 0 else None)
    networks = torch.nn.ModuleDict({"all": run.vit(len(run.class_names))})
    if compiled:
        compile_networks(networks)
    recipe = run.config.recipe.model_copy(update={"compile": compiled})
    with contextlib.redirect_stdout(io.StringIO()):
        fit(networks, Phase(cfg.Training(epochs=3), train.losses), watched, recipe, train.Nowhere(), 0, "acceptance")
    return 2 * len(batches.labels) / (times[3 * len(batches)] - times[len(batches)])


# Fisher ---------------------------------------------------------------------------------------------------------


def fisher(step: Step) -> None:
    for size in (2,) if step.quick else PARTS:
        with step.attempt(f"Fisher, batches of {size}"):
            passes(step, size)
    with step.attempt("kernel"):
        kernel(step)


def passes(step: Step, size: int) -> None:
    setup = dataclasses.replace(fisher_benchmark.setups(True)[1], device=str(step.device), batch_size=size, rounds=1)
    if not step.quick:
        vit_b = {"device": "cuda", "precision": "bf16"}
        setup = fisher_benchmark.Setup("ViT-B/16", cfg.Model(), 1000, size, n_batches=1024 // size, rounds=5, **vit_b)
    batches, few = setup.batches(), setup.batches(1)
    base = plain(setup.network(), setup.likelihood(), setup.precision)
    run = METHODS[OURS][0](setup.network(), setup.likelihood(), setup.precision)
    base(few), run(few)
    times, ratios = fisher_benchmark.in_turns(base, {OURS: run}, batches, setup.rounds)
    rates = [size * setup.n_batches / (seconds * by) for seconds, by in zip(times, ratios[OURS])]
    del base, run, batches, few
    what = f"Fisher of one task, {setup.precision}, batches of {size}"
    step.add(f"{what}: rate", median(rates), "images/s", least=FISHER_RATE, on=H100)
    step.add(f"{what}: time", median(ratios[OURS]), "plain passes", most=FISHER_TIME, on="")
    held = {method: fisher_benchmark.peak(setup, method) for method in (PLAIN, OURS)}
    step.add(f"{what}: memory beyond model and batches", held[OURS] / 1e9, "GB")
    step.add(f"{what}: memory", held[OURS] / held[PLAIN] if held[PLAIN] else 0.0, "plain passes", most=FISHER_MEMORY, on="")


def kernel(step: Step) -> None:
    """The largest layer's sums of squared products."""
    samples, tokens, outs, ins = (2, 9, 16, 24) if step.quick else (64, 197, 768, 3072)
    for dtype, bar in KERNEL.items():
        g, x = (torch.randn(samples, tokens, width, device=step.device).to(dtype) for width in (outs, ins))
        total = torch.zeros(outs, ins, device=step.device)
        seconds = seconds_of(lambda: add_squared_products(total, g, x, 1 << 28), step.device)  # noqa: B023, called here
        plainly = seconds_of(lambda: products(g, x), step.device)  # noqa: B023
        what = f"{which_sums(step)}, {str(dtype).removeprefix('torch.')}, {samples}x{tokens}x{outs}x{ins}"
        step.add(f"{what}: rate", 2e-12 * samples * tokens * outs * ins / seconds, "TFLOP/s", least=bar, on=H100)
        step.add(f"{what}: plain PyTorch by it", plainly / seconds, "times", least=1.0, on="")


# search ---------------------------------------------------------------------------------------------------------


def search(step: Step) -> None:
    """On the processor, as in a run; the bars are those of benchmarks/README.md."""
    model = proxy.VIT_B.model_copy(update={"image_size": 32, "heads": 2, "width": 16}) if step.quick else proxy.VIT_B
    with step.attempt("search"):
        numbers = proxy.statistics(model)
        for form in proxy.FORMS:
            proxy.search(numbers, 2, form)
            times = [proxy.timed(proxy.search, numbers, 11, form)[0] for _ in range(1 if step.quick else 5)]
            step.add(f"search, 13 depths by 11 weights, {form}", median(times), "s", most=SEARCH_SECONDS, on="")
        del numbers
    with step.attempt("explorer"):
        for row in proxy.sliders(model, 1 if step.quick else 20).itertuples():
            limit = None if "once" in row.what else ANSWER_MILLISECONDS
            step.add(f"explorer: {row.what}", row.milliseconds, "ms", most=limit, on="", note=row.note)
