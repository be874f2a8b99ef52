"""Whether processes have ended; one that has may stay as a name until whoever inherited it asks."""

import time
from pathlib import Path


def still_alive(pids, seconds):
    """Those of the process ids that have not ended within so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
