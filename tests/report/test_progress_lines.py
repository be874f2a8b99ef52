"""Logs in a page: a training is one line with its curve, and no line is lost."""

import html
import re

import pytest

from osdtw_lib.report.progress_lines import LONG, log_html


def epoch(label, n, of, losses="head 0.5  tail 0.25", end="700 images/s  9s left"):
    return f"{label}: epoch {n}/{of}{', done' if n == of else ''}{f'  loss {losses}' if losses else ''}  {end}"


def said(page):
    """Every line of the whole logs, as a reader who opens them sees them."""
    blocks = re.findall(r'<pre class="log">(.*?)</pre>', page, re.DOTALL)
    return [line for block in blocks for line in html.unescape(block).splitlines()]


def test_a_training_is_one_line_with_its_curve_and_its_log_is_kept():
    lines = [
        "stage1: runs, no result yet",
        *(epoch("stage1", n, 40, f"head {1 / n:.4f}  tail {2 / n:.4f}") for n in range(1, 41)),
    ]
    lines.append("stage1: 700 images/s, 1 % of the time waiting for data")
    page = log_html("\n".join(lines))
    assert said(page) == lines
    shown = re.findall(r"<summary>(.*?)</summary>", page)
    assert len(shown) == 1 and "epoch 40/40, done" in shown[0]
    head, tail = re.findall(r'points="(.*?)"', shown[0])
    assert len(head.split()) == len(tail.split()) == 40
    x, y = zip(*(map(float, point.split(",")) for point in tail.split()))
    assert x[0] == 0 and list(x) == sorted(x) and list(y) == sorted(y)  # a loss that falls goes down on the page
    assert y[0] == 1.0 and "head, tail over epochs 1 to 40" in shown[0]


def test_two_trainings_are_two_lines():
    lines = [epoch(label, n, 3) for label in ("baselines/ce", "baselines/balanced_bce") for n in (1, 2, 3)]
    page = log_html("\n".join(lines))
    assert page.count("<summary>") == 2 and said(page) == lines


@pytest.mark.parametrize("losses", ["", "error nan", "error inf", "error 0.0000"])
def test_losses_that_draw_no_curve_break_nothing(losses):
    lines = [epoch("start", n, 3, losses) for n in (1, 2, 3)]
    assert said(log_html("\n".join(lines))) == lines


def test_a_short_log_is_left_as_it_is_and_a_long_one_folded():
    short, long = ["split: up to date"] * LONG, [f"line {i} <b>" for i in range(3 * LONG)]
    assert log_html("\n".join(short)) is None
    page = log_html("\n".join(long))
    assert said(page)[: len(long)] == long and "<b>" not in page and page.count("line 29") == 2
