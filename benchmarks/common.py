"""What the benchmarks need: the line about the machine, tables, and peak memory in a process of its own."""

from __future__ import annotations

import argparse
import datetime
import gc
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch

OUT = Path(__file__).resolve().parents[1] / "outputs" / "benchmarks"
PACKAGES = ("torch", "timm", "numpy", "numba", "opacus", "backpack-for-pytorch", "opt_einsum")


def parser(description: str, words: str = "") -> argparse.ArgumentParser:
    """Of --quick and --out FOLDER; `words` stand at the end of its help."""
    made = argparse.ArgumentParser(
        description=description, epilog=words, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--quick", action="store_true", help="tiny sizes, a few seconds: shows that it runs, measures nothing")
    made.add_argument("--out", type=Path, default=OUT, help="folder for the CSV files (default: outputs/benchmarks)")
    return made


def arguments(description: str, **flags: str) -> argparse.Namespace:
    """--quick, --out FOLDER and the given flags {name: help}."""
    made = parser(description)
    for name, text in flags.items():
        made.add_argument(f"--{name}", action="store_true", help=text)
    return made.parse_args()


def machine() -> str:
    """Processor and its vector units, threads, memory, accelerator, versions and date, in two lines."""
    from osdtw_lib.inference.cost import processor  # late: not in a process whose memory is measured

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    vectors = torch.backends.cpu.get_cpu_capability()  # one name of processor covers several widths of its vector units
    parts = [f"{processor()} ({vectors})", f"{cores} cores", f"{torch.get_num_threads()} threads", f"{memory:.0f} GiB of memory"]
    parts.append(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    versions = [f"Python {platform.python_version()}"] + [f"{p} {_version(p)}" for p in PACKAGES if _version(p)]
    return f"Machine: {', '.join(parts)}\nVersions: {', '.join(versions)}; {datetime.date.today().isoformat()}"


def compiling(quick: bool, *modules: str) -> str:
    """Seconds until the compiled loops of these modules can be called, for the first process and for the next."""
    if quick:
        return "Compiled loops: how long they take to compile is not measured with --quick"
    code = (
        "import time, osdtw_lib.fisher, osdtw_lib.proxy; from osdtw_lib.backend.compiled import kernels; "
        "start = time.perf_counter();"
        f"there = all(map(kernels, {modules})); print(f'{{time.perf_counter() - start:.2g}} s' if there else 'not compiled')"
    )
    with tempfile.TemporaryDirectory() as folder:
        command, places = [sys.executable, "-c", code], os.environ | {"NUMBA_CACHE_DIR": folder}
        first, later = (subprocess.run(command, env=places, capture_output=True, text=True).stdout.strip() for _ in range(2))
    return f"Compiled loops, importing numba included: {first} at first, {later} in a later process; not part of the times below"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def show(title: str, table: pd.DataFrame) -> None:
    """The table in Markdown; what is not a number is left blank."""
    print(f"\n### {title}\n\n| {' | '.join(table.columns)} |\n|{' --- |' * len(table.columns)}")
    for row in table.itertuples(index=False):
        print(f"| {' | '.join(map(_cell, row))} |")
    print(flush=True)


def _cell(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if value != value else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def write(table: pd.DataFrame, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / name, index=False)
    print(f"wrote {folder / name}", flush=True)


IMPORTED_ONCE = {"osdtw_lib", "pandas", "plotly", "ipywidgets", "numba"}  # rather than by each of the processes


def in_own_process(function, *args):
    """function(*args) in a process that has done nothing before and gives freed memory back at once."""
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # read at a process's start
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.partition(".")[0] in IMPORTED_ONCE])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def held_at_most(run, device: str | torch.device = "cpu") -> int:
    """Most bytes held while run() works, beyond what was there before: on a GPU torch's, else this process's memory."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    forget_peak()
    before = resident_bytes()
    run()
    return peak_bytes() - before


def resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not say."""
    return _status("VmRSS")


def forget_peak() -> None:
    """From here on peak_bytes counts anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_bytes() -> int:
    """The most memory this process has held since forget_peak; 0 where the system does not say."""
    return _status("VmHWM")


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
