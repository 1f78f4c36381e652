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

import numpy as np
import torch
from torch import Tensor

from benchmarks.evolution_vs_random import Interactions
from psvit.arch import Architecture, CellPath
from psvit.cost import Band
from psvit.engine.device import autocast, pick_device
from psvit.engine.scoring import score_all
from psvit.search.evaluator import Evaluator
from psvit.search.evolution import Evolution
from psvit.search.exhaustive import Exhaustive
from psvit.search.loop import TOGETHER
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES

ONE_BY_ONE = 200  # architectures


class Noise:
    """Made-up images in the place of a search split."""

    def __init__(self, size: tuple[int, int], images: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(256, (images, 3, *size), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(classes, (images,), generator=generator)
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
    images: int
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
    images = 8 if device.type == "cpu" else 10_000
    if quick:
        images = min(images, 256)
    few = [
        Case("generation", "1d_tiny_16", images, generation),
        Case("random 50", "1d_tiny_16", images, random(50)),
        Case("random 1000", "1d_tiny_16", images, random(1000)),
    ]
    if device.type == "cuda":
        return [*few, Case("band", "1d_tiny_16", images, band("1.3G"))]
    return [
        Case("band", "1d_tiny_16", images, band("1.292G..1.3G")),
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


def measure(case: Case, device: torch.device, peak: float) -> None:
    space = SearchSpace(SPACES[case.space])
    torch.manual_seed(0)
    supernet = Supernet(space.spec).eval().to(device)
    noise = Noise(space.spec.image_size, case.images, space.spec.classes)
    architectures = case.architectures(space)
    chunks = [architectures[first : first + TOGETHER] for first in range(0, len(architectures), TOGETHER)]
    chosen = np.random.default_rng(1).permutation(len(architectures))[:ONE_BY_ONE]
    some = [architectures[i] for i in chosen]
    if device.type == "cuda":  # one by one on 10,000 images for 200 architectures would take most of an hour
        some = some[:20]
    images = range(case.images)

    def evaluator(compiled: bool) -> Evaluator:
        return Evaluator(supernet, space, noise, device, compiled=compiled)  # type: ignore[arg-type]

    tree = evaluator(device.type == "cuda")
    spans = [images[first : first + tree.batch_size] for first in range(0, case.images, tree.batch_size)]

    def one_by_one() -> None:
        forwards = [partial(supernet, paths=CellPath.canonical(a, space.cells)) for a in some]
        for forward in forwards:  # each goes through all images, as everyone does it
            score_all([forward], noise.batches(spans, device), device)

    def along_the_tree() -> None:
        for chunk in chunks:
            tree.outcomes(chunk, images)

    tree.outcomes(some[:3], range(min(case.images, tree.batch_size)))  # warm-up, and compilation
    tree.outcomes(chunks[0][:50], range(min(case.images, tree.batch_size)))
    with autocast(device, "auto"), torch.inference_mode():
        supernet(next(noise.batches(spans[:1], device))[0], CellPath.canonical(some[0], space.cells))
    rows = [("one by one", *timed(one_by_one, device), len(some))]
    if device.type == "cuda":
        rows.append(
            ("one by one, compiled", *timed(lambda: [tree.outcomes([a], images) for a in some], device), len(some))
        )
    rows.append(("tree", *timed(along_the_tree, device), len(architectures)))

    alone = sum(space.cost(architecture).flops for architecture in architectures)
    theory = alone / tree.flops(architectures)
    print(f"\n{case.name}: {len(architectures):,} architectures of {case.space}, {case.images:,} images")
    print(f"  multiply-adds an image {alone:.3g} one by one, {alone / theory:.3g} along the tree: ratio {theory:.2f}")
    speeds = {name: number / seconds for name, seconds, _, number in rows}
    for name, seconds, memory, number in rows:
        extrapolated = seconds * len(architectures) / number
        line = f"  {name:<22}{speeds[name]:9.2f} architectures/s {extrapolated:9.1f} s for all  peak {memory:6.2f} GiB"
        if name != "tree":
            ratio = speeds["tree"] / speeds[name]
            line += f"  tree is {ratio:.2f} times as fast: {ratio / theory:.0%} of theory"
        print(line)
    if device.type == "cuda":
        few = range(min(case.images, 1000))
        exact = Evaluator(supernet, space, noise, device, precision="fp32").outcomes(some, few)  # type: ignore[arg-type]
        found = tree.outcomes(some, few)
        top1 = abs(exact.correct.mean(axis=1) - found.correct.mean(axis=1)).max()
        loss = abs(exact.loss.mean(axis=1) - found.loss.mean(axis=1)).max()
        print(f"  bf16 against float32, largest difference of a score: top-1 {top1:.5f}, loss {loss:.5f}")
    work = case.images * sum(tree.flops(chunk) for chunk in chunks)
    print(
        f"  the tree runs at {work / rows[-1][1] / 1e9:,.1f} G multiply-adds/s: "
        f"{work / rows[-1][1] / peak:.0%} of a large matrix product"
    )


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
