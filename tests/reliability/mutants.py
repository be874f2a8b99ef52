"""Files as accidents and editors leave them: bytes, texts, values and lists changed, everything by a seeded generator."""

from __future__ import annotations

import copy
import json
import random

# what a person or a program may put where a number, a word or a list belongs
ODD = [
    0,
    1,
    -1,
    2,
    3,
    7,
    0.0,
    -0.0,
    0.5,
    1.0,
    1.5,
    -0.5,
    1e-320,
    1e-12,
    1e308,
    -1e308,
    10**12,
    10**20,
    2**31,
    2**63,
    2**64,
    float("nan"),
    float("inf"),
    True,
    False,
    None,
    "",
    " ",
    "x",
    "auto",
    "0",
    "1e-3",
    "nan",
    "no",
    "\u2028",
    "a\nb",
    "ä",
    "\ud83d\ude00",
    "x" * 300,
    "~nouser",
    "../..",
    "/dev/null",
    "a/b",
    "index.html",
    "cache",
    "CON",
    ".",
    "-",
    "a b",
    [],
    [1],
    [0, 0],
    [1, 1],
    [2, 1],
    [0.9, 0.99],
    [-1, 2],
    [None],
    [[1]],
    ["ce"],
    ["ce", "ce"],
    {},
    {"a": 1},
    [1e308, 1e308],
]
# one scalar, many ways to write it: YAML 1.1, YAML 1.2 and people differ here
SPELLINGS = [
    "010",
    "0o10",
    "0x1F",
    "0b11",
    "1:30",
    "1:30:45",
    "on",
    "off",
    "yes",
    "No",
    "~",
    "Null",
    "TRUE",
    "1_000",
    "1e3",
    "1E+2",
    ".5",
    "5.",
    "+1",
    "-0",
    "1e",
    "1.2.3",
    "2001-01-01",
    "2001-02-30",
    "''",
    '"3"',
    "'auto'",
    '!!int "3"',
    "!!str 3",
    "!!timestamp foo",
    "!!binary x",
    "!!python/name:os.system",
    "3 # three",
    "3# three",
    "3 #",
    "&a 3",
    "*a",
    "|\n    3",
    ">\n    3",
    "[1, 2",
    "{a: 1}",
    "? a",
    "- 1",
    "3\t",
    ".inf",
    "-.INF",
    ".nan",
    "0.1e1000",
    "1e-400",
    "9" * 400,
    "\u0663",
    "%d",
    "@x",
    "`x`",
    "a: b",
    '"\\x00"',
    '"\\ud800"',
]


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to three accidents in a file: bits, bytes, ranges, the end."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, end = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
        end = min(end, at + 64)
        kind = rng.randrange(8)
        if kind == 0 and changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        elif kind == 2:
            changed[at:end] = bytes(end - at)
        elif kind == 3:
            changed[at:at] = changed[at:end]
        elif kind == 4:
            del changed[at:end]
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            changed += rng.randbytes(rng.randrange(1, 40))
        else:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(changed)


def of_json(text: str, rng: random.Random) -> str:
    """One value of a JSON text is another, or gone, or twice there."""
    value = json.loads(text)
    places = list(_leaves(value))
    inside, key = rng.choice(places) if places else ([value], 0)
    if isinstance(inside, dict) and rng.random() < 0.2:
        del inside[key]
    else:
        inside[key] = copy.deepcopy(rng.choice([*ODD, *(other[k] for other, k in places)]))
    return json.dumps(value, indent=1)


def _leaves(value):
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _leaves(value[key])


def of_lines(text: str, rng: random.Random) -> str:
    """A line of a text gone, twice there, elsewhere, indented, ended or begun otherwise, with a character no one sees."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    line = lines[at]
    kind = rng.randrange(12)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), line)
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    elif kind == 3:
        lines[at] = rng.choice(("  ", "\t", " ", "\u00a0")) + line
    elif kind == 4:
        lines[at] = line + rng.choice((" ", "\t", "\r", " # a note", ",", ";", ":", "\u00a0", "\x00", "\u200b"))
    elif kind == 5:
        return "\ufeff" + text
    elif kind == 6:
        return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n")))
    elif kind == 7:
        place = rng.randrange(len(line) + 1)
        lines[at] = line[:place] + rng.choice("\"'\\{}[*&!%#\x00é\x1b") + line[place:]
    elif kind == 8 and line:
        place = rng.randrange(len(line))
        lines[at] = line[:place] + line[place + 1 :]
    elif kind == 9:
        lines.insert(at, rng.choice(("---", "...", "%YAML 1.1", "<<: {}", "# ", "", "[" * 3000, "a: &a [*a]", "- x")))
    elif kind == 10:
        lines[at] = line.swapcase()
    else:
        return text[: rng.randrange(len(text) + 1)]
    return "\n".join(lines)


def dotted(values: dict, prefix: str = "") -> list[str]:
    """Every key of nested dicts, sections too: "stage1", "stage1.epochs"."""
    return [
        k for key, v in values.items() for k in (prefix + key, *(dotted(v, f"{prefix}{key}.") if isinstance(v, dict) else ()))
    ]


def replaced(values: dict, key: str, value) -> dict:
    """The same with one dotted key set."""
    values = copy.deepcopy(values)
    *sections, last = key.split(".")
    inside = values
    for section in sections:
        inside = inside.setdefault(section, {})
    inside[last] = copy.deepcopy(value)
    return values


def near(value, rng: random.Random):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, max(0, value - 1), -value, value * 2, float(value), str(value), value + 0.5))
    if isinstance(value, float):
        return rng.choice((value * 2, value / 2, -value, 1 - value, int(value), str(value), value * 1e6))
    if isinstance(value, list):
        return rng.choice((value[:-1], value + value[:1], value[::-1], value[0] if value else 0, [value]))
    return rng.choice((f"{value}s", str(value).upper(), [value], f" {value} ", None))
