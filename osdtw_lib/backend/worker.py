"""One of the processes that `distributed.launch` starts: run as a file, it ends with its parent from its first moment on.

Imports nothing large before it has seen to that: what a training needs takes seconds to import, and in that time the
parent may be killed.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

LOOK_SECONDS = 0.25  # between two looks whether the parent is there, where the system cannot tell
SIGNAL_AT_PARENTS_DEATH = 1  # Linux's PR_SET_PDEATHSIG


def end_with(parent: int) -> None:
    """This process ends at once when `parent`, the process id of the one that started it, does: also by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def command(work: tuple, folder: Path) -> tuple[str, ...]:
    """The command of a process that does work = (function, *arguments), both by reference where they are the library's."""
    file = folder / "work.pickle"
    file.write_bytes(pickle.dumps((sys.path, pickle.dumps(work))))
    return sys.executable, "-P", __file__, str(os.getpid()), str(file)


def _do(work: bytes) -> None:
    function, *arguments = pickle.loads(work)  # imports what the function needs
    function(*arguments)


def main(parent: int, file: Path) -> None:
    end_with(parent)
    sys.path[:], work = pickle.loads(file.read_bytes())
    from torch.distributed.elastic.multiprocessing.errors import record

    record(_do)(work)  # what it raises reaches the parent by a file


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
