"""Several processes that train one network, as torchrun starts them; a process on its own needs none of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process among all that share a run.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes, on all machines.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        """What torchrun says, or one process on its own."""
        rank, world, local = (int(os.environ.get(key, 0)) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank, max(1, world), local)

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @contextmanager
    def group(self, device: torch.device) -> Iterator[None]:
        """The processes can talk inside this block: by NCCL between GPUs, by Gloo between CPUs."""
        if self.world == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        try:
            yield
        finally:
            dist.destroy_process_group()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; every process must call it."""
        if self.world > 1:
            with _peers():
                dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        """The main process's values, in place; every process must call it with the same shape and type."""
        if self.world > 1:
            with _peers():
                dist.broadcast(values, src=0)
        return values


@contextmanager
def _peers() -> Iterator[None]:
    """What the processes do together fails when one of them dies; a line says so instead of a traceback.

    Raises:
        ValueError: another process has died, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            f"lost another process of this run ({str(error).splitlines()[0][:200]}); the report of torchrun names the "
            "one that failed first. What was saved is kept, and the same command goes on"
        ) from error
