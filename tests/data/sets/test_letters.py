"""Letters from fonts made here: DejaVu's outlines, lean or wide, slanted, under other names, or with other letters in place."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Letters
from osdtw_lib.data import sets
from osdtw_lib.data.sets import letters as module
from osdtw_lib.data.sets import load_source
from osdtw_lib.errors import UserError
from osdtw_lib.longtail import exponential_class_counts

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib brings DejaVu, mlxtend brings matplotlib")
builder = pytest.importorskip("fontTools.fontBuilder", reason="fontTools, which makes the fonts, comes with matplotlib")

from fontTools.pens.recordingPen import DecomposingRecordingPen  # noqa: E402
from fontTools.pens.transformPen import TransformPen  # noqa: E402
from fontTools.pens.ttGlyphPen import TTGlyphPen  # noqa: E402
from fontTools.ttLib import TTFont  # noqa: E402

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FAMILIES = {  # face of DejaVu, width, slant
    f"{face} {width} {slant}": (face, width, slant)
    for face in ("Serif", "Sans", "SansMono-Bold")
    for width in (0.7, 1.0, 1.4)
    for slant in (0.0, 0.2)
}


@pytest.fixture(scope="session")
def outlines():
    return {face: TTFont(DEJAVU / f"DejaVu{face}.ttf") for face in ("Serif", "Sans", "SansMono-Bold")}


@pytest.fixture
def font(outlines):
    """font(path, family, face, width, slant, style, letters): a font file; letters "BCA..." draws B where A was asked for."""

    def write(path, family, face="Sans", width=1.0, slant=0.0, style="Regular", letters=module.NAMES):
        glyphs, called = outlines[face].getGlyphSet(), outlines[face].getBestCmap()
        names, drawn = (".notdef", *module.NAMES[: len(letters)]), {}
        for name, shown in zip(names, ("?", *letters)):
            whole, pen = DecomposingRecordingPen(glyphs), TTGlyphPen(None)
            glyphs[called[ord(shown)]].draw(whole)
            whole.replay(TransformPen(pen, (width, 0, slant, 1, 0, 0)))
            drawn[name] = pen.glyph()
        made = builder.FontBuilder(2048, isTTF=True)
        made.setupGlyphOrder(list(names))
        made.setupCharacterMap({ord(name): name for name in names[1:]})
        made.setupGlyf(drawn)
        made.setupHorizontalMetrics({name: (1400, 0) for name in names})
        made.setupHorizontalHeader(ascent=1900, descent=-500)
        made.setupNameTable({"familyName": family, "styleName": style})
        made.setupOS2()
        made.setupPost()
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path)

    return write


@pytest.fixture
def fonts(font, tmp_path):
    """A folder of 18 families."""
    for number, look in enumerate(FAMILIES.values()):
        font(tmp_path / "fonts" / f"{number}.ttf", f"F{number:02} Text", *look)
    return tmp_path / "fonts"


def data(folder, **changes):
    return Letters(
        **{"dataset": "letters", "fonts": str(folder), "largest": 10, "imbalance_ratio": 5.0, "test_per_class": 4} | changes
    )


def test_a_family_gives_one_picture_of_each_letter(fonts):
    made = load_source(data(fonts))
    pixels = made.images.pixels
    assert pixels.shape == (18 * 26, 28, 28, 1) and pixels.dtype == np.uint8
    assert made.class_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ") and made.images.labels.tolist() == 18 * list(range(26))
    assert "18 of 18 families" in made.notes[0]
    ink = pixels[..., 0] > 0
    sides = np.stack([ink.any(1).sum(1), ink.any(2).sum(1)])
    assert (sides.max(0) == module.BOX).all() and not ink[:, :2].any() and not ink[:, -2:].any()
    tall, wide = (sides[:, made.images.labels == module.NAMES.index(letter)].mean(1) for letter in "IM")
    assert tall[0] < tall[1] and wide[0] > tall[0]  # what is lean stays lean


def test_the_same_files_give_the_same_pictures_wherever_they_lie(fonts, tmp_path):
    for number, path in enumerate(sorted(fonts.iterdir(), reverse=True)):
        target = tmp_path / "moved" / f"package{number % 3}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert load_source(data(tmp_path / "moved")).fingerprint() == load_source(data(fonts)).fingerprint()


def test_what_shows_no_letters_or_those_of_another_is_left_out_and_counted(font, fonts):
    expected = load_source(data(fonts)).fingerprint()
    font(fonts / "few.ttf", "Few", letters=module.NAMES[:25])  # no Z
    font(fonts / "doubled.ttf", "Doubled", letters=(*module.NAMES[:25], "A"))
    font(fonts / "shifted.ttf", "Shifted", letters=(*module.NAMES[1:], "A"))  # B in place of A
    font(fonts / "greek.ttf", "Greek", letters="ABΧΔEΦΓHIϑKΛMNOΠΘPΣTYςΩΞΨZ")
    font(fonts / "renamed.ttf", "Zzz", *next(iter(FAMILIES.values())))
    font(fonts / "bolder.ttf", "F00 Other Cut", *FAMILIES["Sans 1.4 0.0"], style="Bold")  # another face of a family
    (fonts / "broken.otf").write_bytes(b"no font")
    (fonts / "notes.txt").write_text("no font either")
    made = load_source(data(fonts))
    assert made.fingerprint() == expected
    said = "18 of 23 families of fonts; left out: 2 without every letter, 2 with other pictures in place of letters, 1 all but"
    assert made.notes[0].startswith(said)


def test_no_family_both_trains_and_tests(fonts):
    made = load_source(data(fonts))
    train, test = sets.of(data(fonts)).split(made, data(fonts), seed=0)
    assert made.counts(train).tolist() == exponential_class_counts(10, 5, 26).tolist()
    assert made.counts(test).tolist() == 26 * [4] and len(set(test // 26)) == 4
    assert not set(train // 26) & set(test // 26) and len(set(train)) == len(train)
    again, _ = sets.of(data(fonts)).split(made, data(fonts), seed=0)
    other, held = sets.of(data(fonts)).split(made, data(fonts), seed=1)
    assert np.array_equal(train, again) and not np.array_equal(train, other) and set(held // 26) != set(test // 26)
    assert made.caption(train, test).endswith("26 classes (10 to 2 a class); test: 104 images held out")


@pytest.mark.parametrize("there", [True, False])
def test_too_few_families_are_one_line_that_says_how_to_get_them(fonts, tmp_path, there):
    folder = fonts if there else tmp_path / "nowhere"
    with pytest.raises(UserError) as refused:
        load_source(data(folder, largest=15))
    said = str(refused.value)
    assert f"{folder} has {18 if there else 0} families" in said and "19 are needed" in said
    assert said.endswith(module.INSTALL) and "\n" not in said
    assert (PROJECT / module.INSTALL.split()[-1]).is_file()


def test_the_parameter_file_asks_for_what_it_says():
    asked = load_config(PROJECT / "params" / "letters_lt.yaml").data
    assert module.published(asked)[:2] == (1551, 26) and asked == Letters(dataset="letters").filled


@pytest.mark.journey
def test_the_parameter_file_trains(fonts, train):
    small = "data.largest=10", "data.imbalance_ratio=5", "data.test_per_class=4"
    run = train("letters_lt", f"data.fonts={fonts}", *small, "model.image_size=28", "model.patch_size=14")
    assert len(run.train) == exponential_class_counts(10, 5, 26).sum() and len(run.test) == 104
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()
