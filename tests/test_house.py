"""The rooms of osdtw_lib: who may import whom, how long a file may be, what a room says of itself."""

import ast

import pytest

from osdtw_lib.config.paths import PROJECT

LIBRARY = PROJECT / "osdtw_lib"
# lowest first; a room imports lower floors only, and of its own floor only itself
FLOORS = (
    "legible",
    "errors longtail",
    "config backend",
    "artifacts",
    "data models fisher evaluation theory",
    "proxy training",
    "methods",
    "inference stages",
    "ablation planning verdict known_answers figures",
    "explorer",
    "report",
    "pictures",
    "__main__ __init__",
)
LEVEL = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
ONLY_IN = {"ipywidgets": "explorer", "papermill": "report", "nbconvert": "report", "pydantic": "config"}
FILES = sorted(LIBRARY.rglob("*.py"))


def name(file):
    return str(file.relative_to(LIBRARY))


def imported(file):
    """(node, parts below osdtw_lib or None, the whole name) of every import, wherever in the file it stands."""
    at = file.relative_to(LIBRARY).with_suffix("").parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = at[: len(at) - node.level]  # the folder the dots stand for
            for alias in node.names:
                target = tuple((node.module or "").split(".")) if node.module else ()
                inside = (*base, *target)
                file_of = LIBRARY.joinpath(*inside, alias.name)
                yield (
                    node,
                    (*inside, alias.name) if file_of.is_dir() or file_of.with_suffix(".py").exists() else inside,
                    alias.name,
                )
        elif isinstance(node, ast.ImportFrom):
            yield node, None, node.module
        elif isinstance(node, ast.Import):
            yield from ((node, None, alias.name) for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_room_imports_only_from_below(file):
    room = file.relative_to(LIBRARY).with_suffix("").parts[0]
    for node, inside, whole in imported(file):
        where = f"{name(file)}:{node.lineno}"
        if inside:
            assert inside[0] == room or LEVEL[inside[0]] < LEVEL[room], f"{where} imports {inside[0]}"
        elif whole.split(".")[0] in ONLY_IN:
            assert room == ONLY_IN[whole.split(".")[0]], f"{where} imports {whole}"
        elif whole.startswith("torch.distributed"):
            assert name(file) in ("backend/distributed.py", "backend/worker.py"), f"{where} imports {whole}"


def test_no_import_goes_in_a_circle():
    needs = {}
    for file in FILES:
        parts = file.relative_to(LIBRARY).with_suffix("").parts
        top = ast.parse(file.read_text(encoding="utf-8")).body
        lines = {node.lineno for node in top}
        inner = {inside for node, inside, _ in imported(file) if inside and node.lineno in lines}
        needs[parts[:-1] if parts[-1] == "__init__" else parts] = inner
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join(".".join(m) for m in (*path, module))
        if module not in done:
            for other in sorted(needs.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(needs):
        visit(module, ())


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_is_read_in_one_sitting(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("room", sorted({file.parent for file in FILES if file.parent != LIBRARY}), ids=name)
def test_a_room_says_what_it_holds(room):
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert said and "Start with" in said


@pytest.mark.parametrize("file", sorted((PROJECT / "tests").rglob("test_*.py")), ids=lambda file: file.name)
def test_tests_mirror_the_rooms(file):
    folder = file.relative_to(PROJECT / "tests").parent
    assert str(folder) in (".", "journeys", "browser", "reliability") or (LIBRARY / folder).is_dir(), f"{folder}: no such room"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_text_is_read_and_written_in_an_encoding_that_is_named(file):
    """What a locale would choose differs from machine to machine."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in ("read_text", "write_text"):
            assert "encoding" in [k.arg for k in node.keywords], f"{name(file)}:{node.lineno}"
