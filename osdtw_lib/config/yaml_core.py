"""YAML 1.2's core schema, read and written: `010` is ten, `on` and `1:30` are text, nothing but values is built.

Without tags, merge keys and dates. An alias stands for what it names, as long as the whole stays small.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import yaml

from ..errors import UserError

MOST_VALUES, MOST_LEVELS = 10_000, 20  # of one file, aliases written out
_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
_TAGS = {None: [(f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{form})\Z")) for name, form in _SCALARS.items()]}


class _Loader(yaml.SafeLoader):
    """A key given twice is an error, and so are a tag, and what is nested or multiplied without end."""

    yaml_implicit_resolvers = _TAGS

    def compose_node(self, parent, index):
        event = self.peek_event()
        if getattr(event, "tag", None):
            raise _error(f"a value has no tag, got {event.tag.replace('tag:yaml.org,2002:', '!!')}", event)
        return super().compose_node(parent, index)

    def get_single_node(self):
        root = super().get_single_node()
        pending, seen = [(root, 1)] if root else [], 0
        while pending:
            node, level = pending.pop()
            seen += 1
            if level > MOST_LEVELS or seen > MOST_VALUES:
                raise _error(f"more than {MOST_LEVELS} levels or {MOST_VALUES:,} values, aliases written out", node)
            inner = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
            pending += [] if isinstance(node, yaml.ScalarNode) else [(n, level + 1) for n in inner]
        return root

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is a word", key)
            if key.value in seen:
                raise _error(f"key '{key.value}' given twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _integer(_, node) -> int:
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would take for anything but text."""

    yaml_implicit_resolvers = yaml.SafeDumper.yaml_implicit_resolvers | _TAGS


def parse(text: str, where: str, comments: bool = True) -> Any:
    """The value a YAML text holds. Without comments, a text that goes on behind its value is itself the value.

    Raises UserError, one line that begins with `where`.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not comments and text[node.end_mark.index if node else 0 :].strip():
            return text.strip()
        return loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid YAML: more than {MOST_LEVELS} levels") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def dump(values: dict) -> str:
    """values as YAML that `parse` reads back as they are."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _error(problem: str, at) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
