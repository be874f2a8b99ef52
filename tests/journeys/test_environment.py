"""The shell scripts on a copy of the project that nothing is installed for, with no network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = ["run_all.sh", "run_tests.sh", ".environment.sh", "pyproject.toml", "constraints.txt", "osdtw_lib"]


@pytest.fixture
def tree(project, tmp_path):
    """A copy of the project; the running Python imports the original, so the copy counts as not installed."""
    copy = tmp_path / "copy of the project"  # with blanks: paths must be quoted
    copy.mkdir()
    for name in FILES:
        put = shutil.copytree if (project / name).is_dir() else shutil.copy2
        put(project / name, copy / name)
    return copy


def shell(tree, *command, **changes):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
    return subprocess.run(command, cwd="/", env=environment | changes, capture_output=True, text=True, timeout=120)


def contents(tree):
    return sorted(p.relative_to(tree) for p in tree.rglob("*") if "__pycache__" not in p.parts)


def pretend_installed(tree):
    """A .venv as a finished installation leaves it: this Python, importing the copy."""
    binary = tree / ".venv" / "bin" / "python"
    binary.parent.mkdir(parents=True)
    binary.write_text(f'#!/bin/sh\nPYTHONPATH="{tree}" exec "{sys.executable}" "$@"\n')
    binary.chmod(0o755)
    mark = shell(tree, "bash", "-c", f'cat "{tree}/pyproject.toml" "{tree}/constraints.txt" | cksum').stdout
    (tree / ".venv" / ".installed").write_text(mark)
    return binary


def stand_in(binary, pattern, action):
    """The pretended python does this instead where its arguments match."""
    first, rest = binary.read_text().split("\n", 1)
    binary.write_text(f'{first}\ncase "$*" in {pattern}) {action};; esac\n{rest}')


def chosen_python(tree):
    return shell(tree, "bash", "-c", f'. "{tree}/.environment.sh" && echo "PYTHON=$PYTHON"')


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_shown_without_installing(tree, script, flag):
    before = contents(tree)
    done = shell(tree, tree / script, flag)
    assert done.returncode == 0 and done.stdout.startswith("usage:") and done.stderr == ""
    assert contents(tree) == before


def test_help_tells_every_option(tree):
    text = shell(tree, tree / "run_all.sh", "--help").stdout
    assert all(
        option in text for option in ("--set", "--from", "--lab", "--gpus-per-run", "--help", "PARAMS.yaml", "Exit status")
    )


@pytest.mark.parametrize("broken", ["constraints.txt that does not parse", "a package nobody has"])
def test_a_failed_installation_says_what_failed_and_leaves_nothing(tree, broken):
    if broken.startswith("constraints"):
        (tree / "constraints.txt").write_text("torch === = 1\n")
    before = contents(tree)
    done = shell(tree, tree / "run_all.sh")
    assert done.returncode == 2 and "ERROR" in done.stderr and "the installation failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tree) == before


def test_a_half_made_environment_is_not_believed(tree):
    pretend_installed(tree)
    (tree / ".venv" / ".installed").unlink()
    assert chosen_python(tree).returncode == 2
    assert not (tree / ".venv").exists()


def test_an_installed_environment_is_used_and_not_installed_again(tree):
    binary = pretend_installed(tree)
    done = chosen_python(tree)
    assert done.returncode == 0 and done.stdout == f"PYTHON={binary}\n", done.stderr


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(tree, file):
    pretend_installed(tree)
    (tree / file).write_text((tree / file).read_text() + "\n# another\n")
    for _ in range(2):  # no network, say: what was there stays, and the next try is one again
        done = chosen_python(tree)
        assert "setting up .venv" in done.stdout and done.returncode == 2 and (tree / ".venv" / "bin" / "python").exists()
        assert "the environment that was there stays" in done.stderr


def test_a_checkout_reached_through_a_link_finds_its_environment(tree, tmp_path):
    binary = pretend_installed(tree)
    (tmp_path / "link").symlink_to(tree)
    done = chosen_python(tmp_path / "link")
    assert done.returncode == 0 and done.stdout == f"PYTHON={binary.resolve()}\n", done.stderr


def test_an_environment_whose_python_is_gone_is_made_anew(tree):
    pretend_installed(tree).unlink()
    assert "setting up .venv" in chosen_python(tree).stdout


def test_the_active_environment_is_used_where_it_has_the_project(project):
    done = chosen_python(project)
    assert done.returncode == 0 and Path(done.stdout.strip().removeprefix("PYTHON=")).parent == Path(sys.executable).parent


def test_an_old_python_is_told_and_nothing_is_made(tree, tmp_path):
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.9.2";; *) exit 1;; esac\n')
    old.chmod(0o755)
    before = contents(tree)
    done = shell(tree, tree / "run_tests.sh", PATH=f"{old.parent}:/usr/bin:/bin")
    assert done.returncode == 2 and "3.11 or newer is needed, found: Python 3.9.2" in done.stderr
    assert contents(tree) == before


def test_arguments_reach_the_batch_as_they_are(tree):
    binary = pretend_installed(tree)
    stand_in(binary, "*osdtw_lib*", 'printf "%s|" "$@"; exit 7')
    done = shell(tree, tree / "run_all.sh", "--set", "name=a b", "--from", "05", "params/with blank.yaml")
    assert done.stdout == "-m|osdtw_lib|run|--set|name=a b|--from|05|params/with blank.yaml|" and done.returncode == 7


def test_the_tests_ask_for_pytest_where_it_is_missing(tree):
    binary = pretend_installed(tree)
    stand_in(binary, '*"import pytest, xdist"*', "exit 1")
    done = shell(tree, tree / "run_tests.sh")
    assert done.returncode == 2 and "pytest" in done.stderr and done.stderr.count("\n") == 1


def test_two_commands_do_not_set_up_at_once(tree):
    """The second waits for a process that lives, and takes over from one that was killed."""
    held = tree / ".venv.lock"
    held.mkdir()
    (held / "pid").write_text(str(os.getpid()))
    with pytest.raises(subprocess.TimeoutExpired) as waited:
        subprocess.run(["bash", tree / "run_tests.sh"], cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=3)
    assert b"waits for another command that sets up .venv" in waited.value.stdout and not (tree / ".venv").exists()
    (held / "pid").write_text("999999999")
    os.utime(held, (0, 0))
    stale = shell(tree, "bash", "-c", f'. "{tree}/.environment.sh"', PATH="/usr/bin:/bin", PIP_NO_INDEX="1")
    assert stale.returncode == 2 and "waits" not in stale.stdout and not held.exists()  # it goes on, to fail without an index
    pretend_installed(tree)
    held.mkdir()  # whatever holds it: what is set up needs none
    assert "PYTHON=" in chosen_python(tree).stdout and held.exists()
