"""One command at a time makes the results of a run: outputs/NAME/.lock, there while one does.

The system gives a file lock back when its holder ends, however it ends, so there is nothing to clear up after a kill.
(On a file system without locks what the file says of its holder must do: after a kill on another machine, delete it.)
What the holder starts (notebooks' kernels, processes that train together) finds the lock's token in its environment
and works under it. Reading takes no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..backend import distributed, worker
from ..errors import UserError

TOKEN = "OSDTW_LOCK"  # the variable with the token of the lock a process works under
LOOK = 0.5  # seconds between two looks for a lock that is waited for
_mine: set[Path] = set()  # locks of this process; it opens their files but once: on NFS closing a second one would unlock


@contextlib.contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Inside, no other process makes anything in `folder`, a run's; may be entered again by the one that is inside.

    In several processes all of them come here, and the first takes the lock for all. Where another holds it: waits,
    with `wait`; else raises UserError saying who. Where nothing can be written no lock is needed, and none is taken.
    """
    with contextlib.ExitStack() as stack:
        distributed.by_first(lambda: stack.enter_context(_taken(folder, wait)))
        token = distributed.from_first(os.environ.get(TOKEN))
        if distributed.rank() > 0:
            stack.enter_context(_known(token))
        yield


@contextlib.contextmanager
def _known(token: str | None) -> Iterator[None]:
    """Inside, the token stands in the environment, as where a process was started by the lock's holder."""
    before = os.environ.get(TOKEN)
    try:
        if token is not None:
            os.environ[TOKEN] = token
        yield
    finally:
        os.environ.pop(TOKEN, None)
        if before is not None:
            os.environ[TOKEN] = before


@contextlib.contextmanager
def _taken(folder: Path, wait: bool) -> Iterator[None]:
    path = folder.resolve() / ".lock"
    if path in _mine:
        yield
        return
    said = False
    while True:
        file = _opened(path)
        if file is None:
            yield
            return
        if _locked(file):
            if _still_there(file, path):
                break
            file.close()
            continue
        holder = _record(file)
        file.close()
        if holder and holder["token"] == os.environ.get(TOKEN):
            if holder["pid"] == os.getppid():
                worker.end_with(holder["pid"])
            yield
            return
        who = f"{folder} is in use by {_words(holder)}"
        if not wait:
            raise UserError(f"{who}; let it finish or stop it (a command with --wait waits)")
        if not said:
            print(f"{who}; waits", flush=True)
        said = True
        time.sleep(LOOK)
    token = uuid.uuid4().hex
    with file, _known(token):
        try:
            _write_record(file, token)
            _mine.add(path)
            yield
        finally:
            _mine.discard(path)
            with contextlib.suppress(OSError):
                path.unlink()  # before it is free: who gets it then sees that it is gone, and makes a new one
                path.parent.rmdir()  # where nothing was made


def _opened(path: Path):
    """The lock's file; None where this process cannot write to its folder anyway."""
    if not _writable(path.parent):
        return None
    for _ in range(100):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except (FileNotFoundError, FileExistsError) as error:  # its holder has just removed the empty folder; or none can be made
            failed = error
        except OSError as error:
            raise _unwritable(path, error) from None
    raise _unwritable(path, failed)


def _writable(folder: Path) -> bool:
    """Whether this process may write to a folder; one that its holder has just removed, or that is to be made, counts as such."""
    try:
        itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        return os.access(".", os.W_OK, dir_fd=itself)
    finally:
        os.close(itself)


def _unwritable(path: Path | str, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror}); make room or give rights, then run again")


def _locked(file) -> bool:
    """Whether this process has the lock now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: what the record says must do
        return not _lives(_record(file))
    return True


def _still_there(file, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lives(holder: dict) -> bool:
    """Whether the process of a record may still run; one of another machine cannot be asked, but Slurm has ended this very job's
    earlier turns."""
    job, turn = _turn()
    if job and holder.get("job") == job and holder.get("turn", 0) < turn:
        return False
    if holder.get("host") != socket.gethostname():
        return bool(holder)
    return lives(holder["pid"])


def lives(process: int) -> bool:
    """Whether a process of this machine may still run."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _turn() -> tuple[str, int]:
    """Slurm's job, if this is one, and how often it has been queued again."""
    again = os.environ.get("SLURM_RESTART_COUNT", "")
    return os.environ.get("SLURM_JOB_ID", ""), int(again) if again.isdecimal() else 0


def _write_record(file, token: str) -> None:
    kernel = any("ipykernel" in word for word in sys.orig_argv[:4])
    command = "a notebook" if kernel else " ".join(shlex.join(sys.orig_argv).split())[:200]
    holder = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "command": command}
    holder["job"], holder["turn"] = _turn()
    holder["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        file.seek(0)  # an earlier holder's record may have been read
        file.truncate(0)
        file.write(json.dumps(holder).encode())
    except OSError as error:
        raise _unwritable(file.name, error) from None


def _record(file) -> dict:
    """What the holder wrote; empty where it has not yet."""
    try:
        file.seek(0)
        holder = json.loads(file.read())
        return holder if isinstance(holder, dict) and holder.keys() >= {"token", "pid", "host", "command", "since"} else {}
    except (OSError, ValueError):
        return {}


def _words(holder: dict) -> str:
    if not holder:
        return "another process"
    return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
