"""The Pareto front of what was scored: top-1 against FLOPs, parameters, or several costs at once. No torch.

A frame has the columns of ``history.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def fully_scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a score, on the largest number of images in the frame: only these compare fairly."""
    scored = frame.dropna(subset=["top1", "loss"])
    return scored[scored["num_images"] == scored["num_images"].max()]


def pareto_front(frame: pd.DataFrame, costs: Sequence[str] = ("flops",)) -> pd.DataFrame:
    """The trials that no other one makes needless: as good a score or better, at no more of each cost.

    A score is top-1, and the loss where top-1 is equal. Of trials equal in score and costs one stays, the first by
    layers. Failed trials, and those scored on fewer images than others, are left out.

    Args:
        frame: the trials.
        costs: columns that should be small.

    Returns:
        The rows of the front, by rising costs.
    """
    names, scored = list(costs), fully_scored(frame)
    # of equal costs only the best can be on the front, which leaves thousands of a whole space's 250,047
    scored = scored[scored["top1"] == scored.groupby(names)["top1"].transform("max")]
    scored = scored[scored["loss"] == scored.groupby(names)["loss"].transform("min")]
    keys = ["top1", "loss", *names, "layers"]
    best_first = scored.sort_values(keys, ascending=[key != "top1" for key in keys]).drop_duplicates(names)
    amounts, left, front = best_first[names].to_numpy().T, np.arange(len(best_first)), []
    while len(left):
        front.append(left[0])  # nothing as good was as cheap
        cheaper = np.flatnonzero((amounts < amounts[:, :1]).any(axis=0))
        amounts, left = amounts.take(cheaper, axis=1), left[cheaper]
    return best_first.iloc[front].sort_values(names)
