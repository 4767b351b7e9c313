"""One process or several: what torchrun says, and the little that the processes tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

_PATIENCE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class World:
    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The process's own device of that kind."""
        return torch.device("cuda", self.local) if device.type == "cuda" and self.size > 1 else device

    def wait(self) -> None:
        """Until every process is here. The first may prepare data for hours while the others wait."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process: all of them stop, or none."""
        if self.size == 1:
            return flag
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        shared = torch.tensor(float(flag), device=device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared.item())


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started together; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(world.local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield world
    finally:
        dist.destroy_process_group()
