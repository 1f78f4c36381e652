"""What a supernet's step takes by each sampling, plain and compiled, and how often it is compiled.

    python -m benchmarks.recompiles [--space 1d_tiny_16] [--batch 1024] [--steps 24] [--backend inductor]

A step is the forward and backward pass over images that are on the device already; routings are drawn before. The
median of the second half is timed; "late graphs" are those that it compiled anew; "first half" is all steps before it.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from psvit.engine.device import autocast, pick_device
from psvit.run.random import numpy_rng
from psvit.supernet.routing import Routing
from psvit.supernet.sampling import SAMPLINGS, make_sampler
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES


def seconds_and_graphs(
    net: Supernet, images: Tensor, routings: list[Routing], precision: str
) -> tuple[list[float], list[int]]:
    """Seconds of each step, and how many graphs dynamo has compiled after it."""
    seconds, graphs = [], []
    for routing in routings:
        start = time.perf_counter()
        net.zero_grad()
        with autocast(images.device, precision):
            logits = net(images, routing)
        logits.float().square().mean().backward()
        if images.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return seconds, graphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="1d_tiny_16", choices=SPACES)
    parser.add_argument("--samplings", nargs="+", default=["uniform", "fair", "canonical-depth"], choices=SAMPLINGS)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=24, help="of each sampling; the second half is timed")
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device, spec, half = pick_device(options.device), SPACES[options.space], options.steps // 2
    images = torch.randn(options.batch, spec.channels, *spec.image_size, device=device)
    print(f"torch {torch.__version__}, {device.type}, `{options.space}`, batch {options.batch}, {options.precision}")
    print("| sampling | compiled | ms a step | first half, s | graphs | late graphs |")
    print("|---|---|---|---|---|---|")
    for name in options.samplings:
        for compiled in (False, True):
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            torch.manual_seed(0)
            net = Supernet(spec).to(device).train()
            if compiled:
                net.compile_layers(options.backend)
            sampler = make_sampler(name, "image", spec.stages, net.cells)
            codes = [sampler.draw(options.batch, numpy_rng(0, "paths", step)) for step in range(options.steps)]
            routings = [
                Routing.of(drawn.reshape(-1, spec.stages, net.cells), options.batch).to(device) for drawn in codes
            ]
            seconds, graphs = seconds_and_graphs(net, images, routings, options.precision)
            median = 1e3 * statistics.median(seconds[half:])
            print(f"| {name} | {compiled} | {median:,.1f} | {sum(seconds[:half]):.1f} | "
                  f"{graphs[-1]} | {graphs[-1] - graphs[half - 1]} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
