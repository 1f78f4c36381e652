"""What a step of a supernet costs, against plain networks of equal multiply-adds and against timm's DeiT.

    python -m benchmarks.supernet_step [--spaces 1d_tiny_16 2d_tiny_8 1d_small_16] [--batch 256] [--steps 30]

All are trained by the engine (psvit.engine.loop.train: loss, backward pass, fused AdamW, clipped gradients, metrics) on
images that are on the device already, in turns; the median of the rounds counts. "per FLOP" is multiply-adds a second,
as a ratio. The plain networks are drawn among those of the space within 1 % of the mean multiply-adds of a path,
another in each round. timm's DeiT (tiny, small or base, the nearest in multiply-adds) runs under torch.compile, as
timm's users train it; with --compile false nothing is compiled.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from psvit.arch import NetworkSpec
from psvit.cost import network_cost
from psvit.engine.config import Recipe
from psvit.engine.device import matmul_peak, pick_device
from psvit.engine.loop import LossOf, Task, classification_loss, train
from psvit.engine.runtime import Runtime
from psvit.model import PSViT
from psvit.run.folder import RunFolder
from psvit.run.random import numpy_rng
from psvit.supernet.routing import Routing
from psvit.supernet.sampling import make_sampler
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.supernet.train import mean_flops
from psvit.units import Band
from psvit.zoo import NETWORKS, SPACES


class Synthetic:
    """A feed whose images are there already; it notes when each batch is asked for."""

    def __init__(self, spec: NetworkSpec, batch: int, steps: int, device: torch.device) -> None:
        self.steps_per_epoch, self.batch_size = steps, batch
        self._batch = (
            torch.randn(batch, spec.channels, *spec.image_size, device=device),
            torch.randint(spec.classes, (batch,), device=device),
        )
        self.asked: list[float] = []

    def __call__(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(first_step, self.steps_per_epoch):
            self.asked.append(time.perf_counter())
            yield self._batch


@dataclass
class Contestant:
    """A network in training.

    Attributes:
        flops: mean multiply-adds of an image's forward pass.
        make: the network and its loss, another one in each round if it likes.
    """

    name: str
    flops: float
    make: Callable[[int], tuple[nn.Module, LossOf]]


def contestants(space: str, recipe: Recipe, batch: int, device: torch.device, compiled: bool) -> list[Contestant]:
    """The supernet by three ways of drawing paths, plain networks, and timm's DeiT."""
    spec = SPACES[space]
    whole = SearchSpace(spec)

    def supernet(sampling: str, paths: str) -> Contestant:
        sampler = make_sampler(sampling, paths, spec.stages, whole.cells)

        def make(turn: int) -> tuple[nn.Module, LossOf]:
            def routing(step: int) -> Routing:
                return Routing.of(sampler.draw(batch, numpy_rng(turn, "paths", step))[0], batch).to(device)

            routings = [routing(step) for step in range(200)]

            def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
                return classification_loss(model(images, routings[step % 200]), targets, recipe)

            return Supernet(spec, whole.cells), loss

        return Contestant(f"supernet, {sampling}, one path a{'n image' if paths == 'image' else ' batch'}", mean, make)

    def plain(turn: int) -> tuple[nn.Module, LossOf]:
        near = whole.within(Band(round(0.99 * mean), round(1.01 * mean)))
        return PSViT(spec, near.draw(numpy_rng(turn, "plain"))), labels

    def labels(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        return classification_loss(model(images), targets, recipe)

    mean = mean_flops(make_sampler("uniform", "image", spec.stages, whole.cells), whole)
    size, deit = min(
        ((name.split("_")[1], network_cost(*NETWORKS[name]).flops) for name in NETWORKS if name.startswith("deit")),
        key=lambda pair: abs(np.log(pair[1] / mean)),
    )

    def timms(turn: int) -> tuple[nn.Module, LossOf]:
        network = timm.create_model(f"deit_{size}_patch16_224", num_classes=spec.classes)
        return (torch.compile(network) if compiled else network), labels  # type: ignore[return-value]

    ours = [supernet("uniform", "image"), supernet("fair", "image"), supernet("uniform", "batch")]
    return [
        *ours,
        Contestant("plain networks of these FLOPs", mean, plain),
        Contestant(f"timm deit_{size}", deit, timms),
    ]


def speed(one: Contestant, turn: int, spec: NetworkSpec, recipe: Recipe, steps: int, device: torch.device) -> float:
    """Images a second over the second half of so many steps."""
    feed = Synthetic(spec, recipe.batch_size, steps, device)
    model, loss = one.make(turn)
    if one.name.startswith("timm"):  # it is compiled as a whole
        recipe = Recipe(**{**vars(recipe), "compile": "false"})
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder), {}) as run:
        train(model, recipe, Task(feed, loss, {}, flops=one.flops, partial=True), Runtime(0, device), run)
    first = steps // 2
    return (steps - 1 - first) * recipe.batch_size / (feed.asked[-1] - feed.asked[first])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["1d_tiny_16", "2d_tiny_8", "1d_small_16"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30, help="of each round; the second half is timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", choices=("auto", "true", "false"), default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = pick_device(options.device)
    recipe = Recipe(
        epochs=1,
        batch_size=options.batch,
        warmup_epochs=0,
        clip_norm=1.0,
        drop_path=0.0,
        compile=options.compile,
        precision=options.precision,
    )
    compiled = options.compile == "true" or (options.compile == "auto" and device.type == "cuda")
    peak = matmul_peak(device, options.precision)
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} CPU threads"
    print(f"torch {torch.__version__}, timm {timm.__version__}, {where}, precision {options.precision}, batch "
          f"{options.batch}, {'' if compiled else 'not '}compiled; a matrix product reaches {peak / 2e9:,.0f} G "
          "multiply-adds/s")  # fmt: skip
    print(
        "| space | what | G multiply-adds an image | images/s | per FLOP against plain | against timm | utilisation |"
    )
    print("|---|---|---|---|---|---|---|")
    for space in options.spaces:
        everyone = contestants(space, recipe, options.batch, device, compiled)
        found: dict[str, list[float]] = {one.name: [] for one in everyone}
        for turn in range(options.rounds):
            for one in everyone:
                torch.manual_seed(turn)
                found[one.name].append(speed(one, turn, SPACES[space], recipe, options.steps, device) * one.flops)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
        *_, plain, deit = everyone
        for one in everyone:
            rate = statistics.median(found[one.name])
            ratios = [statistics.median(a / b for a, b in zip(found[one.name], found[other.name], strict=True))
                      for other in (plain, deit)]  # fmt: skip
            print(f"| `{space}` | {one.name} | {one.flops / 1e9:.2f} | {rate / one.flops:,.1f} | {ratios[0]:.2f} | "
                  f"{ratios[1]:.2f} | {6 * rate / peak:.1%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
