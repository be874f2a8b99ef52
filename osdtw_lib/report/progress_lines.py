"""A training's lines of progress in a page: one line with the curve of its losses beside it, the whole log one click away."""

from __future__ import annotations

import html
import math
import re
from itertools import groupby

LINE = re.compile(r"^\s*(?P<label>\S.*?): epoch (?P<epoch>\d+)/\d+(?:, done)?(?:  loss (?P<losses>.+?))?  \d+ images/s")
LOSS = re.compile(r"(\S+) ([-+\w.]+)(?:  |$)")
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00")
WIDTH, HEIGHT = 160, 24  # pixels of a curve
LONG = 10  # lines; a longer log without progress keeps its last ones


def log_html(text: str) -> str | None:
    """What a cell printed, as HTML; None where it is short and tells of no training."""
    lines = text.splitlines()
    blocks = [(label, list(group)) for label, group in groupby(lines, key=_label)]
    if len(lines) <= LONG and not any(label and len(group) > 1 for label, group in blocks):
        return None
    return "".join(_training(group) if label and len(group) > 1 else _plain(group) for label, group in blocks)


def _label(line: str) -> str | None:
    found = LINE.match(line)
    return found["label"] if found else None


def _training(lines: list[str]) -> str:
    said = html.escape(lines[-1].strip())
    return f'<details class="log"><summary><code>{said}</code> {_curve(lines)}</summary>{_pre(lines)}</details>'


def _plain(lines: list[str]) -> str:
    if len(lines) <= LONG:
        return _pre(lines)
    return f'<details class="log"><summary>log, {len(lines)} lines</summary>{_pre(lines)}</details>{_pre(lines[-LONG // 2 :])}'


def _pre(lines: list[str]) -> str:
    return f'<pre class="log">{html.escape(chr(10).join(lines))}</pre>'


def _curve(lines: list[str]) -> str:
    """The losses over the epochs of these lines as a small drawing, a colour a loss, all on one scale from 0."""
    series: dict[str, list[tuple[int, float]]] = {}
    for found in map(LINE.match, lines):
        for name, value in LOSS.findall(found["losses"] or ""):
            if math.isfinite(float(value)):
                series.setdefault(name, []).append((int(found["epoch"]), float(value)))
    series = {name: points for name, points in series.items() if len(points) > 1}
    if not series:
        return ""
    epochs = [epoch for points in series.values() for epoch, _ in points]
    first, last = min(epochs), max(max(epochs), min(epochs) + 1)
    top = max(value for points in series.values() for _, value in points) or 1.0

    def place(epoch: int, value: float) -> str:
        return f"{WIDTH * (epoch - first) / (last - first):.1f},{1 + (HEIGHT - 2) * (1 - max(value, 0) / top):.1f}"

    drawn = "".join(
        f'<polyline fill="none" stroke="{colour}" points="{" ".join(place(*point) for point in points)}">'
        f"<title>{html.escape(name)}</title></polyline>"
        for colour, (name, points) in zip(COLOURS, series.items())
    )
    what = html.escape(f"{', '.join(series)} over epochs {first} to {last}, from 0 to {top:.3g}")
    return f'<svg class="curve" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{what}">{drawn}</svg>'
