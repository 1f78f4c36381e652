"""What does each exported form answer and cost, for each kind of network, at each batch size?

    python -m benchmarks.export_matrix [--size digits | 224] [--repeats 50]

Networks of about equal cost: 1-D and 2-D, each with and without shared attention maps, and timm's DeiT-Tiny, exported
the same way. Each runs in torch, as a loaded torch.export program, in onnxruntime and in OpenVINO (in float32, and in
the bfloat16 that it chooses by itself on some CPUs), on one thread. The table has the largest difference of a logit
from torch's, and the milliseconds an image takes: the median of repeats, in each of which all forms of all networks
take turns, so that a busy machine delays them alike.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from psvit.deploy.formats import FORMATS_BY_NAME, Run, open_onnx, open_openvino
from psvit.flops import count_flops
from psvit.networks import find_arch
from psvit.units import format_quantity

BATCHES = (1, 2, 5, 32)
RUNTIMES: dict[str, tuple[str, Callable[[Path], tuple[Run, str | None]]]] = {  # as the table says -> format, opener
    "torch-export": ("torch-export", FORMATS_BY_NAME["torch-export"].open),
    "onnx": ("onnx", partial(open_onnx, threads=1)),
    "openvino": ("openvino", partial(open_openvino, threads=1)),
    "openvino, bf16": ("openvino", partial(open_openvino, threads=1, precision="bf16")),
}


@dataclass(frozen=True)
class Size:
    """Networks of about equal cost.

    Attributes:
        image: height and width.
        names: of this repository's networks, by what the table calls them.
        deit: changes to timm's DeiT-Tiny that bring it to this cost.
        repeats: of each measurement, unless told.
    """

    image: int
    names: dict[str, str]
    deit: dict[str, int]
    repeats: int


def _names(deit: str) -> dict[str, str]:
    return {
        "1-D": f"{deit}_wider",
        "1-D, sharing": f"{deit}_both",
        "2-D": f"{deit}_2d_pooling",
        "2-D, sharing": f"{deit}_2d_both",
    }


SIZES = {
    "digits": Size(
        32,
        _names("deit_mini_4"),  # of the spaces 1d_mini_4 and 2d_mini_4
        {"img_size": 32, "patch_size": 4, "embed_dim": 32, "num_heads": 2, "depth": 6, "num_classes": 10},
        50,
    ),
    "224": Size(224, _names("deit_tiny_16"), {}, 5),  # of the spaces 1d_tiny_16 and 2d_tiny_8
}


def build(size: Size) -> dict[str, nn.Module]:
    """The networks by name, with random weights and heads whose logits are well apart."""
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {kind: find_arch(name).build() for kind, name in size.names.items()}
    networks["timm DeiT-Tiny"] = timm.create_model("deit_tiny_patch16_224", **size.deit)
    for network in networks.values():
        head: Any = network.head
        nn.init.normal_(head.weight)
        network.eval().requires_grad_(False)
    return networks


def export(network: nn.Module, images: Tensor, folder: Path) -> dict[str, Run]:
    """The network in each runtime, from files in ``folder``, on one thread; in torch itself first."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    runs: dict[str, Run] = {"torch": network}
    for runtime, (name, opened) in RUNTIMES.items():
        path = folder / FORMATS_BY_NAME[name].file
        if not path.exists():
            FORMATS_BY_NAME[name].write(program, "{}", path)
        runs[runtime], _ = opened(path)
    return runs


@torch.inference_mode()
def apart(run: Run, network: nn.Module, images: Tensor) -> float:
    """The largest difference of a logit from torch's."""
    return float((run(images) - network(images)).abs().max())


@torch.inference_mode()
def measure(runs: dict[tuple[str, str], Run], images: Tensor, repeats: int) -> dict[tuple[str, str], float]:
    """Milliseconds an image: medians of repeats, in each of which all take turns."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for repeat in range(repeats + 1):
        for key, run in runs.items():
            began = time.perf_counter()
            run(images)
            if repeat:  # the first is to warm up
                times[key].append((time.perf_counter() - began) * 1e3 / len(images))
    return {key: statistics.median(each) for key, each in times.items()}


def show(size: Size, repeats: int) -> None:
    """Print the table of one size."""
    networks, images = build(size), torch.randn(max(BATCHES), 3, size.image, size.image)
    runs: dict[tuple[str, str], Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, network in networks.items():
            (place := Path(folder) / kind).mkdir()
            runs |= {(kind, runtime): run for runtime, run in export(network, images[:5], place).items()}
        differences = {
            (kind, runtime): max(apart(run, networks[kind], images[:batch]) for batch in BATCHES)
            for (kind, runtime), run in runs.items()
        }
        columns = [measure(runs, images[:batch], repeats) for batch in BATCHES]
        runs.clear()
    largest = min(float(network(images).abs().max()) for network in networks.values())
    print(f"{size.image} px, medians of {repeats}; the largest logit of each network is {largest:.0f} or more\n")
    titles = ["network", "FLOPs", "in", "largest difference", *(f"ms, batch {batch}" for batch in BATCHES)]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for kind, runtime in differences:
        flops = format_quantity(count_flops(networks[kind], images[:1]), 3)
        cells = [f"{column[kind, runtime]:.3g}" for column in columns]
        print(f"| {kind} | {flops} | {runtime} | {differences[kind, runtime]:.1g} | {' | '.join(cells)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_matrix")
    parser.add_argument("--size", choices=SIZES, action="append", help="leave out for all")
    parser.add_argument("--repeats", type=int, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("torch", "timm", "onnxruntime")]
    versions += [f"openvino {importlib.metadata.version('openvino')}", f"Python {platform.python_version()}"]
    print(", ".join(versions) + "\n")
    for name in asked.size or SIZES:
        show(SIZES[name], asked.repeats or SIZES[name].repeats)


if __name__ == "__main__":
    main()
