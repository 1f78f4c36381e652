"""How many architectures are scored a second, one by one and along the tree of their common beginnings?

    python -m benchmarks.search_throughput [--quick] [--only NAME ...]

In one run, on a supernet with random weights and made-up images: (a) a band of a budget, as exhaustive search scores
it; (b) a generation of evolution, and 50 random architectures; (c) a thousand random ones. One by one is what all
others do: every architecture runs whole, on the same batches of images; 200 of the set at random, extrapolated to all
of it. On a GPU also with compiled layers. Theory is the ratio of multiply-adds of exactly the set measured.

On a CPU the bands are 2,000 architectures of 1d_tiny_16 on 8 images and all of 2d_mini_4 on 64; on a GPU everything of
1d_tiny_16 within 1.3 G on 10,000.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evolution_vs_random import Interactions
from psvit.arch import Architecture, CellPath
from psvit.engine.device import autocast, pick_device
from psvit.engine.scoring import score_all
from psvit.search.evaluator import Evaluator
from psvit.search.evolution import Evolution
from psvit.search.exhaustive import Exhaustive
from psvit.search.loop import TOGETHER
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.units import Band
from psvit.zoo import SPACES

ONE_BY_ONE = 200  # architectures


class Noise:
    """Made-up images in the place of a search split."""

    def __init__(self, size: tuple[int, int], num_images: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(256, (num_images, 3, *size), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(classes, (num_images,), generator=generator)
        if torch.cuda.is_available():
            self.pixels = self.pixels.pin_memory()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, spans: Sequence[range], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for span in spans:
            images = self.pixels[span.start : span.stop].to(device, non_blocking=True)
            yield images.float().sub_(127).div_(64), self.labels[span.start : span.stop].to(device)


@dataclass(frozen=True)
class Case:
    """A set of architectures of a space, and on how many images it is scored."""

    name: str
    space: str
    num_images: int
    architectures: Callable[[SearchSpace], list[Architecture]]


def band(flops: str | None) -> Callable[[SearchSpace], list[Architecture]]:
    def members(space: SearchSpace) -> list[Architecture]:
        allowed = space.within(Band.parse(flops))
        return Exhaustive(allowed).ask(allowed.count)

    return members


def random(number: int) -> Callable[[SearchSpace], list[Architecture]]:
    def draw(space: SearchSpace) -> list[Architecture]:
        allowed, rng = space.within(Band.parse("1.3G")), np.random.default_rng(0)
        return list(dict.fromkeys(allowed.draw(rng) for _ in range(2 * number)))[:number]

    return draw


def generation(space: SearchSpace) -> list[Architecture]:
    """The tenth generation of evolution on a made-up objective (benchmarks/evolution_vs_random.py)."""
    allowed = space.within(Band.parse("1.3G"))
    score, searcher = Interactions(allowed).draw(0), Evolution(allowed, 0)
    for _ in range(10):
        asked = searcher.ask(50)
        searcher.tell([Trial(architecture, 0, 0, score[architecture], 0.0, 1, 0) for architecture in asked])
    return searcher.ask(50)


def cases(device: torch.device, quick: bool) -> list[Case]:
    num_images = 8 if device.type == "cpu" else 10_000
    if quick:
        num_images = min(num_images, 256)
    few = [
        Case("generation", "1d_tiny_16", num_images, generation),
        Case("random 50", "1d_tiny_16", num_images, random(50)),
        Case("random 1000", "1d_tiny_16", num_images, random(1000)),
    ]
    if device.type == "cuda":
        return [*few, Case("band", "1d_tiny_16", num_images, band("1.3G"))]
    return [
        Case("band", "1d_tiny_16", num_images, band("1.292G..1.3G")),
        *few,
        Case("mini", "2d_mini_4", 64, band("4M" if quick else None)),
    ]


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds, and the most memory held meanwhile in GiB: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the highest resident size starts anew
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    if device.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def matmul_peak(device: torch.device) -> float:
    """Multiply-adds a second of a large matrix product in the precision of the walk."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return size**3 / min(timed(lambda: a @ b, device)[0] for _ in range(10))


class Bench:
    """A case on a device: its architectures, one by one and along the tree, on the same batches of images."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.space = SearchSpace(SPACES[case.space])
        torch.manual_seed(0)
        self.supernet = Supernet(self.space.spec).eval().to(device)
        self.noise = Noise(self.space.spec.image_size, case.num_images, self.space.spec.classes)
        self.images = range(case.num_images)
        self.tree = self.evaluator(compiled=device.type == "cuda")
        size = self.tree.batch_size
        self.spans = [self.images[first : first + size] for first in range(0, case.num_images, size)]
        self.architectures = case.architectures(self.space)
        self.chunks = [
            self.architectures[first : first + TOGETHER] for first in range(0, len(self.architectures), TOGETHER)
        ]
        chosen = np.random.default_rng(1).permutation(len(self.architectures))[:ONE_BY_ONE]
        # one by one on 10,000 images for 200 architectures would take most of an hour
        self.some = [self.architectures[i] for i in chosen][: 20 if device.type == "cuda" else None]

    def evaluator(self, **options: Any) -> Evaluator:
        """One that scores on the made-up images."""
        return Evaluator(self.supernet, self.space, self.noise, self.device, **options)  # type: ignore[arg-type]

    def warm_up(self) -> None:
        """Compile, and fill the caches."""
        few = range(min(self.case.num_images, self.tree.batch_size))
        self.tree.outcomes(self.some[:3], few)
        self.tree.outcomes(self.chunks[0][:50], few)
        with autocast(self.device, "auto"), torch.inference_mode():
            images, _ = next(self.noise.batches(self.spans[:1], self.device))
            self.supernet(images, CellPath.canonical(self.some[0], self.space.cells))

    def one_by_one(self) -> None:
        """Some architectures, each through all images, as everyone does it."""
        for architecture in self.some:
            forward = partial(self.supernet, paths=CellPath.canonical(architecture, self.space.cells))
            score_all([forward], self.noise.batches(self.spans, self.device), self.device)

    def one_by_one_compiled(self) -> None:
        """The same with compiled layers."""
        for architecture in self.some:
            self.tree.outcomes([architecture], self.images)

    def along_the_tree(self) -> None:
        """All architectures."""
        for chunk in self.chunks:
            self.tree.outcomes(chunk, self.images)

    def rows(self) -> list[tuple[str, float, float, int]]:
        """What was measured, the tree last: name, seconds, GiB, architectures."""
        rows = [("one by one", *timed(self.one_by_one, self.device), len(self.some))]
        if self.device.type == "cuda":
            rows.append(("one by one, compiled", *timed(self.one_by_one_compiled, self.device), len(self.some)))
        return [*rows, ("tree", *timed(self.along_the_tree, self.device), len(self.architectures))]

    def error(self) -> tuple[float, float]:
        """Largest difference of top-1 and of loss between the tree and float32."""
        few = range(min(self.case.num_images, 1000))
        exact, found = self.evaluator(precision="fp32").outcomes(self.some, few), self.tree.outcomes(self.some, few)
        top1 = abs(exact.correct.mean(axis=1) - found.correct.mean(axis=1)).max()
        return top1, abs(exact.loss.mean(axis=1) - found.loss.mean(axis=1)).max()


def measure(case: Case, device: torch.device, peak: float) -> None:
    """Time a case, and print how fast the tree is beside one by one and beside theory."""
    bench = Bench(case, device)
    bench.warm_up()
    rows, architectures, tree = bench.rows(), bench.architectures, bench.tree
    alone = sum(bench.space.cost(architecture).flops for architecture in architectures)
    theory = alone / tree.flops(architectures)
    print(f"\n{case.name}: {len(architectures):,} architectures of {case.space}, {case.num_images:,} images")
    print(f"  multiply-adds per image {alone:.3g} one by one, {alone / theory:.3g} along the tree: ratio {theory:.2f}")
    speeds = {name: number / seconds for name, seconds, _, number in rows}
    for name, seconds, memory, number in rows:
        extrapolated = seconds * len(architectures) / number
        line = f"  {name:<22}{speeds[name]:9.2f} architectures/s {extrapolated:9.1f} s for all  peak {memory:6.2f} GiB"
        if name != "tree":
            ratio = speeds["tree"] / speeds[name]
            line += f"  tree is {ratio:.2f} times as fast: {ratio / theory:.0%} of theory"
        print(line)
    if device.type == "cuda":
        top1, loss = bench.error()
        print(f"  bf16 against float32, largest difference of a score: top-1 {top1:.5f}, loss {loss:.5f}")
    speed = case.num_images * sum(tree.flops(chunk) for chunk in bench.chunks) / rows[-1][1]
    print(f"  the tree runs at {speed / 1e9:,.1f} G multiply-adds/s: {speed / peak:.0%} of a large matrix product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images")
    parser.add_argument("--only", nargs="*", default=[], help="names of cases")
    arguments = parser.parse_args()
    device = pick_device("auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    peak = matmul_peak(device)
    print(
        f"{name}, torch {torch.__version__}, Python {platform.python_version()}; "
        f"a large matrix product {peak / 1e9:,.0f} G multiply-adds/s"
    )
    for case in cases(device, arguments.quick):
        if not arguments.only or case.name in arguments.only:
            measure(case, device, peak)
    print(f"\npeak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
