"""Kernels forked from a process that has imported: as fresh as any other, and gone when they should be."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from nbclient.exceptions import DeadKernelError

from osdtw_lib.report.kernels import ForkedKernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
FORKED = {"kernel_name": "python3", "kernel_manager_class": ForkedKernels, "progress_bar": False}


def book(folder, *cells):
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=spec)
    nbformat.write(written, folder / "book.ipynb")
    return str(folder / "book.ipynb")


def said_by(folder, *cells):
    """What the last cell prints, of a notebook run in a forked kernel."""
    done = papermill.execute_notebook(book(folder, *cells), None, cwd=str(folder), **FORKED)
    return done.cells[-1].outputs[0].text.strip()


def test_a_kernel_has_what_notebooks_import_and_nothing_of_another_one(tmp_path, monkeypatch):
    imported = said_by(tmp_path, "import sys; there = 'timm' in sys.modules", "print(there, 'plotly.io' in sys.modules)")
    assert imported == "True True"
    monkeypatch.setenv("OSDTW_TEST", "seen")
    ask = "print('there' in globals(), os.environ['OSDTW_TEST'], os.getcwd(), os.getpid())"
    own = said_by(tmp_path, "import os", ask).split()
    assert own[:3] == ["False", "seen", str(tmp_path)] and int(own[3]) != os.getpid()


def test_a_kernel_may_start_processes_of_its_own(tmp_path):
    pool = "with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.apply(os.getpid) != os.getpid())"
    assert said_by(tmp_path, "import multiprocessing, os", pool) == "True"


def test_a_killed_kernel_is_a_dead_one(tmp_path):
    with pytest.raises(DeadKernelError):
        papermill.execute_notebook(book(tmp_path, "import os; os.kill(os.getpid(), 9)"), None, **FORKED)


def test_it_ends_with_the_process_that_started_it(tmp_path):
    path = book(tmp_path, f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    code = f"import papermill\nfrom osdtw_lib.report.kernels import ForkedKernels\nif __name__ == '__main__':\n    \
papermill.execute_notebook({path!r}, None, kernel_name='python3', kernel_manager_class=ForkedKernels, progress_bar=False)\n"
    (tmp_path / "script.py").write_text(code)
    started = subprocess.Popen([sys.executable, str(tmp_path / "script.py")])
    pid = soon(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert soon(lambda: not os.path.exists(f"/proc/{pid}"))


def soon(asked, seconds=90):
    """The answer, once it is one."""
    for _ in range(10 * seconds):
        if answer := asked():
            return answer
        time.sleep(0.1)
    return None
