"""outputs/NAME/params.yaml: what was damaged or edited after it was written is not used by mistake."""

import random

import pytest

from osdtw_lib.config.load import dump_config, load_config
from osdtw_lib.errors import UserError


@pytest.fixture
def copy(params, tmp_path):
    config = load_config(params())
    path = tmp_path / "params.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    return path, config


def test_the_copy_reads_back_as_the_same(copy):
    assert load_config(copy[0]) == copy[1]


def test_no_damage_makes_it_another_run(copy):
    """Every region turned and cut: refused in one line, or the same parameters."""
    path, config = copy
    whole, chance, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        place, raw = chance.randrange(len(whole)), bytearray(whole)
        raw[place] ^= 1 << chance.randrange(8)
        for damaged in (bytes(raw), whole[:place]):
            path.write_bytes(damaged)
            try:
                assert load_config(path) == config
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 350


def test_an_edit_is_said_and_a_copy_without_its_first_line_is_free(copy):
    path, config = copy
    path.write_text(path.read_text().replace(f"seed: {config.seed}", "seed: 17"))
    with pytest.raises(UserError, match="params.yaml: was changed after it was written.*delete its first line"):
        load_config(path)
    path.write_text(path.read_text().partition("\n")[2])
    assert load_config(path).seed == 17
