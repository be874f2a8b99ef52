"""A second reading of a parameter file, by the letter of YAML 1.2's core schema: what an accepted file must have meant."""

from __future__ import annotations

import math
import re

import yaml

NULL, TRUE, FALSE = re.compile(r"~|null|Null|NULL|"), re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
INT, OCTAL, HEX = re.compile(r"[-+]?[0-9]+"), re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
INFINITE, NAN = re.compile(r"[-+]?\.(inf|Inf|INF)"), re.compile(r"\.(nan|NaN|NAN)")


class Unclear(Exception):
    """Something this reading does not cover: a tag, a merge."""


def read(text: str):
    """The value of a YAML text. Raises Unclear, and what PyYAML's parser raises."""
    if any(getattr(event, "tag", None) for event in yaml.parse(text, yaml.BaseLoader)):
        raise Unclear("a tag")
    return _value(yaml.compose(text, yaml.BaseLoader))


def _value(node):
    if isinstance(node, yaml.MappingNode):
        if any(key.value == "<<" for key, _ in node.value):
            raise Unclear("a merge")
        return {_value(key): _value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(value) for value in node.value]
    if node is None:
        return None
    return scalar(node.value) if node.style is None else node.value


def scalar(text: str):
    """A plain scalar."""
    for pattern, meaning in (
        (NULL, lambda t: None),
        (TRUE, lambda t: True),
        (FALSE, lambda t: False),
        (INT, int),
        (OCTAL, lambda t: int(t[2:], 8)),
        (HEX, lambda t: int(t[2:], 16)),
        (FLOAT, float),
        (INFINITE, lambda t: -math.inf if t[0] == "-" else math.inf),
        (NAN, lambda t: math.nan),
    ):
        if pattern.fullmatch(text):
            return meaning(text)
    return text


METHODS = (".baselines", ".verdict.methods")  # a name stands for itself without parameters


def differs(given, understood, where: str = "") -> str | None:
    """The first key of `given` that was understood as something else; None where there is none."""
    if where in METHODS and isinstance(given, (str, list, tuple)) and isinstance(understood, dict):
        names = [given] if isinstance(given, str) else given
        given = {name: {} for name in names} if all(isinstance(name, str) for name in names) else given
    if where in METHODS and isinstance(given, dict):
        given = {name: {} if values is None else values for name, values in given.items()}
    if isinstance(given, dict) and isinstance(understood, dict):
        found = (
            f"{where}.{key}: not there" if key not in understood else differs(value, understood[key], f"{where}.{key}")
            for key, value in given.items()
        )
        return next(filter(None, found), None)
    if isinstance(given, (list, tuple)) and isinstance(understood, (list, tuple)) and len(given) == len(understood):
        return next(filter(None, (differs(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(given, understood)))), None)
    number = isinstance(given, (int, float)) and isinstance(understood, (int, float)) and not isinstance(given, bool)
    fits = given == understood if number else type(given) is type(understood) and given == understood
    return None if fits else f"{where.lstrip('.')}: {given!r} was taken for {understood!r}"[:200]
