"""The one module that knows torch.distributed: starting processes, who am I, and sums over all of them.

A stage runs in several processes in one of two ways: `launch` starts them on this machine, from a notebook or the
command line (torch elastic), or torchrun has started them, on one machine or many. Alone, nothing changes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ..errors import UserError
from ..legible import speak_legibly
from . import worker
from .threads import cores

PATIENCE = datetime.timedelta(hours=2)  # how long a process waits for the others, for instance while one writes
LISTENING = 0.25  # seconds between two looks for lines of the first process
REFUSED = "UserError: "


_apart = False


def _on() -> bool:
    return not _apart and dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if _on() else 0


def world_size() -> int:
    return dist.get_world_size() if _on() else 1


def local_world_size() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _on() else 1


def wait_for_all() -> None:
    if _on():
        dist.barrier()


def device() -> torch.device:
    """Where tensors must lie to be sent to the other processes."""
    return torch.device("cuda") if _on() and dist.get_backend() == "nccl" else torch.device("cpu")


def from_first(value):
    """The first process's value, in all of them."""
    if not _on():
        return value
    box = [value]
    dist.broadcast_object_list(box, device=device())
    return box[0]


def by_first(act: Callable[[], object]) -> None:
    """act(), in the first process alone. Where it raises UserError, that is raised there, and the others end without a word."""
    refused = None
    try:
        if rank() == 0:
            act()
    except UserError as error:
        refused = error
    if from_first(refused is not None):
        if refused is None:
            sys.exit(2)
        raise refused


def tensors_from_first(tensors: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
    """The first process's tensors, in all of them and on the CPU in the others; None where it has none."""
    if not _on():
        return tensors
    kinds = from_first(None if tensors is None else {name: (t.shape, t.dtype) for name, t in tensors.items()})
    if kinds is None:
        return None
    if rank() > 0:
        tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in kinds.items()}
    copy_from_first(tensors.values())
    return tensors


@torch.no_grad()
def copy_from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors in place by the first process's."""
    if not _on():
        return
    for tensor in tensors:
        there = tensor.to(device()).contiguous()
        dist.broadcast(there, 0)
        if rank() > 0:
            tensor.copy_(there)


def require_alike(what: str, tensors: Iterable[torch.Tensor]) -> None:
    """Raises UserError, in every process, unless all hold these tensors bit for bit alike. One message over the network."""
    if not _on():
        return
    sums = torch.stack([_bits(t.detach()).sum(dtype=torch.int64) for t in tensors]).to(device())
    least, most = sums.clone(), sums
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if not torch.equal(least, most):
        raise UserError(
            f"{what}: the processes' weights are no longer alike, so a sum was lost or a machine computes otherwise; "
            "run again to go on from the last checkpoint, on machines of one kind"
        )


def same_everywhere(value: str) -> bool:
    """Whether all processes have this value; the answer is the same in all of them."""
    differs = torch.tensor(float(from_first(value) != value), dtype=torch.float64)
    sum_over_processes([differs], 0)
    return not differs


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def sum_over_processes(tensors: list[torch.Tensor], count: int) -> int:
    """Sum tensors in place over all processes, and return the sum of `count`; alone, nothing changes."""
    if not _on():
        return count
    for tensor in tensors:
        there = tensor.to(device())
        dist.all_reduce(there)
        tensor.copy_(there)
    total = torch.tensor([count], dtype=torch.int64, device=device())
    dist.all_reduce(total)
    return int(total)


def start_sum(tensor: torch.Tensor) -> dist.Work:
    """Begin to sum a tensor in place over all processes, which ask for the same sums in the same order; done after wait()."""
    return dist.all_reduce(tensor, async_op=True)


def started_by_torchrun() -> bool:
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() and not dist.is_initialized()


@contextlib.contextmanager
def group(device: str):
    """This process as one of those that a launcher started; only the first prints. device: auto, cpu or cuda."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # else a shell may have started it, and a process may outlive that
        worker.end_with(os.getppid())
    on_gpu, here, together = device != "cpu" and torch.cuda.is_available(), *_place()
    torch.set_num_threads(max(1, torch.get_num_threads() // together))
    if on_gpu:
        if here >= torch.cuda.device_count():
            raise UserError(
                f"process {here + 1} of {together} on this machine has no GPU: it sees {torch.cuda.device_count()}; start as "
                "many as there are (--nproc-per-node), and let each process see all GPUs of its machine"
            )
        torch.cuda.set_device(here)
        if os.environ.get("OMP_NUM_THREADS") == "1":  # torchrun's own, where nothing is set: the search and the tables need more
            torch.set_num_threads(max(1, cores() // together))
    where = {"device_id": torch.device("cuda", here)} if on_gpu else {}  # else NCCL guesses at every barrier, and warns
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE, **where)
    try:
        with contextlib.ExitStack() as stack:
            if rank() > 0:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except BaseException:
        if not on_gpu:  # NCCL would wait for the other processes, and they wait for this one
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _place() -> tuple[int, int]:
    """Which of the processes on this machine this one is, and how many there are."""
    try:
        return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    except (KeyError, ValueError):
        raise UserError(
            "RANK and WORLD_SIZE are set, as for one of several processes, and LOCAL_RANK or LOCAL_WORLD_SIZE is not: "
            "start with torchrun, which sets them, or unset them to work in one process"
        ) from None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works as if it were the only one: what the first does for all."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def _work(function: Callable, device: str, arguments: tuple) -> None:
    speak_legibly("utf-8")  # into a log that the process that launched this one reads
    with group(device):
        function(*arguments)


def launch(function: Callable, arguments: tuple, processes: int, device: str) -> None:
    """function(*arguments) in `processes` processes of this machine; what the first prints is printed here.

    function is one of the library's (a cell's cannot be sent to another process). Interrupting stops them all; this
    process's signal handlers are as before afterwards. Raises UserError where one of them raised it, RuntimeError with
    the traceback of the first that failed otherwise.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    main_thread = threading.current_thread() is threading.main_thread()
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    for talker in ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn"):
        logging.getLogger(talker).setLevel(logging.CRITICAL)  # what went wrong is said once, below
    with tempfile.TemporaryDirectory(prefix="osdtw-") as folder, _printed_here(Path(folder)):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            max_restarts=0,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ALL),
        )
        try:
            program, *options = worker.command((_work, function, device, arguments), Path(folder))
            elastic_launch(config, program)(*options)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise _explained(error, Path(folder)) from None
        finally:
            if main_thread:
                for number, handler in handlers.items():
                    signal.signal(number, handler)


def _explained(error: ChildFailedError, folder: Path) -> Exception:
    """What went wrong first, as an exception of this process."""
    number, failure = error.get_first_failure()
    message, trace = failure.message, ""
    left = []
    for path in folder.glob("*/attempt_0/*/error.json"):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))["message"]
        except (OSError, ValueError):  # it was killed while it wrote
            continue
        # one that fails takes the connections of the others with it, and theirs may be noticed first
        lost = "onnection closed by peer" in said["message"]
        left.append((lost, float(said["extraInfo"]["timestamp"]), int(path.parent.name), said))
    if left and isinstance(failure.error_file_data, dict):
        *_, number, said = min(left, key=lambda entry: entry[:3])
        message, trace = said["message"], said["extraInfo"]["py_callstack"]
    if message.startswith(REFUSED):
        return UserError(message.removeprefix(REFUSED))
    print(trace or _tail(folder, number), file=sys.stderr, flush=True)
    return RuntimeError(f"process {number} of a stage failed: {message}; run again to go on from the last checkpoint")


def _tail(folder: Path, local_rank: int, lines: int = 20) -> str:
    files = sorted(folder.glob(f"*/attempt_0/{local_rank}/stderr.log"))
    return "\n".join(files[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if files else ""


@contextlib.contextmanager
def _printed_here(folder: Path):
    """While inside, lines that the first process writes to its log are printed by this one."""
    stop = threading.Event()

    def listen() -> None:
        read = 0
        while True:
            last_look = stop.wait(LISTENING)
            for log in folder.glob("*/attempt_0/0/stdout.log"):
                with log.open("rb") as file:
                    file.seek(read)
                    text = file.read()
                    whole = text if last_look else text[: text.rfind(b"\n") + 1]
                    read += len(whole)
                if whole:
                    print(whole.decode("utf-8", "replace"), end="", flush=True)
            if last_look:
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        stop.set()
        listener.join()
