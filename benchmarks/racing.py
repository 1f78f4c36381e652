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
from psvit.search.budget import Budget
from psvit.search.config import SearchRunConfig
from psvit.search.evaluator import Outcomes, make_evaluator
from psvit.search.exhaustive import Exhaustive
from psvit.search.history import HistoryRecord
from psvit.search.loop import TOGETHER
from psvit.search.racing import Raced, race
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES


@dataclass(frozen=True)
class Table:
    """Outcomes (architectures, images), labels of the images, and the multiply-adds of scoring some together."""

    name: str
    space: SearchSpace
    architectures: list[Architecture]
    correct: np.ndarray
    loss: np.ndarray
    labels: np.ndarray
    flops: Callable[[Sequence[Architecture]], int]


def score(run: Path, flops: Band) -> Table:
    """The outcomes of all architectures within a budget with the weights that they inherit."""
    trained = TrainedSupernet.open(run)
    config = SearchRunConfig(supernet=str(run), out=tempfile.gettempdir())
    data = trained.open_data(None, 0)
    evaluator = make_evaluator(config, trained, data, torch.device("cpu"), Processes())
    allowed = trained.space.within(flops)
    architectures = Exhaustive(allowed).ask(allowed.count)
    chunks = [architectures[first : first + TOGETHER] for first in range(0, len(architectures), TOGETHER)]
    parts = [evaluator.outcomes(chunk, range(evaluator.num_images)) for chunk in chunks]
    correct, loss = np.concatenate([part.correct for part in parts]), np.concatenate([part.loss for part in parts])
    # the evaluator has an order of its own; here only the classes matter, of which each has its share anyway
    labels = Pixels(data, "search", trained.space.spec.image_size, None, trained.data.split_seed).labels
    name = f"{trained.space.label} within {flops}"
    return Table(name, trained.space, architectures, correct, loss, labels, evaluator.flops)


def make_up(architectures: int, num_images: int) -> Table:
    """Outcomes by chance; neighbours in the tree are not alike, and multiply-adds are those of one by one."""
    rng = np.random.default_rng(0)
    space = SearchSpace(SPACES["1d_tiny_16"])
    chosen = Exhaustive(space.within(Band.parse("1.3G"))).ask(architectures)
    skill = rng.normal(2.2, 0.07, (architectures, 1)).astype(np.float32)
    worth = skill + rng.normal(0, 3.2, num_images).astype(np.float32)
    worth += rng.normal(0, 0.8, worth.shape).astype(np.float32)
    cost = space.cost
    return Table(
        "a made-up table",
        space,
        chosen,
        worth > 0,
        np.logaddexp(0, -worth),
        np.zeros(num_images, dtype=np.int64),
        lambda some: sum(cost(architecture).flops for architecture in some),
    )


def race_once(table: Table, keep: int, confidence: float, seed: int) -> Raced:
    """A race that reads the table, the images in an order of the seed."""
    place = {architecture: row for row, architecture in enumerate(table.architectures)}
    columns, num_images = stratified_order(table.labels, seed), len(table.labels)
    record = HistoryRecord("", table.space, {}, num_images, 0, seed, "top1", "exhaustive", Budget())

    def outcomes(some: Sequence[Architecture], span: range) -> Outcomes:
        rows = [place[architecture] for architecture in some]
        chosen = np.ix_(rows, columns[span.start : span.stop])
        return Outcomes(table.correct[chosen], table.loss[chosen])

    with tempfile.TemporaryDirectory() as folder:
        return race(outcomes, table.flops, table.architectures, num_images, keep, confidence, Path(folder), record)


def compare(table: Table, keep: int, confidence: float, seeds: int) -> None:
    """Print how often races for the best ``keep`` end as full scoring does, and what they save."""
    losses = table.loss.sum(axis=1, dtype=np.float64)
    order = sorted(range(len(losses)), key=lambda i: (-table.correct[i].sum(), losses[i]))
    best, all_best, images, flops = 0, 0, [], []
    for seed in range(seeds):
        raced = race_once(table, keep, confidence, seed)
        scored = np.flatnonzero(raced.num_images == len(table.labels))
        winner = min(scored, key=lambda i: (-raced.top1[i], raced.loss[i]))
        best += winner == order[0]
        all_best += set(order[:keep]) <= set(scored.tolist())
        images.append(raced.record.image_share)
        flops.append(raced.record.flops / raced.record.full_flops)
    kept = [each.kept for each in raced.record.rounds]
    print(
        f"keep {keep:>2}: the same best in {best} of {seeds} seeds, all best {keep} kept in {all_best}; "
        f"image scores used {np.mean(images):.1%} ({min(images):.1%} to {max(images):.1%}), multiply-adds "
        f"{np.mean(flops):.1%}; last seed, left after each round: {kept}"
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
    top1 = table.correct.mean(axis=1)
    print(
        f"{len(top1):,} architectures of {table.name}, {len(table.labels):,} images; top-1 {top1.min():.4f} to "
        f"{top1.max():.4f}, mean {top1.mean():.4f}; confidence {arguments.confidence}"
    )
    for keep in arguments.keep:
        compare(table, keep, arguments.confidence, arguments.seeds)


if __name__ == "__main__":
    main()
