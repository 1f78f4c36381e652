"""What a search says of its winner, by images that did not choose it, and whether its images were enough to choose.

A searcher that asks the same whatever the scores (exhaustive, random) scores on all images, and what is claimed is
cross-fitted (``search/crossfit.py``). One that follows the scores (evolve, nsga2, a race) would carry what an image
says into the choice of what is scored at all: it searches on two thirds of the images, and the last third reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psvit.arch import Architecture
from psvit.intervals import Estimate
from psvit.search.crossfit import (
    FOLDS,
    FoldSums,
    Headroom,
    Reliability,
    assign_folds,
    cross_fitted_difference,
    cross_fitted_gain,
    cross_fitted_score,
    headroom,
    not_told_apart,
    reliability,
)
from psvit.search.trial import Trial
from psvit.units import format_quantity

if TYPE_CHECKING:
    from psvit.search.evaluator import Outcomes

EQUAL_COST = 0.02  # architectures whose FLOPs differ by at most this share are called of equal cost
TOP_ROWS = 20  # best architectures whose scores are compared closely
_REPORTS = 3  # of a search that follows the scores, the last of so many parts of the images reports
_FEWEST = 2 * FOLDS  # images that report at least


@dataclass(frozen=True)
class ImageShares:
    """Which images of the search split, in their order, a search scores on, and which report on its winner.

    Attributes:
        search: the images that architectures are scored on.
        report: those that say what the winner is worth; the same where it is cross-fitted.
    """

    search: range
    report: range

    @classmethod
    def of(cls, num_images: int, adaptive: bool) -> ImageShares:
        """The shares of a searcher.

        Args:
            adaptive: whether what it asks for follows from the scores.

        Raises:
            ValueError: there are too few images.
        """
        if num_images < _REPORTS * _FEWEST:
            raise ValueError(
                f"a search scores on {num_images} images; it needs {_REPORTS * _FEWEST} at least: use a larger "
                "search.num_images, or train the supernet with a larger data.search_fraction"
            )
        searched = num_images - num_images // _REPORTS if adaptive else num_images
        return cls(range(searched), range(searched if adaptive else 0, num_images))

    @property
    def cross_fitted(self) -> bool:
        """Whether the same images choose and report, in turn."""
        return self.search == self.report

    def assign_folds(self, labels: NDArray[np.int64], seed: int) -> NDArray[np.int8]:
        """(images,) fold of each image, even within each share."""
        parts = [self.search] if self.cross_fitted else [self.search, self.report]
        return np.concatenate([assign_folds(labels[part.start : part.stop], seed) for part in parts])


@dataclass(frozen=True)
class Claims:
    """What may be said of a search's winner; ``str`` says it in some lines.

    Attributes:
        num_images: images that report.
        cross_fitted: whether these choose, too, each for others; else they had no part in the search.
        top1, loss: the winner's own, with 95 % intervals.
        others: random architectures of equal cost that it was compared with.
        place: the winner's among them by ``rank_by``, 1 when none is better; None without any.
        gain_top1, gain_loss: how much better than their mean it is: top-1 higher, loss lower; None for fewer than two.
        reliability: of the scores that the search ranked by; None where it raced, or scored fewer than two.
        tied: how many of all that were scored the images cannot tell from the winner; None where it raced.
        cheapest, cheapest_flops: layers and FLOPs of the cheapest of these.
        flops: the winner's own; None in files of an older version.
        headroom: of random architectures of equal cost; None where too few were scored.
    """

    num_images: int
    cross_fitted: bool
    top1: Estimate
    loss: Estimate
    others: int
    place: int | None
    gain_top1: Estimate | None
    gain_loss: Estimate | None
    reliability: Reliability | None
    tied: int | None
    cheapest: str | None
    cheapest_flops: int | None
    flops: int | None = None
    headroom: Headroom | None = None

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """One sentence each: score, comparison, headroom, how many are tied, and whether the images were enough.

        That there is nothing to find at this cost comes first.
        """
        found = [self.own, self.compared, self._tied(), self._enough()]
        found.insert(2 if self.headroom and self.headroom.exists else 0, self._headroom())
        return [line for line in found if line]

    @property
    def own(self) -> str:
        """The winner's own score."""
        how = "that did not choose it" if self.cross_fitted else "that the search did not see"
        return f"on {self.num_images:,} images {how}: top-1 {self.top1}, loss {self.loss}"

    @property
    def compared(self) -> str:
        """How it compares with random architectures of its cost."""
        if not self.others:
            return "no other architectures of equal cost were scored to compare it with"
        several = "s" if self.others > 1 else ""
        place = (
            f"next to {self.others} random architecture{several} of equal cost (within {EQUAL_COST:.0%}): place "
            f"{self.place} of {self.others + 1}"
        )
        if self.gain_top1 is None or self.gain_loss is None:
            return place
        return f"{place}; better than their mean in top-1 by {self.gain_top1}, in loss by {self.gain_loss}"

    def _headroom(self) -> str:
        room = self.headroom
        if room is None:
            return ""
        if room.exists:
            return (
                f"losses of equal cost truly differ by {room.spread:.4f} (standard deviation; the images add "
                f"{room.noise:.4f} by chance): the best of {room.number} is about {room.gain:.4f} ahead of their mean"
            )
        return (
            f"at this cost there is little to find: by their losses the best of {room.number} random architectures is "
            f"about {room.gain:.4f} ahead of their mean, and the images add {room.noise:.4f} to each by chance; what a "
            "search can save here is cost"
        )

    def _tied(self) -> str:
        if not self.tied or self.tied == 1:
            return ""
        assert self.cheapest_flops is not None
        less = f", {1 - self.cheapest_flops / self.flops:.0%} less" if self.flops else ""
        return (
            f"the images cannot tell {self.tied:,} architectures from the winner; the cheapest of them is "
            f"{self.cheapest}, {format_quantity(self.cheapest_flops)} FLOPs{less}"
        )

    def _enough(self) -> str:
        if self.reliability is None or self.reliability.enough:
            return ""
        needed = self.reliability.images_needed
        how_many = "no number of images would be" if needed is None else f"about {needed:,} would be"
        return (
            f"these scores hardly tell the architectures apart: halves of the {self.reliability.num_images:,} images "
            f"agree on their order by a tau of {self.reliability.tau_loss:.2f} (loss) and "
            f"{self.reliability.tau_top1:.2f} (top-1); {how_many} enough to choose"
        )


class Reporter:
    """Makes a search's claims.

    Args:
        trials: all that was scored and is comparable: on as many images as the winner.
        outcomes: scores some architectures on a span of images, image by image.
        shares: which images searched, and which report.
        folds: (images,) fold of each image of the search split.
        rank_by: ``loss`` or ``top1``.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        outcomes: Callable[[Sequence[Architecture], range], Outcomes],
        shares: ImageShares,
        folds: NDArray[np.int8],
        rank_by: str,
    ) -> None:
        self.rank_by, self.shares = rank_by, shares
        self.trials = sorted((trial for trial in trials if not trial.failed), key=lambda trial: trial.sort_key(rank_by))
        self._outcomes, self._all_folds = outcomes, folds
        searched = folds[: len(shares.search)]
        with_folds = bool(self.trials) and all(trial.folds for trial in self.trials)
        self.sums = _fold_sums(self.trials, searched) if with_folds else None
        self.folds = folds[shares.report.start : shares.report.stop]

    def __call__(self, baseline: Sequence[Trial]) -> tuple[Claims, pd.DataFrame]:
        """The claims, and the table of ``top.csv`` (:data:`psvit.search.tables.TOP`).

        Args:
            baseline: random architectures of the winner's cost.
        """
        places = self._places()
        rows = np.unique(places)
        drawn = [trial.architecture for trial in baseline if not trial.failed]
        architectures = [self.trials[row].architecture for row in rows]
        scored = self._outcomes([*architectures, *drawn], self.shares.report)
        correct, loss = scored.correct, np.minimum(scored.loss, 1e30)
        places = np.searchsorted(rows, places)  # of the rows of outcomes
        best, others = slice(len(rows)), slice(len(rows), None)
        claims = self._claims(places[:, 0], (correct[best], loss[best]), (correct[others], loss[others]))
        claims = replace(claims, flops=self.trials[0].flops, headroom=self._headroom_of(baseline))
        return self._with_ties(claims, loss[best]), self._top_table(places, correct[best], loss[best])

    def _headroom_of(self, baseline: Sequence[Trial]) -> Headroom | None:
        """Of the images that were searched on: architectures that are drawn at random were chosen by none."""
        scored = [trial for trial in baseline if not trial.failed and trial.folds]
        return headroom(_fold_sums(scored, self._all_folds[: len(self.shares.search)])) if scored else None

    def _places(self) -> NDArray[np.int64]:
        """(K, places) number, in ``trials``, of the architecture at each place as each fold sees it."""
        best = min(TOP_ROWS, len(self.trials))
        if self.shares.cross_fitted and self.sums is not None:
            return self.sums.fold_orders(self.rank_by, best)
        return np.tile(np.arange(best), (FOLDS, 1))

    def _claims(
        self,
        chosen: NDArray[np.int64],
        best: tuple[NDArray[Any], NDArray[Any]],
        others: tuple[NDArray[Any], NDArray[Any]],
    ) -> Claims:
        (correct, loss), (other_correct, other_loss) = best, others
        number = len(other_correct)
        top1, own_loss = (cross_fitted_score(values, chosen, self.folds) for values in (correct, loss))
        place, gain_top1, gain_loss = None, None, None
        if number > 1:
            gain_top1 = cross_fitted_gain(correct, chosen, self.folds, other_correct.astype(float))
            gain_loss = cross_fitted_gain(-loss.astype(float), chosen, self.folds, -other_loss.astype(float))
        if number:
            better = (
                other_loss.mean(axis=1, dtype=float) < own_loss.value
                if self.rank_by == "loss"
                else other_correct.mean(axis=1) > top1.value
            )
            place = 1 + int(better.sum())
        return Claims(
            num_images=len(self.shares.report),
            cross_fitted=self.shares.cross_fitted,
            top1=top1,
            loss=own_loss,
            others=number,
            place=place,
            gain_top1=gain_top1,
            gain_loss=gain_loss,
            reliability=None,
            tied=None,
            cheapest=None,
            cheapest_flops=None,
        )

    def _with_ties(self, claims: Claims, loss: NDArray[Any]) -> Claims:
        """What the sums of all architectures add: reliability, and which are tied with the winner."""
        if self.sums is None:
            return claims
        chosen = self.sums.fold_orders(self.rank_by, 1)[:, 0]
        apart = ~not_told_apart(self.sums, chosen, loss.astype(float))
        apart[0] = False  # the winner, which each fold alone need not choose
        tied = [trial for trial, is_apart in zip(self.trials, apart, strict=True) if not is_apart]
        cheapest = min(tied, key=lambda trial: trial.flops)
        return replace(
            claims,
            reliability=reliability(self.sums) if len(self.trials) > 1 else None,
            tied=len(tied),
            cheapest=str(cheapest.architecture),
            cheapest_flops=cheapest.flops,
        )

    def _top_table(self, places: NDArray[np.int64], correct: NDArray[Any], loss: NDArray[Any]) -> pd.DataFrame:
        rows = []
        for place in range(places.shape[1]):
            trial, at = self.trials[place], places[:, place]
            fresh, fresh_loss = (cross_fitted_score(values, at, self.folds) for values in (correct, loss))
            behind = cross_fitted_difference(correct.astype(float), places[:, 0], at, self.folds)
            rows.append(
                {
                    "place": place + 1,
                    "layers": str(trial.architecture),
                    "flops": trial.flops,
                    "params": trial.params,
                    "top1": trial.top1,
                    "loss": trial.loss,
                    "num_images": trial.num_images,
                    "fresh_top1": fresh.value,
                    "fresh_low": fresh.low,
                    "fresh_high": fresh.high,
                    "fresh_loss": fresh_loss.value,
                    "behind": behind.value,
                    "behind_low": behind.low,
                    "behind_high": behind.high,
                }
            )
        return pd.DataFrame(rows)


def _fold_sums(trials: Sequence[Trial], folds: NDArray[np.int8]) -> FoldSums:
    """The sums that trials have kept."""
    table = np.array([trial.folds for trial in trials]).reshape(len(trials), 2, FOLDS)
    return FoldSums(table[:, 0], table[:, 1], np.bincount(folds, minlength=FOLDS))
