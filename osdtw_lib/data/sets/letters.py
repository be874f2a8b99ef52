"""Capital letters A to Z in many typefaces, drawn from the font files of a folder: the idea of notMNIST.

A family gives one picture of each letter, so a family either trains or tests, whatever the letter. Families are told
apart by the first word of their names: "Averia Sans" and "Averia Serif" are one.
"""

from __future__ import annotations

import dataclasses
import re
import string
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ...config.paths import PROJECT
from ...config.schema import Letters
from ...errors import UserError
from ..source import LabelledImages, Source
from ..splits import cut_to_profile, profile

NAMES = tuple(string.ascii_uppercase)
SIDE, BOX = 28, 22  # pixels: of a picture, and of the square that a letter fills
SIZE = 64  # of the type, before it is reduced
STRETCHED = 12  # pixels of a letter's sides, to tell what it looks like
PLAIN = ("regular", "book", "roman", "normal", "medium")  # styles, as a family's own face is called
SUFFIXES = (".ttf", ".otf")
ALIKE = 0.15  # root mean square over 26 pictures, ink being 1: Liberation Sans and Arimo differ by 0.09
INSTALL = "bash docs/examples/letters_fonts.sh"


def load(data: Letters, index: Path | None = None) -> Source:
    """Pictures uint8 (26 F, 28, 28, 1), those of a family one after another, F families in the order of their names.

    Left out, and counted in the notes, are families whose plainest face lacks a letter, shows something else in its place, or
    is all but another's. Raises UserError where fewer families are left than a class needs.
    """
    folder = PROJECT / Path(data.fonts).expanduser()
    faces = _plainest_faces(folder)
    drawn = [pictures for _, path in sorted(faces.items()) if (pictures := _alphabet(path)) is not None]
    pictures = np.array(drawn, np.uint8).reshape(-1, len(NAMES), SIDE, SIDE)
    whole = len(pictures)
    pictures = pictures[_show_letters(pictures)]
    legible = len(pictures)
    pictures = pictures[_first_of_their_kind(pictures)]
    wanted = data.largest + data.test_per_class
    if len(pictures) < wanted:
        raise UserError(
            f"data.fonts: {folder} has {len(pictures)} families of fonts with letters of their own, {wanted} are needed "
            f"(data.largest and data.test_per_class); on Debian or Ubuntu: {INSTALL}"
        )
    note = (
        f"{len(pictures)} of {len(faces)} families of fonts; left out: {len(faces) - whole} without every letter, "
        f"{whole - legible} with other pictures in place of letters, {legible - len(pictures)} all but the same as another"
    )
    labels = np.tile(np.arange(len(NAMES)), len(pictures))
    images = LabelledImages(pictures.reshape(-1, SIDE, SIDE, 1), labels)
    return Source(images, NAMES, "letters of many typefaces", notes=(note,))


def split(source: Source, data: Letters, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`test_per_class` families test, with all their letters; the others' are cut to the profile."""
    families = np.arange(len(source.images)).reshape(-1, len(NAMES))
    families = np.random.default_rng(seed).permutation(families)
    parts = {"test": families[: data.test_per_class].T.ravel(), "train": families[data.test_per_class :].ravel()}
    held = dataclasses.replace(source, parts=parts)
    return cut_to_profile(held, data.model_copy(update={"test_per_class": 0}), seed)


def published(data: Letters) -> tuple[int, int, str]:
    """From its profile: whatever the fonts, 26 classes cut to it."""
    counts = profile(data, len(NAMES))
    return int(counts.sum()), len(counts), "from its profile"


def _plainest_faces(folder: Path) -> dict[str, Path]:
    """{family: font file}, whatever the folders within: of a family's faces the plain one, else the first by style and name."""
    found: dict[str, list] = {}
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            try:
                family, style = (name or "" for name in _font(path).getname())
            except OSError:
                continue
            first = re.findall(r"[^\W_]+", f"{family} {path.stem}")[:1]
            found.setdefault("".join(first).casefold(), []).append((style.lower() not in PLAIN, style, family, path.name, path))
    return {family: min(faces)[-1] for family, faces in found.items()}


def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), SIZE, layout_engine=ImageFont.Layout.BASIC)


def _alphabet(path: Path) -> np.ndarray | None:
    """The 26 letters uint8 (26, 28, 28); None where one is missing, empty or another's double."""
    font = _font(path)
    try:
        letters = [_picture(font, letter) for letter in NAMES]
        missing = _picture(font, "\uffff")  # no character: drawn as what stands for those that are missing
    except OSError:
        return None
    drawn = {letter.tobytes() for letter in letters}
    if len(drawn) < len(NAMES) or not all(letter.any() for letter in letters) or missing.tobytes() in drawn:
        return None
    return np.stack(letters)


def _picture(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    """uint8 (28, 28), ink 255: the letter as large as its square allows, in the middle."""
    canvas = Image.new("L", (5 * SIZE, 5 * SIZE))
    ImageDraw.Draw(canvas).text((2 * SIZE, 1.5 * SIZE), letter, 255, font=font)
    picture = Image.new("L", (SIDE, SIDE))
    if box := canvas.getbbox():
        ink = ImageOps.contain(canvas.crop(box), (BOX, BOX))
        picture.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return np.asarray(picture)


def _show_letters(pictures: np.ndarray) -> np.ndarray:
    """bool (F,): for which families at least half of the letters look most like the mean of that letter over all families.

    Greek in place of Latin, which has 12 letters of the same form, symbols and figures do not; neither does type that is
    ornament first. Pictures are compared by correlation, each letter stretched over its square: lean and wide are alike.
    """
    stretched = [[_stretched(letter) for letter in letters] for letters in pictures]
    stretched = np.array(stretched).reshape(*pictures.shape[:2], STRETCHED**2)
    unit = stretched - stretched.mean(-1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True) + 1e-6
    nearest = (unit @ unit.sum(0).T).argmax(-1)
    return (nearest == np.arange(len(NAMES))).mean(-1) >= 0.5


def _stretched(letter: np.ndarray) -> np.ndarray:
    image = Image.fromarray(letter)
    return np.asarray(image.crop(image.getbbox()).resize((STRETCHED, STRETCHED), Image.Resampling.BOX), np.float64)


def _first_of_their_kind(pictures: np.ndarray) -> np.ndarray:
    """bool (F,): which families are not all but the same as one before them, under another name."""
    ink = pictures.reshape(len(pictures), len(NAMES) * SIDE**2) / 255
    squares = (ink**2).sum(1)
    distances = (squares[:, None] + squares - 2 * ink @ ink.T) / ink.shape[1]
    kept = np.ones(len(pictures), bool)
    for i in range(len(pictures)):
        kept[i] = not (distances[i, :i] < ALIKE**2)[kept[:i]].any()
    return kept
