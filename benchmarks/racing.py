"""Does racing find what full scoring finds, and at what share of the work?

    python -m benchmarks.racing --supernet runs/default/supernet [--flops 5M] [--seeds 20] [--keep 1 10]

Scores every architecture within the budget on the whole search split, once. Then races, as ``psvit-search exhaustive
search.race=true`` does, read these outcomes in another order of the images for each seed. Printed is how often the best
(and the best ``keep``) of full scoring came out, and the share of the image scores and of the multiply-adds used.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from psvit.arch import Architecture
from psvit.cost import Band
from psvit.data.pixels import stratified_order
from psvit.engine.distributed import Processes
from search.config import SearchRunConfig
from search.evaluator import Outcomes
from search.exhaustive import Exhaustive
from search.racing import race
from search.run import TOGETHER, make_evaluator, open_search_data
from supernet.checkpoint import TrainedSupernet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", required=True)
    parser.add_argument("--flops", default="5M")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--keep", type=int, nargs="*", default=[1, 10])
    parser.add_argument("--confidence", type=float, default=0.95)
    arguments = parser.parse_args()

    trained = TrainedSupernet.open(Path(arguments.supernet))
    config = SearchRunConfig(supernet=arguments.supernet, out=tempfile.gettempdir())
    data = open_search_data(trained, None, 0)
    evaluator = make_evaluator(config, trained, data, torch.device("cpu"), Processes())
    allowed = trained.space.within(Band.parse(arguments.flops))
    architectures = Exhaustive(allowed).ask(allowed.count)
    chunks = [architectures[first : first + TOGETHER] for first in range(0, len(architectures), TOGETHER)]
    parts = [evaluator.outcomes(chunk, range(evaluator.images)) for chunk in chunks]
    right, loss = np.concatenate([part.right for part in parts]), np.concatenate([part.loss for part in parts])
    place = {architecture: row for row, architecture in enumerate(architectures)}
    order = sorted(range(len(right)), key=lambda i: (-right[i].sum(), loss[i].sum(dtype=np.float64)))
    top1 = right.mean(axis=1)
    print(
        f"{len(architectures):,} architectures of {trained.space.label} within {arguments.flops}, {evaluator.images} "
        f"images; top-1 {top1.min():.4f} to {top1.max():.4f}, mean {top1.mean():.4f}; confidence {arguments.confidence}"
    )
    labels = data.labels("search")
    for keep in arguments.keep:
        best, all_best, images, madds = 0, 0, [], []
        for seed in range(arguments.seeds):
            columns = stratified_order(labels, seed)

            def outcomes(some: Sequence[Architecture], span: range, columns: np.ndarray = columns) -> Outcomes:
                rows = [place[architecture] for architecture in some]
                chosen = np.ix_(rows, columns[span.start : span.stop])
                return Outcomes(right[chosen], loss[chosen])

            with tempfile.TemporaryDirectory() as folder:
                raced = race(
                    outcomes,
                    evaluator.flops,
                    architectures,
                    evaluator.images,
                    keep,
                    arguments.confidence,
                    Path(folder),
                    {},
                )
            scored = np.flatnonzero(raced.images == evaluator.images)
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
