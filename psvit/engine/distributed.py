"""Several processes that train one network, as torchrun starts them; a process on its own needs none of it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from psvit.data.plan import Share
from psvit.run.folder import differences

_LAST_WORK = 0.1  # seconds


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

    def share(self, accumulate: int = 1) -> Share:
        """What this process takes of each step, in so many micro-batches."""
        return Share(self.rank, self.world, accumulate)

    @contextmanager
    def group(self, device: torch.device, settings: dict[str, Any]) -> Iterator[None]:
        """The processes can talk inside this block: by NCCL between GPUs, by Gloo between CPUs.

        Args:
            settings: the resolved config, a nested dict of plain values, the same in all processes.

        Raises:
            ValueError: torch has no NCCL, or a process was started with other settings; in every process.
        """
        if self.world == 1:
            yield
            return
        if device.type == "cuda" and not dist.is_nccl_available():
            raise ValueError(
                f"torch {torch.__version__} was built without NCCL, which processes need to communicate between "
                "GPUs; install a build that has it (Linux), start one process, or set device=cpu"
            )
        with _peers():
            store, _, _ = next(iter(rendezvous("env://", self.rank, self.world)))
            store = self._meet(store)
            self._compare(store, settings)
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", store=store, rank=self.rank, world_size=self.world, device_id=device)
            else:
                dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.world)
        try:
            yield
        finally:
            # a thread of Gloo's that drops the tensors of its last work needs the GIL, which torch 2.6 holds while it
            # waits for that thread to end: let it be done before
            time.sleep(_LAST_WORK)
            dist.destroy_process_group()

    def _meet(self, store: Store) -> Store:
        """A part of the store that is this start's alone: torchrun keeps its store, with all in it, over restarts.

        The first process names the start. The others answer to the name that they find, which may be that of an earlier
        start, until their answer is confirmed.
        """
        name = secrets.token_hex(8)
        if self.main:
            store.set("start", name)
            answers = [store.get(f"{name}/{rank}").decode() for rank in range(1, self.world)]
            store.set(f"{name}/all", json.dumps(answers))
            return PrefixStore(name, store)
        start = ""
        while True:
            if (latest := store.get("start").decode()) != start:
                start = latest
                store.set(f"{start}/{self.rank}", name)
            if store.check([f"{start}/all"]) and name in json.loads(store.get(f"{start}/all")):
                return PrefixStore(start, store)
            time.sleep(0.02)

    def _compare(self, store: Store, settings: dict[str, Any]) -> None:
        """Refuse settings that differ; before the processes meet, as GPUs and CPUs, for one, would wait for ever."""
        text = json.dumps(settings, sort_keys=True)
        if self.main:
            store.set("settings", text)
        store.set(f"settings/{self.rank}", hashlib.sha256(text.encode()).hexdigest())
        hashes = [store.get(f"settings/{rank}") for rank in range(self.world)]
        theirs = json.loads(store.get("settings"))
        store.set(f"compared/{self.rank}", "")
        if self.main:  # which may serve the store: it must not leave before all have looked
            store.wait([f"compared/{rank}" for rank in range(self.world)])
        other = next((rank for rank, found in enumerate(hashes) if found != hashes[0]), None)
        if other is not None:
            what = differences(theirs, json.loads(text))
            raise ValueError(
                f"process {other} was started with other settings than process 0"
                + (f" ({'; '.join(what)})" if what else "")
                + "; start all of them with the same command"
            )

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
    def together(self) -> Iterator[None]:
        """For what the processes do together without a method here, such as the backward pass of a wrapped network.

        Raises:
            ValueError: another process has died, or does not answer.
        """
        if self.world == 1:
            yield
            return
        with _peers():
            yield


# how torch's own libraries name themselves in the message of a connection that broke
_BROKEN = ("gloo", "nccl", "connection", "socket", "timed out", "timeout", "store")


@contextmanager
def _peers() -> Iterator[None]:
    """What the processes do together fails when one of them dies; a line says so instead of a traceback.

    Raises:
        ValueError: another process has died, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in _BROKEN):
            raise
        raise ValueError(
            f"lost another process of this run ({str(error).splitlines()[0][:200]}); torchrun's report names the one "
            "that failed first. Saved work is kept; run the same command again to resume"
        ) from error
