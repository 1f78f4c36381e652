"""Where a run computes, and in which precision."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` means for this process.

    ``auto`` is a GPU where there is one. ``auto`` and ``cuda`` give each process of a machine a GPU of its own.

    Raises:
        ValueError: an unknown name, a GPU that this machine does not have, or more processes than it has GPUs.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f"device={name} is unknown; use auto, cpu, cuda or cuda:1")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and not gpus):
        return torch.device("cpu")
    if not gpus:
        raise ValueError(f"device={name}: torch {torch.__version__} finds no CUDA GPU here; use device=cpu")
    number = int(index) if index else local_rank
    if number >= gpus and not index and local_rank:
        raise ValueError(
            f"device={name}: this machine has too few GPUs ({gpus}) for its process number {local_rank + 1}; "
            f"use torchrun --nproc-per-node {gpus}, or device=cpu"
        )
    if number >= gpus:
        raise ValueError(f"device={name}: GPU {number} is wanted, but this machine has {gpus}, counted from 0")
    return torch.device("cuda", number)


def product_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The type that matrix products are computed in."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network runs in ``fp32``, ``bf16`` or ``fp16``; ``auto`` is bf16 on a GPU, else fp32."""
    lower = product_dtype(device, precision)
    return torch.autocast(device.type, dtype=lower, enabled=lower != torch.float32)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may count on: four fifths of a GPU's free memory, half of a CPU's.

    Processes of one run that torchrun has started on a machine without GPUs share its memory evenly.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return free // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has used at most: of a GPU, by tensors; of a CPU, resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, KiB elsewhere


def matmul_peak(device: torch.device, precision: str) -> float:
    """FLOP/s (a multiply-add is two) of a large product of square matrices, measured in a fraction of a second.

    The size doubles until a product takes a few milliseconds (10 on a CPU); the fastest of some repeats counts.
    """
    dtype, enough = product_dtype(device, precision), 0.003 if device.type == "cuda" else 0.01
    generator = torch.Generator(device).manual_seed(0)  # not torch's own state; zeros would flatter a GPU
    side, fastest = 128, 0.0
    while fastest < enough and side < 16384:
        side *= 2
        matrix = torch.randn(side, side, generator=generator, device=device).to(dtype)
        fastest = min(_seconds(matrix) for _ in range(4))  # the first one also loads a library
    return 2 * side**3 / min(fastest, *(_seconds(matrix) for _ in range(6)))


def _seconds(matrix: Tensor) -> float:
    """How long a matrix takes to be multiplied by itself."""
    _wait(matrix.device)
    began = time.perf_counter()
    torch.mm(matrix, matrix)
    _wait(matrix.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PendingHostCopy:
    """Numbers that a device has yet to compute, on their way to the host; nobody waits before they are read."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


def check_compiler(device: torch.device) -> None:
    """Compile a line by ``torch.compile``, to see whether this machine can.

    Raises:
        ValueError: it cannot; it lacks a C++ compiler or triton, for one.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # a compiler that is missing shows in many ways, which differ from torch to torch
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"torch.compile does not work here ({why.strip()[:200]}); install what is missing, or say "
            "recipe.compile=false"
        ) from error
