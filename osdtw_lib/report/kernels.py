"""Notebook kernels, and what runs beside them, that start in a moment: copies of a process that has imported what all import.

Importing PyTorch and timm takes seconds of a core, and a run has a kernel a notebook. So the first one starts a process that
imports and then only waits (multiprocessing's fork server); each kernel is a copy of it, which begins as any other does:
no variable, no random state, no file of another notebook. By then native libraries have read their environment, and a GPU must
not have been spoken to: runs with an environment of their own (`reproducible: true`) or on a GPU start kernels the usual way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

from jupyter_client.manager import AsyncKernelManager

IMPORTED = (  # what is not in it a notebook imports by itself
    "ipykernel.kernelapp",
    "osdtw_lib.explorer.widgets",
    "osdtw_lib.stages.pipeline",
    "osdtw_lib.stages.run",
    "plotly.io",
    "torch._dynamo",  # as the first optimizer does
)
LAUNCHER = "ipykernel_launcher"  # what the command of an ordinary kernel runs
CONTEXT = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None


class Kernels(AsyncKernelManager):
    """A kernel manager for papermill. What a kernel's own processes print reaches papermill as a cell's output, and would stand
    in the terminal once more: ipykernel copies it to where its own stdout was."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **settings) -> None:
        await super()._async_launch_kernel(kernel_cmd, **settings, stdout=subprocess.DEVNULL)


class ForkedKernels(Kernels):
    """Where a kernel cannot be forked it is started the usual way."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **settings) -> None:
        process = _forked_kernel(kernel_cmd, settings)
        if process is None:
            await super()._async_launch_kernel(kernel_cmd, **settings)
            return
        at = self.provisioner
        at.process, at.pid, at.pgid = _AsPopen(process), process.pid, process.pid
        self._reconcile_connection_info(at.connection_info)


def _forked_kernel(command: list[str], settings: dict) -> multiprocessing.process.BaseProcess | None:
    """The kernel's process; None where it is another Python's, or nothing can be forked here."""
    if command[0] != sys.executable or LAUNCHER not in command:
        return None
    return forked(_kernel, (command[command.index(LAUNCHER) + 1 :],), settings["env"], settings.get("cwd"))


def forked(function: Callable, arguments: tuple, environment: Mapping[str, str] = os.environ, folder: str | None = None):
    """function(*arguments) in a process that has imported everything (multiprocessing's) and ends with this one; None where
    nothing can be forked here."""
    if CONTEXT is None:
        return None
    CONTEXT.set_forkserver_preload(list(IMPORTED))
    needed = function, arguments, dict(environment), folder
    process = CONTEXT.Process(target=_begin, args=needed, daemon=True)  # daemon: it ends with this process
    try:
        process.start()
    except OSError:  # for instance no room for the fork server's socket, or a path to it that is too long
        return None
    return process


class _AsPopen:
    """A process of multiprocessing, as jupyter_client's provisioner asks a subprocess.Popen."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _begin(function: Callable, arguments: tuple, environment: dict[str, str], folder: str | None) -> None:
    """function(*arguments) as in a process that was started anew, in a session of its own as jupyter_client gives each kernel."""
    os.setsid()
    multiprocessing.current_process().daemon = False  # it may have processes of its own, started as anywhere else:
    multiprocessing.set_start_method(None, force=True)  # by a fork server each reader of images would import everything
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder or ".")
    function(*arguments)


def _kernel(arguments: list[str]) -> None:
    """Become a kernel."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # as Kernels does
    # ipykernel has read JPY_PARENT_PID when it was imported, before there was a kernel
    sys.argv = [LAUNCHER, *arguments, f"--IPKernelApp.parent_handle={os.getppid()}"]
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


def _end_with(parent) -> None:
    """worker.end_with watches the process above, which here is the fork server: it lives as long as a kernel does."""
    parent.join()
    os._exit(1)
