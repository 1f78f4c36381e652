"""The Pareto front of what was scored: loss or top-1 against FLOPs, parameters, or several costs at once. No torch.

A frame has the columns of ``history.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from psvit.search.trial import score_order


def fully_scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a score, on the largest number of images in the frame: only these compare fairly."""
    scored = frame.dropna(subset=["top1", "loss"])
    return scored[scored["num_images"] == scored["num_images"].max()]


def pareto_front(frame: pd.DataFrame, costs: Sequence[str] = ("flops",), rank_by: str = "loss") -> pd.DataFrame:
    """The trials that no other one makes needless: as good a score or better, at no more of each cost.

    A score is the loss or the top-1, and the other where that is equal. Of trials equal in score and costs one stays,
    the first by layers. Failed trials, and those scored on fewer images than others, are left out.

    Args:
        frame: the trials.
        costs: columns that should be small.
        rank_by: ``loss`` or ``top1``.

    Returns:
        The rows of the front, by rising costs.
    """
    names, scored = list(costs), fully_scored(frame)
    # of equal costs only the best can be on the front, which leaves thousands of a whole space's 250,047
    order = score_order(rank_by)
    for score, less_is_better in order.items():
        groups = scored.groupby(names)[score]
        scored = scored[scored[score] == (groups.transform("min") if less_is_better else groups.transform("max"))]
    order |= dict.fromkeys([*names, "layers"], True)
    best_first = scored.sort_values(list(order), ascending=list(order.values())).drop_duplicates(names)
    amounts, left, front = best_first[names].to_numpy().T, np.arange(len(best_first)), []
    while len(left):
        front.append(left[0])  # nothing as good was as cheap
        cheaper = np.flatnonzero((amounts < amounts[:, :1]).any(axis=0))
        amounts, left = amounts.take(cheaper, axis=1), left[cheaper]
    return best_first.iloc[front].sort_values(names)
