"""Reading a parameter file: YAML, the keys replaced by --set, and every error as one line a user can act on.

A key that does not exist is an error that names the nearest one that does.
"""

from __future__ import annotations

import difflib
import re
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..errors import UserError
from .schema import DATASETS, Config, Section
from .seal import require_whole, sealed
from .yaml_core import dump, parse

MOST_SHOWN = 80  # characters of a value that is refused


def load_config(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Config:
    """Read and check a parameter file.

    overrides: "key.subkey=value" strings, as given to --set; values are YAML, but a ` #` in one begins no comment.
    Raises UserError, one line, for anything that is not a valid parameter file.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file{_nearest_file(Path(path).expanduser())}") from None
    except (OSError, RuntimeError, ValueError) as error:  # too long a name; ~nobody; no text in UTF-8, or NUL in the name
        raise UserError(f"{path}: cannot be read as a parameter file: {error}") from None
    require_whole(text, path)
    values = parse(text, str(path))
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path}: is empty or no list of `key: value` lines; start from params/mnist_lt.yaml")
    for override in overrides:
        _override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None


def read_section(kind: type[Section], values: dict, where: str) -> Section:
    """Values of a section that stands outside Config. Raises UserError, one line, that names the nearest key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error, _known_keys(kind))}") from None


def dump_config(config: Config) -> str:
    """The whole parameter file, defaults included, as YAML, with a checksum that `load_config` compares."""
    return sealed(dump(config.model_dump(mode="json")))


def _override(values: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: write --set key=value, for instance --set stage1.epochs=5")
    *sections, last = key.strip().split(".")
    known = _known_keys()
    if ".".join((*sections, last)) not in known:
        raise UserError(f"--set {override}: unknown key '{key.strip()}'{_nearest(key.strip(), known)}")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, dict) else {}  # a copy: an alias would change with it
        values = values[section]
    values[last] = parse(value, f"--set {override}", comments=False)


def _known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for kind in _sections(field.annotation):
            keys += [key for key in _known_keys(kind, f"{prefix}{name}.") if key not in keys]
    return keys


def _sections(annotation) -> list[type[Section]]:
    """The sections a field may hold: one, or as many as its union has."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]


def _nearest(word: str, known: list[str]) -> str:
    # the same last word: put in the wrong section, or without its section
    found = [key for key in known if key.split(".")[-1] == word.split(".")[-1]]
    found.sort(key=lambda key: -difflib.SequenceMatcher(None, key, word).ratio())
    found = found or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    some = f"{', '.join(known[:12]) or 'none'}{' ...' if len(known) > 12 else ''}"
    return f"; did you mean '{found[0]}'?" if found else f"; known keys: {some}"


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist either)"
    files = sorted(file.name for file in path.parent.glob("*.yaml"))
    found = difflib.get_close_matches(path.name, files, n=1)
    return f"; did you mean {path.parent / found[0]}?" if found else f"; {path.parent} has: {', '.join(files) or 'none'}"


def _explain(error: ValidationError, known: list[str] | None = None) -> str:
    """The first problem of a pydantic error, in one line a user can act on; a misspelt key before what it leaves unset."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    known, location = known if known is not None else _known_keys(), list(first["loc"])
    if location[:1] == ["data"] and len(location) > 1:  # the kind of data set stands in the location: not a key
        dataset = location.pop(1)
        own = [f"data.{name}" for name in DATASETS[dataset].model_fields]
        known = own if first["type"] == "extra_forbidden" else known
    # keep only names of keys: a union adds the names of its members to the location
    key = ".".join(str(part) for part in location if isinstance(part, int) or re.fullmatch(r"[a-z_0-9]+", str(part)))
    while key and "." in key and first["type"] not in ("extra_forbidden", "missing") and key not in known:
        if re.search(r"\.\d+$", key):
            break
        key = key.rpartition(".")[0]
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(key, known)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    if first["type"] == "union_tag_not_found":
        return f"key 'data.dataset' is missing; known: {', '.join(DATASETS)}"
    if first["type"] == "union_tag_invalid":
        return f"data.dataset: unknown data set; known: {', '.join(DATASETS)}, got {_short(first['ctx']['tag'])}"
    message = first["msg"].removeprefix("Value error, ")
    problems = len(error.errors())
    more = f" (and {problems - 1} more)" if len({e["loc"][0] for e in error.errors() if e["loc"]}) > 1 else ""
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return f"{key + ': ' if key else ''}{message}{more}"
    return f"{key + ': ' if key else ''}{message}, got {_short(first['input'])}{more}" if key else message + more


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ..."
