"""Kernels forked from a process that has imported: as fresh as any other, and gone when they should be."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from ended_processes import still_alive
from nbclient.exceptions import DeadKernelError

from osdtw_lib.report.kernels import ForkedKernels, Kernels

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")]
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
    code = "import multiprocessing; print(multiprocessing.get_start_method(allow_none=True))"
    assert said_by(tmp_path, code) == "None", "as in any other kernel"


@pytest.mark.parametrize("kind", [Kernels, ForkedKernels])
def test_what_a_kernels_processes_print_is_said_once(kind, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # where it stands ipykernel leaves stdout alone
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(6 * 7)']).returncode"
    done = papermill.execute_notebook(
        book(tmp_path, child), None, **FORKED | {"kernel_manager_class": kind}, stdout_file=sys.stdout
    )
    assert [one.text for one in done.cells[-1].outputs if one.output_type == "stream"] == ["42\n"]
    assert capfd.readouterr().out.split("\n").count("42") == 1


def test_a_killed_kernel_is_a_dead_one(tmp_path):
    with pytest.raises(DeadKernelError):
        papermill.execute_notebook(book(tmp_path, "import os; os.kill(os.getpid(), 9)"), None, **FORKED)


SCRIPT = """
import papermill
from osdtw_lib.report.kernels import ForkedKernels
if __name__ == "__main__":
    done = papermill.execute_notebook({path!r}, None, **{options}, kernel_manager_class=ForkedKernels)
    print(done.cells[-1].outputs[0].text)
"""


def script(folder, cell):
    """The command of a process that runs a notebook of one cell."""
    options = {"kernel_name": "python3", "progress_bar": False}
    (folder / "script.py").write_text(SCRIPT.format(path=book(folder, cell), options=options))
    return [sys.executable, str(folder / "script.py")]


def test_where_nothing_can_be_forked_a_kernel_is_started_the_usual_way(tmp_path):
    """As where the folder of temporary files has too long a path for a socket."""
    temporary = tmp_path / ("long" * 30)
    temporary.mkdir()
    command, environment = script(tmp_path, "import sys; print('timm' in sys.modules)"), os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["False"], done.stderr


def test_it_ends_with_the_process_that_started_it(tmp_path):
    file = str(tmp_path / "pid")
    cell = f"import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    started = subprocess.Popen(script(tmp_path, cell))
    deadline = time.monotonic() + 90
    while not (os.path.exists(file) and open(file).read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    pid = int(open(file).read())
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not still_alive([pid], 90)
