"""How many threads, and how they wait for each other: both have to stand before torch is loaded, which reads them once.

Torch's wheels for Linux bring GNU's OpenMP (libgomp). Its threads spin some 3 ms for the next piece of work. Beside other
processes that stalls them all: who spins holds the core that the one waited for needs, and training falls to a seventieth
of its speed. OMP_WAIT_POLICY=PASSIVE sleeps at once, which is best on a busy machine and costs a tenth on an idle one.
A short spin bridges most gaps between two operations and gives the core away soon: benchmarks/busy.py measures all three.
A cgroup's quota of processor time (containers, Slurm) is a limit that OpenMP does not see; the affinity it does see.

Imports torch only where its threads are counted out. What the user has set stays, and processes started from here inherit it all.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

AT_ONCE = "OSDTW_AT_ONCE"  # the variable with how many processes like this one work on this machine beside each other
SPINS = "3000"  # some 30 microseconds; libgomp's own: 300000


def prepare() -> None:
    """Set the variables that OpenMP reads when torch is first imported, where the user has not."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
    if cores() < _affinity():  # else OpenMP counts right by itself, also in a process that is later bound to fewer
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def allowed() -> int:
    """Threads that may work here: OMP_NUM_THREADS, where it is set, else `cores()`."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return max(1, int(said)) if said.isdecimal() else cores()


def at_once() -> int:
    """How many processes like this one work here side by side, each on jobs of its own; those of one training are not counted."""
    said = os.environ.get(AT_ONCE, "")
    return max(1, int(said)) if said.isdecimal() else 1


@contextlib.contextmanager
def one(wanted: bool = True) -> Iterator[None]:
    """Inside, torch works by one thread, where that is wanted."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may really use: of its affinity, and no more than whole ones of its quota; at least 1.

    A thread beyond the quota would only make all of them stop until the next period. root: where /proc and /sys are.
    """
    return max(1, math.floor(min(quota(root), _affinity())))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that this process's cgroups, version 1 or 2, allow it; infinity where nothing limits it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # no Linux
        return math.inf
    allowed, mounts = [math.inf], root / "sys/fs/cgroup"
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        parts = Path(group.lstrip("/")).parts
        if controllers and "cpu" not in controllers.split(","):
            continue
        for base in {mounts / controllers, mounts / "cpu"} if controllers else {mounts}:
            # a group above it limits it as well; inside a container the names of its own may not be there
            allowed += [_allowed(base.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return min(allowed)


def _allowed(group: Path) -> float:
    """The quota of one cgroup's folder by its period; infinity where it has none."""
    try:
        if (group / "cpu.max").exists():  # version 2: "150000 100000", or "max 100000"
            time, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            time, period = ((group / f"cpu.cfs_{what}_us").read_text(encoding="utf-8") for what in ("quota", "period"))
        share = float(time) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return share if share > 0 else math.inf  # -1: no limit
