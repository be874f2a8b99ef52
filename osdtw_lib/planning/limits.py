"""What a plan is held against: a card's memory, its speed in single precision, and the images that the cores can read."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from ..backend.threads import cores
from ..config.schema import Config, Files
from ..models.flops import TERA
from ..models.vit import image_size, outline

# GiB of memory and TFLOP/s in float32 outside the tensor cores, by the vendor's data sheets
CARDS = {
    "H100 80GB HBM3": (80, 66.9),
    "H100 PCIe": (80, 51.2),
    "H100 NVL": (94, 60.0),
    "H200": (141, 66.9),
    **dict.fromkeys(("A100-SXM4-80GB", "A100 80GB PCIe"), (80, 19.5)),
    **dict.fromkeys(("A100-SXM4-40GB", "A100-PCIE-40GB"), (40, 19.5)),
    "L40S": (48, 91.6),
    "GeForce RTX 4090": (24, 82.6),
    **dict.fromkeys(("Tesla V100-SXM2-32GB", "Tesla V100-SXM3-32GB"), (32, 15.7)),
    "Tesla V100-SXM2-16GB": (16, 15.7),
    "Tesla V100-PCIE-32GB": (32, 14.0),
    "Tesla V100-PCIE-16GB": (16, 14.0),
}
BESIDE = 2e9  # bytes that the table of memory does not count: CUDA's context, NCCL's buffers, what is in between; assumed
# benchmarks/data.py on this project's CPU machine, 500 x 375 JPEGs of 87 KB, the full recipe: 126 to 131 images/s a core
JPEGS_A_CORE = 125
# a memory map of 256 px images that lies in memory, one thread: 9,000 images/s there; half of it, since disks are slower
CACHE_BYTES_A_PROCESS = 0.9e9
CORES_A_GPU = 12  # where the machine is not here; assumed


def card(name: str | None) -> tuple[int, float] | None:
    return CARDS.get((name or "").removeprefix("NVIDIA "))


def fp32_flops(name: str | None) -> float | None:
    """FLOP/s at most, in float32 without TF32; None where it is not known."""
    known = card(name)
    return known[1] * TERA if known else None


def memory_line(memory: pd.DataFrame, name: str | None) -> str | None:
    """The largest training against the memory of the card; None without one that is known, or here."""
    known, here = card(name), torch.cuda.is_available()
    if not known and not here:
        return None
    there = torch.cuda.get_device_properties(0).total_memory if here else known[0] * 2**30
    largest = memory.loc[memory["sum, computed"].idxmax()]
    needed = 1e9 * largest["sum, computed"] + BESIDE
    words = f"{largest['stage']} takes {needed / 1e9:.1f} GB, {BESIDE / 1e9:.0f} of them assumed for CUDA and NCCL"
    fits = "" if needed <= there else ": it will not fit, lower recipe.micro_batch"
    return f"memory: {words}; a GPU has {there / 1e9:.1f} GB{fits}"


@dataclass(frozen=True)
class Reading:
    """Images/s that the readers of all GPUs together bring, and who they are."""

    rate: float
    words: str

    def line(self, stages: pd.DataFrame) -> str:
        """Against the stage that falls furthest behind what its GPUs could do."""
        most = stages.loc[(stages["images/s"] / stages["read/s"]).idxmax()]
        slower = stages["stage"][stages["images/s"] > stages["read/s"]]
        line = f"reading: {most['stage']} takes {most['images/s']:,.0f} images/s, {self.words} bring it {most['read/s']:,.0f}"
        return line if slower.empty else f"{line}; the hours of {', '.join(slower)} are those of the reading"


def reading_of(config: Config, processes: int, machine_cores: int | None, here: bool) -> Reading | None:
    """Of a data set of files, for GPUs; machine_cores: of all machines together, default those here, or so many a GPU."""
    if not isinstance(config.data, Files):
        return None
    if config.data.cache:
        side = max(image_size(outline(config.model, 1))) / config.data.filled.crop_share
        each = CACHE_BYTES_A_PROCESS / (side * side * config.data.channels)
        return Reading(processes * each, "the threads that read the decoded cache from memory")
    assumed = "" if machine_cores or here else " (assumed: --cores)"
    n = machine_cores or (cores() if here else CORES_A_GPU * processes)
    return Reading(n * JPEGS_A_CORE, f"{n} cores{assumed}, {JPEGS_A_CORE} JPEGs/s each,")
