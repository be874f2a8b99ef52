"""The check prints a line a number, names the first link that is off, and leaves nothing behind."""

import pytest

from osdtw_lib.known_answers import check
from osdtw_lib.known_answers.bands import BANDS, Band

# seconds instead of a minute: the numbers are then far from the bands
TINY = ["model.width=16", "model.depth=2", "data.largest=40", "data.imbalance_ratio=10"]
TINY += [f"{stage}.{key}" for stage in ("stage0", "stage1", "stage2") for key in ("epochs=1", "warmup_epochs=0")]
TINY += ["stage3.epochs=1", "direct.images=20", "model.heads=2"]


@pytest.fixture(scope="module")
def tiny():
    """Every number of a run that is much too short."""
    return dict(check.numbers(TINY))


@pytest.mark.journey
def test_every_band_has_a_number_and_the_other_way_round(tiny):
    assert list(tiny) == list(BANDS)
    assert all(band.low <= band.high for band in BANDS.values())


def test_what_trained_too_little_is_off_and_the_first_link_is_named(tiny, monkeypatch, capsys):
    monkeypatch.setattr(check, "numbers", lambda overrides: iter(tiny.items()))
    assert check.check() == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BANDS) + 1 and "numbers are off, first of stage split (training images): look there" in lines[-1]
    assert lines[0].endswith("OFF")


def test_where_all_is_well_it_says_so(tiny, monkeypatch, capsys):
    monkeypatch.setattr(check, "numbers", lambda overrides: iter(tiny.items()))
    monkeypatch.setattr(check, "BANDS", {name: Band(BANDS[name].stage, "it", value, value) for name, value in tiny.items()})
    assert check.check() == 0
    assert f"all {len(tiny)} numbers are where they should be" in capsys.readouterr().out


def test_a_later_link_is_named_where_the_first_hold(tiny, monkeypatch, capsys):
    bands = {name: Band(BANDS[name].stage, name, value, value) for name, value in tiny.items()}
    bands["tail, trace"] = bands["tail, trace"]._replace(low=-2.0, high=-1.0)
    monkeypatch.setattr(check, "numbers", lambda overrides: iter(tiny.items()))
    monkeypatch.setattr(check, "BANDS", bands)
    assert check.check() == 1
    assert "1 of" in (last := capsys.readouterr().out.splitlines()[-1]) and "first of stage fisher (tail, trace)" in last
