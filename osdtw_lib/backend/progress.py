"""Lines that tell how far a stage is: one every few seconds, so that they suit a log and a saved notebook."""

from __future__ import annotations

import math
import time

LINE_SECONDS = 5.0


class Progress:
    """epoch, loss, images a second and time left; prints at most one line every LINE_SECONDS, and the last."""

    def __init__(self, label: str, epochs: int, images_per_epoch: int, done: int = 0):
        self.label, self.epochs, self.finished, self.losses = label, epochs, done, ""
        self.images, self.images_to_come = 0, (epochs - done) * images_per_epoch
        self.started = self.printed = time.monotonic()
        if done:
            print(f"{label}: resumes after epoch {done} of {epochs}", flush=True)

    def step(self, images: int) -> None:
        self.images += images
        if time.monotonic() - self.printed >= LINE_SECONDS:
            self._line(f"epoch {self.finished + 1}/{self.epochs}")

    def epoch(self, losses: dict[str, float]) -> None:
        self.finished += 1
        if losses:
            self.losses = "  loss " + "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        if self.finished == self.epochs:
            self._line(f"epoch {self.epochs}/{self.epochs}, done")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def _line(self, where: str) -> None:
        self.printed = time.monotonic()
        rate = self.images / max(self.printed - self.started, 1e-9)
        left = max(self.images_to_come - self.images, 0) / max(rate, 1e-9)
        print(f"{self.label}: {where}{self.losses}  {rate:.0f} images/s  {clock(left)} left", flush=True)


def size(number: float) -> str:
    """Bytes in the unit that suits them: 800 bytes, 64.8 kB, 12.3 MB, 4.0 GB."""
    if number < 1000:
        return f"{number:.0f} bytes"
    power = next((p for p in (1, 2, 3) if number < 999.95 * 1000**p), 4)
    return f"{number / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def clock(seconds: float) -> str:
    """12s, 3m05s, 2h07m; ? where it is not known (NaN)."""
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
