"""A step of the acceptance and its rows in gpu.csv: a quantity, its bar, and whether it was met on this card."""

from __future__ import annotations

import contextlib
import csv
import datetime
import functools
import math
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

FACTS = ["card", "driver", "torch", "cuda", "date"]
COLUMNS = ["step", "quantity", "value", "unit", "bar", "passed", *FACTS, "note"]
FILE = "gpu.csv"


@dataclass(frozen=True)
class Step:
    """What a step is given: where it computes, at what size, where its rows go, and a folder it may fill."""

    name: str
    device: torch.device
    quick: bool
    out: Path
    work: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def add(
        self,
        quantity: str,
        value: float,
        unit: str = "",
        *,
        most: float | None = None,
        least: float | None = None,
        on: str | None = None,
        note: str = "",
    ) -> None:
        """A row, written at once.

        most, least: the bar. on: a speed's or a size's bar holds on cards whose name has this in it ("" on any), at full size
        alone; without it the bar holds everywhere. A value that is not a number has not met its bar.
        """
        bar = " and ".join(f"{sign} {limit:g}" for sign, limit in (("<=", most), (">=", least)) if limit is not None)
        passed: bool | str = ""
        if bar and (on is None or (self.on_gpu and not self.quick and on in facts()["card"])):
            passed = (most is None or value <= most) and (least is None or value >= least)
        row = {"step": self.name, "quantity": quantity, "value": value, "unit": unit, "bar": bar, "passed": passed, "note": note}
        write(self.out, [row | facts()])
        said = f", {bar}: {'met' if passed else 'MISSED'}" if passed != "" else ""
        print(f"{self.name}: {quantity} {value:.4g} {unit}{said} {note}".rstrip(), flush=True)

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """What fails inside is a row of its own, and the rest goes on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            lines = str(error).splitlines() or [""]
            self.add(what, math.nan, most=0, note=f"failed: {type(error).__name__}: {lines[0][:200]}")
            if self.on_gpu:
                torch.cuda.empty_cache()


@contextlib.contextmanager
def warned() -> Iterator[set[str]]:
    """What this process warns of inside, once each: `file:line Category: first line`; it is shown as ever."""
    said, show = set(), warnings.showwarning

    def note(message, category, filename, lineno, *others):
        said.add(f"{Path(filename).name}:{lineno} {category.__name__}: {(str(message).splitlines() or [''])[0][:100]}")
        show(message, category, filename, lineno, *others)

    warnings.showwarning = note
    try:
        yield said
    finally:
        warnings.showwarning = show


@functools.cache
def facts() -> dict[str, str]:
    """Card, driver and versions, for every row."""
    on_gpu = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if on_gpu else "none",
        "driver": (nvidia_smi("driver_version") or [""])[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def nvidia_smi(*fields: str) -> list[str]:
    """A line a GPU; nothing where the program is not there or finds none."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout.splitlines() if done.returncode == 0 else []


def read(out: Path) -> list[dict[str, str]]:
    """The rows there are."""
    try:
        with (out / FILE).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def write(out: Path, rows: list[dict], anew: bool = False) -> None:
    """Rows at the file's end, or in place of all there were."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    with path.open("w" if anew or not path.exists() else "a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            table.writeheader()
        table.writerows(rows)
