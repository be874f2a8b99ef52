"""One image at a time: every format a folder of real images has, and every way a file can be broken."""

import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from osdtw_lib.data.image_files import ImageFiles, read_image
from osdtw_lib.errors import UserError

RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@pytest.fixture
def corners():
    """48 x 32: red above left, blue below right, black elsewhere."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[16:, 24:] = RED, BLUE
    return Image.fromarray(pixels)


def colours(image):
    """Above left, above right, below left, below right; a few levels of JPEG's rounding taken away."""
    width, height = image.size
    points = [(2, 2), (width - 3, 2), (2, height - 3), (width - 3, height - 3)]
    return [tuple(255 * round(v / 255) if min(v, 255 - v) < 6 else v for v in image.getpixel(p)) for p in points]


def test_a_colour_image_is_read_as_it_is(corners, tmp_path):
    corners.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(corners))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_is_turned_into_rgb(corners, tmp_path, suffix):
    corners.convert("CMYK").save(tmp_path / f"a.{suffix}")
    assert Image.open(tmp_path / f"a.{suffix}").mode == "CMYK"
    assert colours(read_image(tmp_path / f"a.{suffix}")) == [RED, BLACK, BLACK, BLUE]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_of_grey_are_scaled_to_8_not_cut_off(tmp_path, suffix):
    levels = np.array([[0, 257, 1000, 32768, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}", channels=1)
    assert np.asarray(image).tolist() == [[0, 1, 4, 128, 255]]
    assert np.asarray(read_image(tmp_path / f"a.{suffix}"))[0, :, 2].tolist() == [0, 1, 4, 128, 255]


def test_a_grey_image_has_three_equal_channels_or_one(tmp_path):
    Image.fromarray(np.array([[0, 100, 255]], np.uint8)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]
    assert np.asarray(read_image(tmp_path / "a.png", 1)).tolist() == [[0, 100, 255]]


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, 1], pixels[:, 2] = (255, 0, 0, 255), (0, 0, 0, 128)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    row = np.asarray(read_image(tmp_path / "a.png"))[0].tolist()
    assert row == [[255] * 3, [255, 0, 0], [127] * 3]
    assert np.asarray(read_image(tmp_path / "a.png", 1))[0, 0] == 255


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "LA", "1"])
def test_transparency_and_palettes_of_every_kind_are_read(corners, tmp_path, mode):
    options = {"RGB": {"transparency": BLACK}, "P": {"transparency": 0}, "L": {"transparency": 0}}.get(mode, {})
    corners.convert(mode).save(tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = colours(read_image(tmp_path / "a.png"))
    assert found[1] == found[2] == (WHITE if options else BLACK)
    assert mode not in ("RGB", "P") or (found[0], found[3]) == (RED, BLUE)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation, above", [(1, [RED, BLACK]), (3, [BLUE, BLACK]), (6, [BLACK, RED]), (8, [BLACK, BLUE])])
def test_an_image_is_turned_upright(corners, tmp_path, suffix, orientation, above):
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners.save(tmp_path / f"a.{suffix}", exif=exif)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.size == ((48, 32) if orientation in (1, 3) else (32, 48))
    assert colours(image)[:2] == above


def test_a_damaged_exif_block_beside_a_whole_image_does_no_harm(corners, tmp_path):
    corners.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*garbage\xff\xff")
    assert colours(read_image(tmp_path / "a.jpg")) == [RED, BLACK, BLACK, BLUE]


def test_a_large_jpeg_may_be_decoded_smaller_but_never_below_twice_the_side(picture, tmp_path):
    picture(tmp_path / "a.jpg", (800, 400))
    assert read_image(tmp_path / "a.jpg", side=50).size == (200, 100)
    assert read_image(tmp_path / "a.jpg", side=60).size == (400, 200)
    assert read_image(tmp_path / "a.jpg").size == (800, 400)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_file_cut_short_is_refused_by_its_name(tmp_path, kind, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(buffer.getvalue()[: int(kept * buffer.tell())])
    with pytest.raises(UserError) as refusal:
        read_image(path)
    assert str(path) in str(refusal.value) and "cannot be read" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("missing_bytes", [1, 2, 30])
@pytest.mark.parametrize("side", [None, 1])
def test_a_jpeg_without_its_last_bytes_is_noticed_also_at_an_eighth_of_its_size(picture, tmp_path, missing_bytes, side):
    picture(tmp_path / "a.jpg", (200, 150))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-missing_bytes])
    with pytest.raises(UserError, match="truncated"):
        read_image(tmp_path / "a.jpg", side=side)


PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@pytest.mark.parametrize("contents", [b"", b"<html>not found</html>", PNG + 40 * b"\xff", JPEG + 200 * b"\0"])
def test_what_is_no_image_is_refused(tmp_path, contents):
    (tmp_path / "a.jpg").write_bytes(contents)
    with pytest.raises(UserError, match="a.jpg: cannot be read as an image"):
        read_image(tmp_path / "a.jpg")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="gone.jpg: no such image"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("pixels", [np.ones((4, 4), np.float32), np.full((4, 4), 70000, np.int32)])
def test_pixels_without_a_known_range_are_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="a.tif: its pixels have 32 bits"):
        read_image(tmp_path / "a.tif")


@pytest.fixture
def three(tree):
    folder = tree({"cat": 3})
    paths = sorted(map(str, folder.rglob("*.jpg")))
    return ImageFiles(np.array(paths), np.array([0, 1, 2]), np.array(["0.jpg", "1.jpg", "2.jpg"]))


def changed(images, **fields):
    return ImageFiles(**{name: getattr(images, name) for name in ("paths", "labels", "names", "channels")} | fields)


def test_a_fingerprint_is_of_names_contents_and_labels(three):
    first = three.fingerprint()
    assert changed(three).fingerprint() == first
    assert changed(three, labels=np.array([0, 1, 1])).fingerprint() != first
    assert changed(three, names=np.array(["0.jpg", "1.jpg", "x.jpg"])).fingerprint() != first
    with open(three.paths[1], "ab") as file:
        file.write(b"x")
    assert changed(three).fingerprint() != first


def test_a_fingerprint_counts_a_missing_file_and_decodes_none(three, monkeypatch):
    def opened(*_):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", opened)
    first = three.fingerprint()
    monkeypatch.undo()
    os.unlink(three.paths[0])
    assert changed(three).fingerprint() != first and changed(three).sizes[0] == -1


def test_a_fingerprint_does_not_depend_on_where_the_images_lie(three, tmp_path):
    first, moved = three.fingerprint(), tmp_path / "elsewhere"
    (tmp_path / "own").rename(moved)
    paths = np.array([p.replace(str(tmp_path / "own"), str(moved)) for p in three.paths])
    assert changed(three, paths=paths).fingerprint() == first


def test_a_subset_reads_its_own_files(three):
    chosen = three.subset(np.array([2, 0]))
    assert len(chosen) == 2 and chosen.labels.tolist() == [2, 0]
    assert np.array_equal(np.asarray(chosen.read(0)), np.asarray(read_image(three.paths[2])))
