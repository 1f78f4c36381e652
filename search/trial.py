"""A scored architecture: what searchers are told, histories keep and results are made of. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from psvit.arch import Architecture
from psvit.search.tables import FOLD_COLUMNS, HISTORY

NO_FOLDS = (math.nan,) * len(FOLD_COLUMNS)


def score_order(rank_by: str) -> dict[str, bool]:
    """The scores that architectures are ordered by, first to last, and whether less of each is better.

    Args:
        rank_by: ``loss`` or ``top1``; the other one decides where it is equal.
    """
    order = {"loss": True, "top1": False}
    return {rank_by: order.pop(rank_by), **order}


@dataclass(frozen=True)
class Trial:
    """A scored architecture.

    Attributes:
        flops: multiply-adds per image.
        params: number of parameters.
        top1: share of the search split that it classifies correctly, 0 to 1; NaN when it could not be scored.
        loss: mean cross-entropy on the search split.
        num_images: how many images of the search split it was scored on.
        generation: the batch of the search that it was scored in, from 0.
        folds: images that it classifies correctly in each fold, then the sums of their losses in each
            (``search/crossfit.py``); empty where it was not scored on all images.
    """

    architecture: Architecture
    flops: int
    params: int
    top1: float
    loss: float
    num_images: int
    generation: int
    folds: tuple[float, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether its score is not a number."""
        return math.isnan(self.top1) or math.isnan(self.loss)

    def score_key(self, rank_by: str) -> tuple[float, float]:
        """Its scores as :func:`score_order` has them, the better ones less."""
        loss, error = self.loss, -self.top1
        return (loss, error) if rank_by == "loss" else (error, loss)

    def sort_key(self, rank_by: str) -> tuple[bool, int, float, float, int, str]:
        """Sorts the best first: by loss or top-1, then the other, then FLOPs, then the layers; failed ones last.

        What was scored on more images comes before all others: a race scores on all only those that may be the best.
        No two architectures are equal by it, so the order in which they were scored never matters.
        """
        score = (0.0, 0.0) if self.failed else self.score_key(rank_by)
        return (self.failed, -self.num_images, *score, self.flops, str(self.architecture))

    def row(self, number: int) -> dict[str, Any]:
        """Its row in the table of all trials, whose numbers start at 1."""
        costs = (self.flops, self.params)
        scores = (self.top1, self.loss, self.num_images, self.generation, *(self.folds or NO_FOLDS))
        values = (number, str(self.architecture), *costs, *scores)
        return dict(zip(HISTORY.columns, values, strict=True))
