"""What loader workers die of, and what to do about it: little shared memory, a signal, a stuck disk. No torch."""

from __future__ import annotations

import os
import re

SHARED_MEMORY = "/dev/shm"
_USABLE = 0.9  # of what is free: others use it, too
_IN_USE = 2  # pieces that the main process holds besides those that workers have ready


def affordable(piece: int, workers: int, ahead: int) -> tuple[int, int]:
    """How many workers there may be, and how many pieces each may have ready, for all to fit into free shared memory.

    A worker that finds none loses its piece, and whoever waits for that would wait for ever. None at all is better:
    what loads in the main process needs no shared memory.

    Args:
        piece: bytes of what a worker hands over at a time.
        workers, ahead: what is wanted.
    """
    free = free_shared_memory()
    if free is None or piece == 0:
        return workers, ahead
    fitting = max(0, int(free * _USABLE) // piece - _IN_USE)
    workers = min(workers, fitting)
    return workers, min(ahead, fitting // workers) if workers else ahead


def free_shared_memory() -> int | None:
    """Bytes of shared memory that each process of a run on this machine may use; None where there is no such limit."""
    try:
        there = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):  # other systems share memory in another way
        return None
    return there.f_bavail * there.f_frsize // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def worker_fault(error: BaseException) -> str | None:
    """One line for what torch raises when a loader worker has died or is stuck; None for any other error.

    Torch raises it wherever the main thread is when a worker dies, not only where it waits for images.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or "DataLoader" not in text:
        return None
    if found := re.search(r"timed out after (\d+)", text):
        free = free_shared_memory()
        memory = "" if free is None else f" ({SHARED_MEMORY} has {in_bytes(free)} free)"
        return (
            f"the loader workers gave no images for {found[1]} s: the disk is stuck or very slow (data.patience=300 "
            f"waits longer), or shared memory ran out{memory} (data.workers=0 needs none)"
        )
    if "DataLoader worker" not in text:
        return None
    signal = re.search(r"killed by signal: (.+?)\.", text)
    how = f" by a signal ({signal[1]})" if signal else ""
    cause = (
        "shared memory ran out; give it more (docker run --shm-size=8g)"
        if "Bus error" in text
        else "memory has probably run out; the kernel's log says so (dmesg)"
    )
    return (
        f"a loader worker was killed{how}: {cause}, or use fewer data.workers (0 loads in the main process); the same "
        "command resumes from the last checkpoint"
    )


def in_bytes(amount: int) -> str:
    """``64.0 MiB``, or KiB where that is less than one."""
    return f"{amount / 2**20:,.1f} MiB" if amount >= 2**20 else f"{amount / 2**10:,.1f} KiB"
