"""Where a run computes, and in which precision."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` means for this process.

    ``auto`` is a GPU where there is one. ``auto`` and ``cuda`` give each process of a machine a GPU of its own.

    Raises:
        ValueError: an unknown name, or a GPU that this machine does not have.
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
    if number >= gpus:
        raise ValueError(f"device={name}: GPU {number} is wanted, but this machine has {gpus}, counted from 0")
    return torch.device("cuda", number)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network runs in ``fp32``, ``bf16`` or ``fp16``; ``auto`` is bf16 on a GPU, else fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    lower = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
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
