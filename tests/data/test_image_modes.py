"""Every mode and every format that Pillow has: the right pixels in one channel and in three, or one clear line."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from osdtw_lib.config.load import load_config
from osdtw_lib.data.image_files import NO_PICTURES, converted, read_image, suffixes
from osdtw_lib.errors import UserError
from osdtw_lib.stages.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning")
Image.init()
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
MODES = (*GREY, "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
NO_RANGE = ("I", "F")
ROUNDING = {"LAB": 25, "YCbCr": 2}  # strong colours lie outside what 8 bits of L*a*b* keep
COLOURS = np.array([[(0, 0, 0), (255, 255, 255), (255, 0, 0)], [(0, 0, 255), (0, 255, 0), (153, 153, 153)]], np.uint8)
SHADES = np.array([[0, 255, 51], [204, 102, 153]], np.uint8)
# where the pixels written are not those of the image: more than 8 bits cut off, 32 taken for 16
WRITTEN_OTHERWISE = {(mode, kind) for mode in GREY[4:] for kind in ("AVIF", "GIF", "WEBP", "PPM")} - {("I;16", "PPM")}
BLURRED = {"AVIF": 6, "JPEG": 6, "JPEG2000": 6, "MPO": 6}
BEST = {"quality": 100, "subsampling": 0}
OPTIONS = {"JPEG": BEST, "MPO": BEST, "AVIF": BEST | {"subsampling": "4:4:4"}, "WEBP": {"lossless": True}}
OPTIONS |= {"ICO": {"sizes": [(24, 16)]}}


def seen(mode):
    """8-bit levels (16, 24, 3) that an image of the mode shows: blocks of 8 x 8 pixels, so that no compression mixes them."""
    shown = COLOURS if mode not in GREY else np.where(SHADES > 127, 255, 0) if mode == "1" else SHADES
    return np.broadcast_to(shown if shown.ndim == 3 else shown[..., None], (2, 3, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)


def image(mode):
    levels = seen(mode)
    if mode.startswith("I;16"):
        wide = levels[..., 0].astype(np.uint16) * 257
        return Image.frombytes(mode, (24, 16), wide.astype(">u2" if mode == "I;16B" else "<u2"))
    made = Image.fromarray(levels[..., 0] if mode in GREY else levels)
    for step in {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("P", "PA")}.get(mode, (mode,)):
        made = made.convert(step)
    return made


def difference(found, mode, channels):
    """The largest, of any pixel."""
    shown = Image.fromarray(seen(mode)).convert("L" if channels == 1 else "RGB")
    assert found.mode == shown.mode and found.size == shown.size
    return np.abs(np.asarray(found).astype(int) - np.asarray(shown)).max()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_an_image_in_memory_of_every_mode(mode, channels):
    given = image(mode)
    before = given.tobytes()
    if mode in NO_RANGE:
        with pytest.raises(UserError, match="32 bits and no known range"):
            converted(given, channels)
    else:
        assert difference(converted(given, channels), mode, channels) <= ROUNDING.get(mode, 1)
    assert given.tobytes() == before and given.mode == mode


def written():
    for mode in MODES:
        for kind in sorted(set(Image.SAVE) - NO_PICTURES - {"PDF", "PALM", "SPIDER"}):  # that Pillow writes only; measurements
            buffer = io.BytesIO()
            try:
                image(mode).save(buffer, kind, **OPTIONS.get(kind, {}))
            except Exception:  # a format has few modes
                continue
            yield pytest.param(mode, kind, buffer.getvalue(), id=f"{mode}-{kind}")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode, kind, data", list(written()))
def test_a_file_of_every_format_and_mode(tmp_path, mode, kind, data, channels):
    path = tmp_path / "a.png"  # what a file is, its contents say
    path.write_bytes(data)
    with Image.open(path) as opened:
        no_range = opened.mode in NO_RANGE and (opened.mode, kind) != ("I", "PPM")
    if no_range:
        with pytest.raises(UserError, match="a.png: its pixels have 32 bits and no known range; save it with 8 bits, or with 16"):
            read_image(path, channels)
        return
    if (mode, kind) == ("P", "ICNS"):  # Pillow opens it without its palette
        with pytest.raises(UserError, match=r"a.png: its pixels \(P\) cannot be read \(.*\); save it as PNG"):
            read_image(path, channels)
        return
    found = read_image(path, channels)
    if kind == "ICNS" or (mode, kind) in WRITTEN_OTHERWISE:
        assert found.mode == ("L" if channels == 1 else "RGB")
    else:
        assert difference(found, mode, channels) <= ROUNDING.get(mode, 1) + BLURRED.get(kind, 0)


def test_the_red_of_lab_is_red(tmp_path):
    Image.new("RGB", (4, 4), "red").convert("LAB").save(tmp_path / "a.tif")
    assert Image.open(tmp_path / "a.tif").mode == "LAB"
    assert np.abs(np.array(read_image(tmp_path / "a.tif").getpixel((1, 1))) - (255, 0, 0)).max() <= 5
    assert abs(read_image(tmp_path / "a.tif", 1).getpixel((1, 1)) - 76) <= 3


@pytest.mark.parametrize("top", [1023, 4095, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_a_pgm_of_10_to_16_bits_is_scaled_by_its_own_range(tmp_path, top, plain):
    levels = [0, top // 4, top // 2, top]
    head = f"P{2 if plain else 5}\n4 1\n{top}\n".encode()
    (tmp_path / "a.pgm").write_bytes(head + (" ".join(map(str, levels)).encode() if plain else struct.pack(">4H", *levels)))
    for channels in (1, 3):
        found = np.asarray(read_image(tmp_path / "a.pgm", channels)).reshape(4, -1)[:, 0].astype(int)
        assert np.abs(found - [0, 63.75, 127.5, 255]).max() <= 1 and found[0] == 0 and found[3] == 255


def tiff(bits, white_is_zero, sign, data):
    """Four grey pixels in a row, as the cameras and scanners write them that Pillow does not imitate."""
    tags = [
        (256, 4),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, 0 if white_is_zero else 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, len(data)),
        (339, 2 if sign else 1),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + bytes(4)


@pytest.mark.parametrize(
    "bits, white_is_zero, data, shades",
    [
        (16, False, struct.pack("<4H", 0, 257, 32768, 65535), [0, 1, 128, 255]),
        (16, True, struct.pack("<4H", 0, 257, 32768, 65535), [255, 254, 127, 0]),
        (12, False, bytes([0x00, 0x00, 0x10, 0x80, 0x0F, 0xFF]), [0, 1, 128, 255]),
    ],
)
def test_a_grey_tiff_of_more_than_8_bits_is_scaled_by_its_own_range(tmp_path, bits, white_is_zero, data, shades):
    (tmp_path / "a.tif").write_bytes(tiff(bits, white_is_zero, False, data))
    for channels in (1, 3):
        assert np.asarray(read_image(tmp_path / "a.tif", channels)).reshape(4, -1)[:, 0].tolist() == shades


def test_16_bits_with_a_sign_are_refused_as_such(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(16, False, True, struct.pack("<4h", -5, 0, 9, 300)))
    with pytest.raises(UserError, match="a.tif: its pixels have 16 bits and no known range"):
        read_image(tmp_path / "a.tif")


def test_what_is_transparent_in_16_bits_is_white(tmp_path):
    Image.fromarray(np.array([[0, 500, 65535]], np.uint16)).save(tmp_path / "a.png", transparency=500)
    assert np.asarray(read_image(tmp_path / "a.png", 1)).tolist() == [[0, 255, 255]]


def test_an_image_is_turned_once_and_the_one_given_stays(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (5, 3), 9).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as given:
        once = converted(given, 3)
        assert given.size == (5, 3) and once.size == converted(once, 1).size == (3, 5)


def test_the_suffixes_are_pillows_own():
    old = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
    assert {*old, ".avif", ".jp2", ".j2k", ".jpx", ".tga", ".ico", ".qoi", ".mpo", ".sgi"} <= set(suffixes())
    assert not {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".wmf", ".fits", ".txt", ".csv"} & set(suffixes())
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes())


def test_a_class_folder_may_hold_any_of_pillows_formats(tree, picture, files_params):
    folder = tree({"cat": 3, "dog": 3})
    for suffix in (".avif", ".jp2", ".JPX", ".tga", ".qoi", ".ico", ".TIFF"):
        picture(folder / "cat" / f"a{suffix}")
    (folder / "cat" / "notes.pdf").write_bytes(b"%PDF-1.4")
    run = Run(load_config(files_params(train=folder)))
    assert run.source.counts(np.arange(len(run.source.images))).tolist() == [10, 3]
    assert any("left out 1 files that are no images" in note for note in run.source.notes)
    assert all(run.source.images.read(i).mode == "RGB" for i in range(13))


def test_a_page_of_a_printer_under_an_images_name_is_not_run(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg", "EPS")
    with pytest.raises(UserError, match="a.jpg: cannot be read as an image .EPS is no format of pictures; save it as PNG"):
        read_image(tmp_path / "a.jpg")


@pytest.fixture
def with_large(tree):
    """with_large(height) adds a black image of 10,000 x height pixels to six small ones."""
    folder = tree({"cat": 3, "dog": 3})

    def write(height):
        Image.new("1", (10_000, height)).save(folder / "cat" / "large.png")
        return folder

    return write


@pytest.mark.journey
def test_a_large_image_is_read_and_said_in_one_line(with_large, files_params, python):
    params = files_params(train=with_large(9_500))
    done = python("-m", "osdtw_lib", "split", params)
    (line,) = [line for line in done.stdout.splitlines() if "megapixels" in line]
    assert done.returncode == 0 and done.stderr == ""
    assert line.startswith("images: 1 of more than 89 megapixels, slow to read: ") and line.endswith("large.png")


def test_inspection_says_a_large_image(with_large, files_params, command):
    _, said, _ = command("inspect", files_params(train=with_large(9_500)))
    assert "odd:       1 of more than 89 megapixels, slow to read: cat/large.png" in said


def test_an_image_too_large_is_refused_with_its_reason_in_the_line(with_large, files_params, refused):
    said = refused("split", files_params(train=with_large(18_200)))
    assert "1 unreadable of 7 images: " in said and "large.png (more than 179 megapixels; make it smaller)" in said
