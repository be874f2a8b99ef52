"""The decoded cache: the same pixels, a build that goes on after a kill, and a file that cannot be trusted made anew."""

import os
import shutil
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from several_processes import forked

from osdtw_lib.artifacts.lock import held
from osdtw_lib.data import decoded_cache as cache
from osdtw_lib.data.decoded_cache import BLOCK, decoded, resized
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.errors import UserError

N, SIDE = 2 * BLOCK + 22, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """So many small noisy images; for reading only."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (14, 18 + i % 5, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    paths = sorted(map(str, folder.iterdir()))
    return ImageFiles(np.array(paths), np.arange(N) % 3, np.array([f"{i:03}.png" for i in range(N)]))


@pytest.fixture
def images(made):
    return made.subset(np.arange(N))


@pytest.fixture
def reads(monkeypatch):
    """The indices that were read from their files."""
    seen, read = [], ImageFiles.read

    def counted(self, index, side=None):
        seen.append(index)
        return read(self, index, side)

    monkeypatch.setattr(ImageFiles, "read", counted)
    return seen


def expected(images):
    return np.stack([np.asarray(resized(images.read(i), SIDE)) for i in range(len(images))])


def test_the_cache_holds_every_image_resized_and_cut(images, tmp_path):
    found = decoded(images, SIDE, tmp_path)
    assert isinstance(found.pixels, np.memmap) and found.pixels.shape == (N, SIDE, SIDE, 3) and found.pixels.dtype == np.uint8
    assert np.array_equal(found.pixels, expected(images)) and np.array_equal(found.labels, images.labels)
    with pytest.raises(ValueError, match="read-only"):
        found.pixels[0] = 0


def test_resizing_keeps_the_shape_and_the_centre():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    for image in (Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2))):
        assert resized(image, 10).size == (10, 10) and np.asarray(resized(image, 10)).min() > 230


def test_grey_images_keep_one_channel(images, tmp_path):
    grey = ImageFiles(images.paths[:3], images.labels[:3], images.names[:3], channels=1)
    found, beside = decoded(grey, SIDE, tmp_path), decoded(images.subset(np.arange(3)), SIDE, tmp_path)
    assert beside.pixels.shape[3] == 3 and decoded(grey, SIDE, tmp_path).pixels.shape[3] == 1
    assert len(list(tmp_path.glob("*.u8"))) == 2  # neither takes the other's place
    assert found.pixels.shape == (3, SIDE, SIDE, 1)
    assert np.array_equal(found.pixels[1, :, :, 0], np.asarray(resized(grey.read(1), SIDE)))


def test_a_finished_cache_is_opened_not_made(images, tmp_path, reads, capsys):
    decoded(images, SIDE, tmp_path)
    assert len(reads) == N and "free)" in capsys.readouterr().out
    decoded(images.subset(np.arange(N)), SIDE, tmp_path)
    assert len(reads) == N and capsys.readouterr().out == ""


def test_another_side_another_subset_and_a_changed_file_have_caches_of_their_own(images, tmp_path, reads):
    decoded(images, SIDE, tmp_path)
    decoded(images, 8, tmp_path)
    decoded(images.subset(np.arange(5)), SIDE, tmp_path)
    assert len(reads) == 2 * N + 5 and len(list(tmp_path.glob("*.u8"))) == 3


def test_its_size_is_announced_before_it_is_made(images, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(ImageFiles, "read", stopped)
    with pytest.raises(RuntimeError):
        decoded(images, SIDE, tmp_path)
    assert f"150 images of 12 x 12, 64.8 kB in {tmp_path}" in capsys.readouterr().out


def test_a_full_disk_is_noticed_before_anything_is_written(images, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match=r"needs 64.8 kB .*1.0 kB are free; make room, set outputs .* or data.cache: false"):
        decoded(images, SIDE, tmp_path)
    assert not list(tmp_path.glob("*.u8"))


KILLED = """
import os, sys, numpy as np
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.data import decoded_cache as cache
paths = sorted(sys.argv[3:])
images = ImageFiles(np.array(paths), np.arange(len(paths)) % 3, np.array([os.path.basename(p) for p in paths]))
over = cache.over_images
def cut(*arguments):
    for i, value in enumerate(over(*arguments)):
        if i == int(sys.argv[2]):
            os._exit(9)
        yield value
cache.over_images = cut
cache.decoded(images, 12, cache.Path(sys.argv[1]))
"""


def test_a_killed_build_goes_on_with_the_blocks_that_are_missing(images, tmp_path, python, reads):
    assert python("-c", KILLED, tmp_path, BLOCK + 10, *images.paths).returncode == 9
    found = decoded(images, SIDE, tmp_path)
    assert sorted(reads) == list(range(BLOCK, N))
    assert np.array_equal(found.pixels, expected(images))


def test_a_journal_line_cut_short_counts_as_not_done(images, tmp_path, reads):
    decoded(images, SIDE, tmp_path)
    journal = next(tmp_path.glob("*.json"))
    journal.write_text(journal.read_text()[:-2])
    reads.clear()
    decoded(images, SIDE, tmp_path)
    assert sorted(reads) == list(range(2 * BLOCK, N))


def test_a_changed_block_is_noticed_and_made_again(images, tmp_path, reads, capsys):
    found = decoded(images, SIDE, tmp_path).pixels
    with open(next(tmp_path.glob("*.u8")), "r+b") as file:
        file.seek((BLOCK + 3) * SIDE * SIDE * 3)
        file.write(bytes([found[BLOCK + 3].flat[0] ^ 1]))
    reads.clear()
    again = decoded(images, SIDE, tmp_path)
    assert "1 of 3 blocks were changed" in capsys.readouterr().out
    assert sorted(reads) == list(range(BLOCK, 2 * BLOCK)) and np.array_equal(again.pixels, expected(images))


def turn_a_bit(path, place):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)


def test_every_block_is_compared(images, tmp_path, monkeypatch, reads, capsys):
    monkeypatch.setattr(cache, "BLOCK", 2)
    right = decoded(images, SIDE, tmp_path).pixels.copy()
    for block in range(0, N // 2, 7):
        turn_a_bit(next(tmp_path.glob("*.u8")), block * 2 * SIDE * SIDE * 3)
        reads.clear()
        assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, right) and reads == [2 * block, 2 * block + 1]
        assert "1 of 75 blocks were changed" in capsys.readouterr().out


def test_no_damage_to_the_journal_gives_other_pixels(images, tmp_path):
    right, journal = decoded(images, SIDE, tmp_path).pixels.copy(), next(tmp_path.glob("*.json"))
    whole, rng = journal.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 20):
        turn_a_bit(journal, place)
        assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, right)
        journal.write_bytes(whole[:place])
        assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, right)


def test_a_run_compares_once_unless_somebody_writes(images, tmp_path, monkeypatch):
    compared, crc = [], cache.zlib.crc32
    with held(tmp_path / "run"):
        right = decoded(images, SIDE, tmp_path).pixels.copy()
        monkeypatch.setattr(cache, "zlib", SimpleNamespace(crc32=lambda block: compared.append(1) or crc(block)))
        decoded(images, SIDE, tmp_path)
        assert not compared
        turn_a_bit(next(tmp_path.glob("*.u8")), 0)
        assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, right) and compared
    compared.clear()
    with held(tmp_path / "run"):  # the next run
        decoded(images, SIDE, tmp_path)
    assert len(compared) == 3


@pytest.mark.parametrize("suffix", ["u8", "json"])
def test_a_folder_in_the_place_of_a_file_is_made_anew(images, tmp_path, suffix):
    right = decoded(images, SIDE, tmp_path).pixels.copy()
    path = next(tmp_path.glob(f"*.{suffix}"))
    path.unlink()
    (path / "below").mkdir(parents=True)
    assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, right)


@pytest.mark.parametrize("damage", ["cut", "empty journal", "garbage", "foreign"])
def test_a_damaged_or_foreign_cache_is_made_again(images, tmp_path, reads, capsys, damage):
    decoded(images, SIDE, tmp_path)
    data, journal = next(tmp_path.glob("*.u8")), next(tmp_path.glob("*.json"))
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "foreign":
        journal.write_text(journal.read_text().replace(images.fingerprint(), 64 * "0"))
    else:
        journal.write_bytes({"empty journal": b"", "garbage": b"\xff\xfe\n1 2\n"}[damage])
    reads.clear()
    assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, expected(images))
    assert "it is made again" in capsys.readouterr().out and len(reads) == 2 * N  # once more, and for `expected`


def test_an_image_that_cannot_be_read_is_named_and_what_is_done_is_kept(images, tmp_path, reads):
    bad = np.append(images.paths[:-1], str(tmp_path / "gone.png"))
    broken = ImageFiles(bad, images.labels, images.names)
    with pytest.raises(UserError, match="gone.png: no such image"):
        decoded(broken, SIDE, tmp_path)
    reads.clear()
    with pytest.raises(UserError, match="gone.png"):
        decoded(ImageFiles(bad, images.labels, images.names), SIDE, tmp_path)
    assert sorted(reads) == list(range(2 * BLOCK, N))


def test_two_at_once_make_it_once(images, tmp_path, reads, capsys):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: decoded(images.subset(np.arange(N)), SIDE, tmp_path), range(2)))
    assert len(reads) == N and np.array_equal(found[0].pixels, found[1].pixels)


def no_locks(*_):
    raise OSError(38, "Function not implemented")


def make_without_locks(paths, folder, seconds):
    """In a process of its own: what it sees of the cache at once; each image takes so long."""
    read = ImageFiles.read
    ImageFiles.read = lambda self, *arguments: (time.sleep(seconds), read(self, *arguments))[1]
    cache.fcntl.flock = no_locks
    found = decoded(ImageFiles(np.array(paths), np.arange(N) % 3, np.array(list(map(str, paths)))), SIDE, folder)
    np.save(folder / f"seen{seconds}.npy", found.pixels)


def test_two_at_once_see_no_half_made_file_where_nothing_can_be_locked(images, tmp_path):
    start = [forked().Process(target=make_without_locks, args=(images.paths.tolist(), tmp_path, s)) for s in (0.001, 0.02)]
    for process in start:
        process.start()
    for process in start:
        process.join()
    right = expected(images)
    assert all(np.array_equal(np.load(tmp_path / f"seen{seconds}.npy"), right) for seconds in (0.001, 0.02))
    left = [path.suffix for path in tmp_path.iterdir() if path.suffix != ".npy"]
    assert sorted(left) == [".json", ".lock", ".u8"]


def test_without_locks_a_build_that_fails_leaves_nothing_and_a_whole_one_is_found(images, tmp_path, monkeypatch, reads):
    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr(cache.os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        decoded(images, SIDE, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    decoded(images, SIDE, tmp_path)
    reads.clear()
    assert np.array_equal(decoded(images, SIDE, tmp_path).pixels, expected(images)) and len(reads) == N, (
        "read by `expected` alone"
    )


def test_what_a_killed_process_left_is_removed_and_a_live_ones_is_not(images, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    name, ended = cache._file(images, SIDE, tmp_path, "bicubic").name, forked().Process(target=time.sleep, args=(0,))
    ended.start(), ended.join()
    dead, alive = (tmp_path / f".{cache.socket.gethostname()}.{pid}.{name}" for pid in (ended.pid, os.getppid()))
    dead.write_bytes(b"x"), alive.write_bytes(b"x")
    decoded(images, SIDE, tmp_path)
    assert alive.exists() and not dead.exists()


def test_a_folder_that_cannot_be_written_is_refused(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        decoded(images, SIDE, tmp_path / "file" / "below")


def test_a_disk_that_fills_up_meanwhile_is_one_clear_line(images, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "ftruncate", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); make room"):
        decoded(images, SIDE, tmp_path)
