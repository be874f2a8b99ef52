"""Which methods are compared? One file each, which says its title, its source, its network, its losses and its scores.

A file here is a method that `baselines` in a parameter file may name; so is a file of your own, by its path. osdtw.py holds
what the paper trains in its stages. Imports training and below, and no method another. Start with _base.py and ce.py.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.paths import PROJECT
from ..errors import UserError

if TYPE_CHECKING:
    from ._base import Method

OSDTW = "osdtw"  # rows with stages of their own: no baseline
PRIORS = ("training", "balanced", "adjusted")  # for which class shares a row's scores stand: _base.py
ASKED_OF_A_METHOD = ("title", "source", "prior", "Parameters", "build", "phases", "scores")


def names() -> list[str]:
    """The methods that lie here, by name; nothing is imported."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in found if not name.startswith("_") and name != OSDTW]


def load(name: str) -> type[Method]:
    """The class of a method: `name` of a file here, or the path of a .py file (a relative one counts from the project).

    Raises UserError, one line, for a name there is not, a file that cannot be imported, and one that lacks what is asked.
    """
    if not name.endswith(".py"):
        if name not in names():
            near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'" if near else f"there are {', '.join(names())}"
            raise UserError(f"baselines: no method '{name}'; {hint}, or give the path of a .py file")
        return _checked(importlib.import_module(f".{name}", __package__), name)
    file = PROJECT / Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"baselines: {file}: no such file")
    if file.stem in (*names(), "stage1", "stage2") or file.stem.startswith(OSDTW) or not file.stem.isidentifier():
        raise UserError(f"baselines: {file}: a method is called as its file, and '{file.stem}' is taken or no name; rename it")
    spec = importlib.util.spec_from_file_location(f"method_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations that are strings are looked up there
    try:
        code = file.read_bytes()
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a file of somebody's raises
        del sys.modules[spec.name]
        raise UserError(f"baselines: {file} cannot be imported: {type(error).__name__}: {error}") from None
    return _checked(module, file.stem, file, code)


def asked(config) -> dict[str, tuple]:
    """{name: (class, its parameters)} of the methods a parameter file's `baselines` names, in order; one that starts from
    another's network brings that one along, before it.

    Raises UserError, one line: `load`'s, and for parameters that a method does not have.
    """
    from ..config.load import read_section

    found: dict[str, tuple] = {}
    for name, values in config.baselines.items():
        method = load(name)
        for below in stands_on(method):
            found.setdefault(below, (load(below), None))
        if found.get(method.name, (None, None))[1] is not None:
            raise UserError(f"baselines: two methods are called '{method.name}'; rename a file")
        found[method.name] = method, read_section(method.Parameters, values, f"baselines.{method.name}")
    return {name: (method, values or method.Parameters()) for name, (method, values) in found.items()}


def stands_on(method: type[Method]) -> tuple[str, ...]:
    """The methods whose networks it starts from, one upon the other, the lowest first. Raises UserError where that has no end."""
    found: list[str] = []
    while method.after:
        if method.after in (*found, method.name):
            raise UserError(f"baselines: '{method.after}' starts from a network that starts from its own")
        found.insert(0, method.after)
        method = load(method.after)
    return tuple(found)


def _checked(module, name: str, file: Path | None = None, code: bytes = b"") -> type[Method]:
    """The module's METHOD, if it has all that a method is asked for; it learns its name, its file and what stands in that."""
    where = file or f"methods/{name}.py"
    method = getattr(module, "METHOD", None)
    if not isinstance(method, type):
        raise UserError(f"{where}: METHOD is missing: end the file with METHOD = the class of the method")
    missing = [what for what in ASKED_OF_A_METHOD if not getattr(method, what, None) or what in _left_open(method)]
    missing += sorted(_left_open(method) - set(missing))  # what the class it is made from leaves to it, as `loss`
    if missing:
        raise UserError(f"{where}: METHOD {method.__name__} has no {', '.join(missing)}; methods/_base.py says what each is")
    if isinstance(method.prior, str) and method.prior not in PRIORS:
        raise UserError(f"{where}: METHOD {method.__name__} has the prior '{method.prior}'; it is one of {', '.join(PRIORS)}")
    method.name, method.file, method.code = name, file, code
    return method


def _left_open(method) -> frozenset:
    return getattr(method, "__abstractmethods__", frozenset())
