"""YAML as its version 1.2 has it: what a value is, what is refused, and that what is written reads back as it was."""

import pytest

from osdtw_lib.config.load import dump_config, load_config
from osdtw_lib.config.yaml_core import dump, parse
from osdtw_lib.errors import UserError

VALUES = {
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "-7": -7,
    "+7": 7,
    "1e5": 1e5,
    "1E-3": 1e-3,
    ".5": 0.5,
    "5.": 5.0,
    "-.inf": float("-inf"),
    "on": "on",
    "off": "off",
    "yes": "yes",
    "No": "No",
    "y": "y",
    "true": True,
    "False": False,
    "TRUE": True,
    "~": None,
    "null": None,
    "Null": None,
    "": None,
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "1_000": "1_000",
    "0b1": "0b1",
    "2024-11-25": "2024-11-25",
    "2024-13-45": "2024-13-45",
    "=": "=",
    "'010'": "010",
    '"on"': "on",
    "[010, on]": [10, "on"],
    "nULL": "nULL",
    "0o8": "0o8",
}


@pytest.mark.parametrize("text, value", VALUES.items(), ids=map(repr, VALUES))
def test_a_value_is_what_the_core_schema_says(text, value):
    found = parse(text, "here")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", [t for t in VALUES if t and not t.startswith(("'", '"', "["))])
def test_text_is_written_so_that_it_stays_text(text):
    assert parse(dump({"name": text}), "here") == {"name": text}


@pytest.mark.parametrize("number", [1e-7, 1e22, 5e-324, 1.0, -0.5, 10**20, True, None])
def test_numbers_are_written_so_that_they_stay(number):
    found = parse(dump({"a": number}), "here")["a"]
    assert found == number and type(found) is type(number)


def test_a_name_that_looks_like_a_number_survives_the_copy_of_the_parameter_file(params, tmp_path):
    config = load_config(params(), ["name='1e5'", "outputs='0o17'"])
    (tmp_path / "copy.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "copy.yaml") == config


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
REFUSED = {
    "date of no form": ("seed: !!timestamp foo", "no tag, got !!timestamp"),
    "number of no form": ("seed: !!int foo", "no tag"),
    "truth of no form": ("seed: !!bool foo", "no tag"),
    "code": ("seed: !!python/object/apply:os.system [x]", "no tag"),
    "own tag": ("seed: !mine 3", "no tag, got !mine"),
    "set": ("seed: !!set {a, b}", "no tag"),
    "bytes": ("x: !!binary =", "no tag"),
    "brackets": ("seed: " + "[" * 3000 + "]" * 3000, "20 levels"),
    "a few brackets": ("seed: " + "[" * 21 + "]" * 21, "20 levels"),
    "braces": ("seed: " + "{a: " * 3000 + "}" * 3000, "20 levels"),
    "dashes": ("- " * 3000 + "x", "20 levels"),
    "alias bomb": (BOMB, "10,000 values"),
    "a list in itself": ("seed: &a [*a]", "levels"),
    "merge bomb": (BOMB.replace("[", "{<<: [").replace("]", "]}"), "values"),
    "NUL": ("name: a\0b", "#x0000"),
    "digits": ("seed: " + "9" * 5000, "digits"),
    "no anchor": ("seed: *a", "alias"),
    "twice": ("a: 1\na: 2", "line 2: not valid YAML: key 'a'"),
}


@pytest.mark.parametrize("text, words", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_one_short_line(text, words):
    with pytest.raises(UserError) as caught:
        parse(text, "here")
    line = str(caught.value)
    assert line.startswith("here") and words in line and "\n" not in line and len(line) < 200


def test_an_alias_stands_for_what_it_names_and_set_changes_one_of_them(params, tmp_path):
    path = params()
    path.write_text(path.read_text().replace("stage1:\n", "stage1: &s\n").replace("stage3:\n  epochs: 2\n", "stage3: *s\n"))
    assert load_config(path).stage3.epochs == 2 and load_config(path).stage3.warmup_epochs == 1
    changed = load_config(path, ["stage1.epochs=7"])
    assert (changed.stage1.epochs, changed.stage3.epochs) == (7, 2)


LITERAL = {
    "/data/my #1 set": "/data/my #1 set",
    "#1": "#1",
    "a # b # c": "a # b # c",
    " x #y ": "x #y",
    "a#b": "a#b",
    "'a #b'": "a #b",
}


@pytest.mark.parametrize("given, value", LITERAL.items(), ids=LITERAL)
def test_a_number_sign_in_set_begins_no_comment(params, given, value):
    assert load_config(params(), [f"outputs={given}"]).outputs == value


def test_what_follows_a_number_in_set_is_not_dropped(params, refused):
    assert "got '3 # mine'" in refused("split", params(), "--set", "seed=3 # mine")


def test_a_comment_in_the_file_is_one(params):
    path = params()
    path.write_text(path.read_text() + "seed: 3 # mine\n")
    assert load_config(path).seed == 3
