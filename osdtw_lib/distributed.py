"""The one module that knows torch.distributed: who am I, and sums over all processes."""

from __future__ import annotations

import torch
import torch.distributed as dist


def _on() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if _on() else 0


def world_size() -> int:
    return dist.get_world_size() if _on() else 1


def sum_over_processes(tensors: list[torch.Tensor], count: int) -> int:
    """Sum tensors in place over all processes, and return the sum of `count`; alone, nothing changes."""
    if not _on():
        return count
    for tensor in tensors:
        dist.all_reduce(tensor)
    total = torch.tensor([count], dtype=torch.int64, device=tensors[0].device)
    dist.all_reduce(total)
    return int(total)
