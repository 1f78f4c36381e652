"""Does racing find what full scoring finds, and at what share of the work?

    python -m benchmarks.racing --supernet runs/default/supernet [--flops 5M] [--seeds 20] [--keep 1 10]
    python -m benchmarks.racing --made-up 5000 10000

Scores every architecture within the budget on the whole search split, once. Then races, as ``psvit-search exhaustive
search.race=true`` does, read these outcomes in another order of the images for each seed. Printed is how often the best
(and the best ``keep``) of full scoring came out, and the share of the image scores and of the multiply-adds used.

With --made-up the outcomes of so many architectures on so many images are made up: images differ in ease, architectures
in skill, and an image is right where ease, skill and chance add up to more than nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from psvit.arch import Architecture
from psvit.data.pixels import Pixels, stratified_order
from psvit.engine.distributed import Processes
from psvit.search.config import SearchRunConfig
from psvit.search.evaluator import Outcomes
from psvit.search.exhaustive import Exhaustive
from psvit.search.loop import TOGETHER
from psvit.search.racing import race
from psvit.search.run import make_evaluator, open_search_data
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES


@dataclass(frozen=True)
class Table:
    """Outcomes (architectures, images), labels of the images, and the multiply-adds of scoring some together."""

    name: str
    architectures: list[Architecture]
    correct: np.ndarray
    loss: np.ndarray
    labels: np.ndarray
    flops: Callable[[Sequence[Architecture]], int]


def score(run: Path, flops: Band) -> Table:
    """The outcomes of all architectures within a budget with the weights that they inherit."""
    trained = TrainedSupernet.open(run)
    config = SearchRunConfig(supernet=str(run), out=tempfile.gettempdir())
    data = open_search_data(trained, None, 0)
    evaluator = make_evaluator(config, trained, data, torch.device("cpu"), Processes())
    allowed = trained.space.within(flops)
    architectures = Exhaustive(allowed).ask(allowed.count)
    chunks = [architectures[first : first + TOGETHER] for first in range(0, len(architectures), TOGETHER)]
    parts = [evaluator.outcomes(chunk, range(evaluator.images)) for chunk in chunks]
    correct, loss = np.concatenate([part.correct for part in parts]), np.concatenate([part.loss for part in parts])
    # the evaluator has an order of its own; here only the classes matter, of which each has its share anyway
    labels = Pixels(data, "search", trained.space.spec.image_size, None, trained.data.split_seed).labels
    return Table(f"{trained.space.label} within {flops}", architectures, correct, loss, labels, evaluator.flops)


def make_up(architectures: int, images: int) -> Table:
    """Outcomes by chance; neighbours in the tree are not alike, and multiply-adds are those of one by one."""
    rng = np.random.default_rng(0)
    space = SearchSpace(SPACES["1d_tiny_16"])
    chosen = Exhaustive(space.within(Band.parse("1.3G"))).ask(architectures)
    skill = rng.normal(2.2, 0.07, (architectures, 1)).astype(np.float32)
    worth = skill + rng.normal(0, 3.2, images).astype(np.float32)
    worth += rng.normal(0, 0.8, worth.shape).astype(np.float32)
    cost = space.cost
    return Table(
        "a made-up table",
        chosen,
        worth > 0,
        np.logaddexp(0, -worth),
        np.zeros(images, dtype=np.int64),
        lambda some: sum(cost(architecture).flops for architecture in some),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", type=Path)
    parser.add_argument("--made-up", type=int, nargs=2, metavar=("ARCHITECTURES", "IMAGES"))
    parser.add_argument("--flops", default="5M")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--keep", type=int, nargs="*", default=[1, 10])
    parser.add_argument("--confidence", type=float, default=0.95)
    arguments = parser.parse_args()
    if bool(arguments.supernet) == bool(arguments.made_up):
        parser.error("give either --supernet or --made-up")

    table = make_up(*arguments.made_up) if arguments.made_up else score(arguments.supernet, Band.parse(arguments.flops))
    architectures, correct, loss, labels = table.architectures, table.correct, table.loss, table.labels
    place = {architecture: row for row, architecture in enumerate(architectures)}
    order = sorted(range(len(correct)), key=lambda i: (-correct[i].sum(), loss[i].sum(dtype=np.float64)))
    top1, images_in_all = correct.mean(axis=1), correct.shape[1]
    print(
        f"{len(architectures):,} architectures of {table.name}, {images_in_all:,} images; top-1 {top1.min():.4f} to "
        f"{top1.max():.4f}, mean {top1.mean():.4f}; confidence {arguments.confidence}"
    )
    for keep in arguments.keep:
        best, all_best, images, madds = 0, 0, [], []
        for seed in range(arguments.seeds):
            columns = stratified_order(labels, seed)

            def outcomes(some: Sequence[Architecture], span: range, columns: np.ndarray = columns) -> Outcomes:
                rows = [place[architecture] for architecture in some]
                chosen = np.ix_(rows, columns[span.start : span.stop])
                return Outcomes(correct[chosen], loss[chosen])

            with tempfile.TemporaryDirectory() as folder:
                raced = race(
                    outcomes,
                    table.flops,
                    architectures,
                    images_in_all,
                    keep,
                    arguments.confidence,
                    Path(folder),
                    {},
                )
            scored = np.flatnonzero(raced.images == images_in_all)
            winner = min(scored, key=lambda i: (-raced.top1[i], raced.loss[i]))
            best += winner == order[0]
            all_best += set(order[:keep]) <= set(scored.tolist())
            images.append(raced.report["image_share"])
            madds.append(raced.report["madds"]["race"] / raced.report["madds"]["full"])
        kept = [r["kept"] for r in raced.report["rounds"]]
        print(
            f"keep {keep:>2}: the same best in {best} of {arguments.seeds} seeds, all best {keep} kept in {all_best}; "
            f"image scores used {np.mean(images):.1%} ({min(images):.1%} to {max(images):.1%}), multiply-adds "
            f"{np.mean(madds):.1%}; last seed, left after each round: {kept}"
        )


if __name__ == "__main__":
    main()
