"""``psvit-search latency``: time networks on the machine at hand, and fit a table (``search/latency.py``) to them."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from psvit.arch import Architecture, NetworkSpec
from psvit.cost import layer_cost
from psvit.engine.device import autocast, pick_device
from psvit.model import PSViT
from psvit.run.random import numpy_rng
from psvit.search.config import LatencyConfig, MeasureConfig
from psvit.search.latency import Conditions, LatencyTable, design, sample_by_cost, table_of
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.units import format_duration
from psvit.zoo import SPACES

CHECKED = 30  # random networks that the table is checked against
_AT_A_TIME = 3  # passes that are timed each time a network has its turn


def measure_latency(config: MeasureConfig) -> LatencyTable:
    """Measure the table of a supernet's networks, or a named space's, write ``config.save`` and print it.

    Raises:
        ValueError: neither a supernet nor a space, impossible dimensions, or a file that cannot be written.
    """
    space, device = _space(config), pick_device(config.device)
    table = measure(space, conditions_here(config.batch, config.precision, space.spec, device), device, config.repeats)
    path = Path(config.save)
    table.save(path)
    print_table(space, table)
    print(f"wrote {path}; a search reads it by search.latency.table={path}")
    return table


def latency_table(config: LatencyConfig, space: SearchSpace, device: torch.device, folder: Path) -> LatencyTable:
    """The table of a search: the given one, else that of its run folder, which is measured when it is missing.

    Raises:
        ValueError: no such table, or one of another device, batch, precision or network that is not forced.
    """
    here = conditions_here(config.batch, config.precision, space.spec, device)
    path = Path(config.table) if config.table else folder / "latency.json"
    if not config.table and not path.exists():
        measure(space, here, device, config.repeats).save(path)
    table = LatencyTable.load(path)
    table.require_same(here, path, config.force)
    print(f"latency on {table.conditions}: {table.trust}")
    return table


def conditions_here(batch: int, precision: str, spec: NetworkSpec, device: torch.device) -> Conditions:
    """The conditions of a measurement on this machine; precision ``auto`` is bf16 on a GPU, else fp32."""
    gpu = device.type == "cuda"
    if precision == "auto":
        precision = "bf16" if gpu else "fp32"
    name = torch.cuda.get_device_name(device) if gpu else _processor()
    return Conditions(name, 0 if gpu else torch.get_num_threads(), batch, precision, str(torch.__version__), spec)


def measure(
    space: SearchSpace, conditions: Conditions, device: torch.device, repeats: int, seed: int = 0
) -> LatencyTable:
    """Measure whole networks, the random ones among them that the table is checked against, and fit a table to them.

    Args:
        space: what the networks may be.
        conditions: those of this machine, see :func:`conditions_here`.
        device: where to run.
        repeats: timed forward passes of each network.
        seed: of the random networks.
    """
    supernet = Supernet(space.spec, space.cells).to(device).eval()
    checked = sample_by_cost(space, CHECKED, numpy_rng(seed, "latency"))
    networks = list(dict.fromkeys([*design(space.spec.stages, space.cells), *checked]))
    print(f"measuring {len(networks)} networks, {repeats} times each, on {conditions}")
    times = time_networks(supernet, networks, conditions, device, repeats)
    return table_of(conditions, list(zip(networks, times, strict=True)), checked)


@torch.no_grad()  # in inference mode, autocast would cast the weights anew at each pass
def time_networks(
    supernet: Supernet,
    architectures: Sequence[Architecture],
    conditions: Conditions,
    device: torch.device,
    repeats: int,
) -> list[int]:
    """Median nanoseconds of a forward pass of each architecture.

    The networks take turns, and a time counts as a share of its turn's, so that a drift of clocks or a busy neighbour
    hits all alike. At each turn the first pass of a network is not timed, since it finds the caches full of another's
    weights; nor is the first turn.
    """
    spec = conditions.network
    images = torch.randn(conditions.batch, spec.channels, *spec.image_size).to(device)
    networks = [_borrow(supernet, architecture) for architecture in architectures]
    times = np.zeros((1 + -(-repeats // _AT_A_TIME), len(networks), _AT_A_TIME))
    for turn in tqdm(times, unit="turn", leave=False, dynamic_ncols=True, disable=None):
        for network, passes in zip(networks, turn, strict=True):
            with autocast(device, conditions.precision):  # keeps what it casts of the weights while it is open
                _time(network, images, device)
                passes[:] = [_time(network, images, device) for _ in range(_AT_A_TIME)]
    times = times[1:]
    paces = np.median(times, axis=2).sum(axis=1)  # (turns,)
    shares = np.median(times / paces[:, None, None], axis=(0, 2))  # (networks,)
    return [round(share) for share in shares * np.median(paces)]


def _time(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, device: torch.device) -> int:
    """Nanoseconds from the call to the result."""
    started = perf_counter_ns()
    network(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter_ns() - started


def _borrow(supernet: Supernet, architecture: Architecture) -> PSViT:
    """The network of an architecture on the supernet's own weights: all of them take the memory of one supernet."""
    with torch.device("meta"):
        network = PSViT(supernet.spec, architecture)
    for name in ("patch_embed", "cls_token", "pos_embed", "pools", "norm", "head"):
        setattr(network, name, getattr(supernet, name))
    network.stages = nn.ModuleList(
        nn.ModuleList(supernet.layer(stage, cell, letter) for cell, letter in enumerate(letters))
        for stage, letters in enumerate(architecture.stages)
    )
    return network.eval()


def _processor() -> str:
    """The model of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _space(config: MeasureConfig) -> SearchSpace:
    """The space that was asked for, else that of the supernet."""
    if config.space is not None:
        named = SPACES.get(config.space.name)
        return SearchSpace(config.space.spec(named.classes if named else 1000), config.space.cells)
    run = Path(config.supernet)
    if not run.exists():
        raise ValueError(
            f"there is no supernet in {run}; give its run as --supernet RUN, or a space as space=2d_mini_4"
        )
    return TrainedSupernet.open(run).space


def print_table(space: SearchSpace, table: LatencyTable) -> None:
    """Print latencies by stage and kind of layer, beside what FLOPs would make one expect."""
    print(f"{space.label} on {table.conditions}")
    print(f"{'stage':>5}  {'basic':>9}  {'sharing':>9}  {'sharing/basic':>13}  {'by FLOPs':>8}")
    for stage, (basic, sharing) in enumerate(zip(table.basic, table.sharing, strict=True)):
        flops = [layer_cost(space.spec, stage, letter).flops for letter in "BS"]
        ratio = f"{sharing / basic:.2f}" if basic else "-"
        print(
            f"{stage + 1:>5}  {format_duration(basic, 3):>9}  {format_duration(sharing, 3):>9}  {ratio:>13}  "
            f"{flops[1] / flops[0]:>8.2f}"
        )
    print(f"{'fixed':>5}  {format_duration(table.fixed, 3):>9}")
    print(table.trust)
