"""Is the winner of an exhaustive search the best of all? By brute force, without anything of the evaluator's.

    python -m benchmarks.exhaustive_truth --run runs/default/exhaustive-5M --supernet runs/default/supernet [--every 1]

Takes each architecture's weights out of the supernet as a network of its own, runs it whole on the whole search split,
and compares with ``history.csv``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from psvit.arch import CellPath
from psvit.engine.scoring import score_all
from psvit.search.history import History, HistoryRecord
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.inherit import inherit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--supernet", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="every which trial is checked")
    arguments = parser.parse_args()
    trained = TrainedSupernet.open(arguments.supernet)
    supernet, data = trained.load(), trained.open_data(None, 0)
    batches = list(data.eval_batches("search", trained.space.spec.image_size, 256))
    history = History(arguments.run / "history.csv")
    rank_by = HistoryRecord.load(arguments.run / "history.json").rank_by
    trials = history.trials[:: arguments.every]
    began, found = time.perf_counter(), []
    for trial in trials:
        network = inherit(supernet, CellPath.canonical(trial.architecture, trained.space.cells))
        (score,) = score_all([network], batches, torch.device("cpu"))
        found.append((score, trial))
    seconds = time.perf_counter() - began
    wrong = sum(score.top1 != trial.top1 for score, trial in found)
    difference = max(abs(score.loss - trial.loss) for score, trial in found)
    best = min(found, key=lambda pair: pair[0].loss if rank_by == "loss" else (-pair[0].top1, pair[0].loss))[1]
    print(
        f"{len(found):,} of {len(history):,} networks, each on its own, on {data.size('search')} images, "
        f"{seconds:.0f} s: {wrong} other top-1 counts, largest difference of a loss {difference:.1e}; "
        f"the best is {best.architecture}, in the history {history.best(rank_by).architecture}"  # type: ignore[union-attr]
    )


if __name__ == "__main__":
    main()
