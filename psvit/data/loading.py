"""What keeps a training supplied: loader workers, the decoder of a GPU, and batches that are made one ahead."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from psvit.data.workers import SHARED_MEMORY, affordable, free_shared_memory, in_bytes, worker_fault

PATIENCE = 50
"""Seconds: a wait that is in vain ends within a minute."""

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]
"""Images (b, 3, height, width) and what is to be learned of them, on the device that they are wanted on."""
Decode = Callable[[list[Tensor]], list[Tensor]]
"""JPEG files, uint8 (bytes,) each, to RGB, uint8 (3, height, width) each; RuntimeError if it cannot do any of them."""


def load(
    source: TorchDataset[T | ValueError],
    keys: Iterable[Any],
    workers: int,
    pin: bool,
    ahead: int = 2,
    patience: int = PATIENCE,
) -> Generator[T, None, None]:
    """What the source has for each key, in the order of the keys, whatever the number of workers.

    Args:
        workers: processes that load; 0 loads in this one.
        pin: whether the tensors come in memory from which a GPU copies by itself.
        ahead: how much of it each worker has ready, or under way. Both are fewer where shared memory is short.
        patience: seconds to wait for what comes next; 0 waits for ever, and is for what is small and takes long.

    Raises:
        ValueError: the source returned it; or a worker has died or is stuck.
    """
    rest, begun = iter(keys), list[T]()
    if workers and patience:
        for key in islice(rest, 1):  # here, to see how large it is
            begun.append(_sound(source[key]))
            workers, ahead = _affordable(begun, workers, ahead)
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=rest,
        num_workers=workers,
        worker_init_fn=_leave_group_signals_to_the_run,
        pin_memory=pin,
        prefetch_factor=ahead if workers else None,
        timeout=patience if workers else 0,
        generator=torch.Generator(),  # else the loader draws from, and so changes, torch's global random state
    )
    try:
        coming = iter(loader)  # starts the workers, before anybody can be elsewhere than where the first is asked for
        yield from begun
        begun.clear()
        for loaded in coming:
            yield _sound(loaded)
        return
    except RuntimeError as error:
        line = worker_fault(error)
        if line is None:
            raise
    del coming  # ends the workers that are left: an error with a traceback would keep them
    raise ValueError(line)


def _sound(loaded: T | ValueError) -> T:
    if isinstance(loaded, ValueError):
        raise loaded
    return loaded


def _affordable(loaded: Any, workers: int, ahead: int) -> tuple[int, int]:
    """How many workers may have how many of such ready; says so where they are fewer than wanted."""
    piece = _bytes(loaded)
    fitting = affordable(piece, workers, ahead)
    if fitting != (workers, ahead):
        used, ready = fitting
        instead = f"{used} of {workers} are used, with {ready} ready instead of {ahead}" if used else "none is used"
        print(
            f"note: {SHARED_MEMORY} has only {in_bytes(free_shared_memory() or 0)} free, and loader workers hand over "
            f"{in_bytes(piece)} at a time: {instead}; docker run --shm-size=8g gives it more",
            file=sys.stderr,
            flush=True,
        )
    return fitting


def _bytes(loaded: Any) -> int:
    """What the tensors in it take of shared memory."""
    if isinstance(loaded, Tensor):
        return loaded.untyped_storage().nbytes()
    if isinstance(loaded, dict):
        return sum(map(_bytes, loaded.values()))
    return sum(map(_bytes, loaded)) if isinstance(loaded, tuple | list) else 0


def _leave_group_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a launcher's SIGTERM go to the process group of a run; it saves, then ends its workers itself."""
    os.setpgid(0, 0)


def jpeg_decoder(wish: str, device: torch.device) -> Decode | None:
    """The GPU's decoder of JPEGs (nvJPEG, by torchvision), or None where images are decoded by loader workers.

    Args:
        wish: ``data.decode``.

    Raises:
        ValueError: it is ``gpu``, and there is none.
    """
    if wish == "cpu" or (wish == "auto" and device.type != "cuda"):
        return None
    try:
        if device.type != "cuda":
            raise RuntimeError(f"this run is on {device}")
        decode = partial(_decode, device=device)
        # a picture of our own: whether the data can be decoded is another question
        decode([torchvision.io.encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8))])
    except (RuntimeError, AttributeError) as error:  # AttributeError: a torchvision without it
        if wish == "auto":
            return None
        reason = str(error).partition("\n")[0]
        raise ValueError(f"data.decode=gpu: no JPEG can be decoded there ({reason}); use data.decode=auto") from error
    return decode


def _decode(files: list[Tensor], device: torch.device) -> list[Tensor]:
    pictures: list[Tensor] = torchvision.io.decode_jpeg(files, mode=torchvision.io.ImageReadMode.RGB, device=device)
    return pictures


# As many workers as cores are right where a core is what they wait for; it may be a disk far away.
warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
# What is to come after it is not in torchvision 0.21. A filter for good, as one for a while would be for all threads.
warnings.filterwarnings("ignore", message=".*TorchVision are deprecated.*", category=DeprecationWarning)


def one_ahead(make: Callable[[], T]) -> Iterator[T]:
    """What ``make`` returns, call by call, made in a thread of its own while the one before is used.

    It ends when ``make`` raises StopIteration; other errors are raised here in their turn.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(make)
        while True:
            try:
                made = coming.result()
            except StopIteration:
                return
            coming = thread.submit(make)
            yield made


def ahead_on_gpu(
    chunks: Iterator[T], assemble: Callable[[Iterable[T]], Iterator[Batch]], device: torch.device
) -> Iterator[Batch]:
    """The batches that ``assemble`` makes of chunks, made on a stream of their own while the step before runs.

    So copies and augmentation share the GPU with the step, and neither waits for the other.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call, unused-ignore]
    with torch.cuda.device(device):
        first = list(islice(chunks, 1))  # here: it starts the workers, which is not for a thread to do
    batches = assemble(chain(first, chunks))

    def make() -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return next(batches), stream.record_event()

    for batch, made in one_ahead(make):
        user = torch.cuda.current_stream(device)
        user.wait_event(made)
        for tensor in batch:
            tensor.record_stream(user)  # else its memory might be written anew before the step has read it
        yield batch
