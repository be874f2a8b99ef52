"""How long images are waited for, and the one line that says so where a GPU is held up."""

import time
from types import SimpleNamespace

import pytest
import torch

from osdtw_lib.data import feed as module
from osdtw_lib.data.feed import Feed

GPU = torch.device("meta")  # whatever is no CPU


@pytest.fixture
def clock(monkeypatch):
    """clock.now, and clock.pass_(seconds)."""

    class Clock:
        now = 1000.0

        def pass_(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))  # others' time goes on
    return clock


def train(feed, clock, parts, reading, working, training=True):
    """So many parts of 100 images, each read and worked on for so many seconds."""

    def read():
        for _ in range(parts):
            clock.pass_(reading)
            yield torch.empty(100)

    for _ in feed.timed(read(), training):
        clock.pass_(working)


def test_the_readers_alone_are_timed_not_what_is_done_with_the_images(clock):
    feed = Feed(torch.device("cpu"), "1 process", "")
    train(feed, clock, 7, reading=0.5, working=20)
    assert feed.waited == pytest.approx(3.5)
    train(feed, clock, 2, reading=1, working=0, training=False)
    assert feed.waited == pytest.approx(5.5)


def test_a_gpu_that_is_held_up_is_said_once_with_numbers_and_what_to_do(clock, capsys):
    feed = Feed(GPU, "8 processes", "set data.cache: true, or give the job more cores")
    for _ in range(3):
        train(feed, clock, 1000, reading=0.15, working=0.05)
    said = capsys.readouterr().out
    assert said == (
        "data: 75 % of the time the GPU waits for images: 500 a second are read by 8 processes, it could take 2,000; "
        "set data.cache: true, or give the job more cores\n"
    )


@pytest.mark.parametrize(
    "device, reading, working, training",
    [
        (torch.device("cpu"), 1.0, 0.1, True),
        (GPU, 0.1, 1.0, True),
        (GPU, 1.0, 0.1, False),
    ],
    ids=["a CPU", "readers that keep up", "evaluation"],
)
def test_nothing_is_said_of(clock, capsys, device, reading, working, training):
    train(Feed(device, "1 process", ""), clock, 1000, reading, working, training)
    assert capsys.readouterr().out == ""


def test_what_is_done_once_at_the_start_does_not_hide_that_a_gpu_is_held_up(clock, capsys):
    feed = Feed(GPU, "1 process", "")
    train(feed, clock, 1, reading=1, working=3600)  # compiling
    assert capsys.readouterr().out == ""
    train(feed, clock, 1000, reading=1, working=1)
    assert capsys.readouterr().out.startswith("data: 50 % of the time")


def test_only_one_of_several_processes_says_it(monkeypatch, clock, capsys):
    monkeypatch.setattr(module.distributed, "rank", lambda: 1)
    train(Feed(GPU, "1 process", ""), clock, 1000, reading=1, working=0.1)
    assert capsys.readouterr().out == ""


def test_starting_the_readers_counts_as_waiting():
    class Slow:
        def __iter__(self):
            time.sleep(0.05)
            return iter([torch.empty(1)])

    feed = Feed(torch.device("cpu"), "", "")
    assert len(list(feed.timed(Slow()))) == 1 and feed.waited >= 0.05
