"""What may be claimed of a search's winner: figures from images that did not choose it. Pure and seeded; no torch.

The images of the search split are cut into folds. In each fold the winner is chosen anew by the other folds, and what
it reaches there counts: so every image is used to report, and none reports on what it has chosen (cross-fitting). For
all architectures the sums of each fold are enough; outcomes image by image are needed of those few that win somewhere,
and of the comparison.

Shapes: A architectures, K folds, n images, m architectures of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psvit.intervals import CONFIDENCE, Estimate, t_interval, wilson
from psvit.run.random import numpy_rng

FOLDS = 6  # an even number, so that halves are whole folds
RELIABLE = 0.8  # reliability from which scores are said to tell architectures apart
_FEWEST_OF_EQUAL_COST = 8  # architectures that a spread is estimated from
_HALVES = 10  # ways of cutting six folds into halves

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def assign_folds(labels: ArrayLike, seed: int, folds: int = FOLDS) -> NDArray[np.int8]:
    """(n,) fold of each image, 0 to ``folds`` - 1: equally many images in each, and of each class, to one.

    Args:
        labels: (n,) class of each image.
        seed: of the assignment.
    """
    labels = np.asarray(labels)
    order = numpy_rng(seed, "folds").permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    assigned = np.empty(len(labels), np.int8)
    assigned[by_class] = np.arange(len(labels)) % folds
    return assigned


@dataclass(frozen=True)
class FoldSums:
    """Scores of many architectures, as sums over the images of each fold.

    Attributes:
        correct: (A, K) images that are classified correctly.
        loss: (A, K) sums of cross entropy; NaN where an architecture has no score.
        sizes: (K,) images of each fold.
    """

    correct: Floats
    loss: Floats
    sizes: Integers

    @classmethod
    def of(cls, correct: NDArray[Any], loss: NDArray[Any], folds: NDArray[np.int8]) -> FoldSums:
        """From outcomes image by image, (A, n) each, and the fold of each image."""
        member = np.equal.outer(folds, np.arange(FOLDS)).astype(np.float64)
        return cls(correct @ member, loss.astype(np.float64) @ member, member.sum(axis=0).astype(np.int64))

    @classmethod
    def of_images(cls, correct: Floats, loss: Floats, num_images: int) -> FoldSums:
        """From the sums of all images of a split, whose folds :func:`assign_folds` made as even as can be."""
        return cls(correct, loss, np.bincount(np.arange(num_images) % FOLDS, minlength=FOLDS))

    def order(self, rank_by: str, without: int | None = None) -> Integers:
        """(A,) architectures from best to worst by the images of all folds but one; ties keep the order they have.

        Args:
            rank_by: ``loss``, or ``top1``, whose ties the loss breaks.
            without: the fold that is left out; None leaves out none.
        """
        used = np.arange(len(self.sizes)) != (-1 if without is None else without)
        loss = np.nan_to_num(self.loss[:, used].sum(axis=1), nan=np.inf)
        correct = np.where(np.isinf(loss), -1, self.correct[:, used].sum(axis=1))
        keys = (loss,) if rank_by == "loss" else (loss, -correct.round(6))
        return np.lexsort(keys)

    def fold_orders(self, rank_by: str, best: int) -> Integers:
        """(K, ``best``) the best architectures as each fold sees them chosen: by the other folds."""
        return np.stack([self.order(rank_by, fold)[:best] for fold in range(len(self.sizes))])


# ---------------------------------------------------------------------------------------------------- estimates


def fitted_values(values: NDArray[Any], chosen: Integers, folds: NDArray[np.int8]) -> Floats:
    """(n,) what the architecture that the other folds have chosen reaches on each image.

    Args:
        values: (A, n) outcomes of those that are chosen somewhere.
        chosen: (K,) row of the architecture that is chosen for each fold.
    """
    return values[chosen[folds], np.arange(values.shape[1])].astype(np.float64)


def cross_fitted_score(values: NDArray[Any], chosen: Integers, folds: NDArray[np.int8]) -> Estimate:
    """The winner's own score on images that did not choose it, as :func:`fitted_values` has it."""
    fitted = fitted_values(values, chosen, folds)
    choice = _choice_variance(values, chosen)
    if values.dtype == bool:  # a share: Wilson's interval holds near 0 and 1, too
        low, high = wilson(fitted.mean(), len(fitted), choice)
        return Estimate(float(fitted.mean()), float(low), float(high))
    return t_interval(fitted.mean(), _images_variance(fitted, folds) + choice, len(fitted) - 1)


def cross_fitted_share(sums: FoldSums, chosen: Integers) -> tuple[Estimate, float]:
    """Top-1 and loss that the winner reaches on images that did not choose it, from the sums of the folds alone.

    The top-1 is that of :func:`cross_fitted_score`. The loss has no interval: that needs each image's.

    Args:
        chosen: (K,) row of the architecture that is chosen for each fold.
    """
    folds, num_images = np.arange(len(sums.sizes)), int(sums.sizes.sum())
    top1 = float(sums.correct[chosen, folds].sum()) / num_images
    means = sums.correct[np.unique(chosen)].sum(axis=1) / num_images
    choice = float(means[np.searchsorted(np.unique(chosen), chosen)].var()) / 2  # as in _choice_variance
    low, high = wilson(top1, num_images, choice)
    return Estimate(top1, float(low), float(high)), float(sums.loss[chosen, folds].sum()) / num_images


def cross_fitted_gain(values: NDArray[Any], chosen: Integers, folds: NDArray[np.int8], others: Floats) -> Estimate:
    """What choosing wins over picking one of the comparison at random, on images that did not choose.

    The difference is paired image by image. Its variance has three parts: that of the images; that of the draw of the
    comparison, less what the images have in it already; and that of the choice, since the winner of all images need
    not be that of each fold.

    Args:
        values: (A, n) outcomes of those that are chosen somewhere: right or wrong, or losses with their sign turned.
        chosen: (K,) row of the architecture that is chosen for each fold.
        others: (m, n) outcomes of random architectures of equal cost, at least two.
    """
    images, drawn = values.shape[1], len(others)
    difference = fitted_values(values, chosen, folds) - others.mean(axis=0)
    of_images = _images_variance(difference, folds)
    means = others.mean(axis=1)
    residual = others - others.mean(axis=0) - means[:, None] + means.mean()
    both = (residual**2).sum() / ((drawn - 1) * (images - 1)) / (drawn * images)
    of_draw = max(means.var(ddof=1) / drawn - both, 0.0)
    variance = of_images + of_draw + _choice_variance(values, chosen)
    return t_interval(difference.mean(), variance, min(drawn, images) - 1)


def cross_fitted_difference(values: Floats, first: Integers, second: Integers, folds: NDArray[np.int8]) -> Estimate:
    """How much one place of the order is ahead of another, on images that did not put them there.

    Args:
        values: (A, n) outcomes of those that take either place somewhere.
        first, second: (K,) row of the architecture at either place, as the other folds order them.
    """
    difference = fitted_values(values, first, folds) - fitted_values(values, second, folds)
    images = len(difference)
    variance = _images_variance(difference, folds)
    choice = _choice_variance(values, first) + _choice_variance(values, second)
    return t_interval(difference.mean(), variance + choice, images - 1)


def _images_variance(difference: Floats, folds: NDArray[np.int8]) -> float:
    """Of a mean over images that choose for each other: K / (K - 1) times that of independent ones.

    What chooses in one fold reports in another, so that the folds are not quite independent; the factor is what
    simulations ask for (benchmarks/coverage.py).
    """
    number = len(np.unique(folds))
    return float(difference.var(ddof=1)) / len(difference) * number / (number - 1)


def _choice_variance(values: NDArray[Any], chosen: Integers) -> float:
    """How much the winners of the folds differ in truth: half of what they differ by on all images.

    They were chosen for being close to each other there, so that the other half, about, is the images' noise.
    """
    return float(values.mean(axis=1, dtype=np.float64)[chosen].var()) / 2


# ---------------------------------------------------------------------------------------------------- reliability


@dataclass(frozen=True)
class Reliability:
    """Whether the images tell the architectures apart.

    Attributes:
        tau_top1, tau_loss: Kendall's tau between the order on one half of the images and that on the other, a mean
            over the ways of cutting the folds into halves; 0 where all are equal.
        loss: share of the variance of the losses, on all images, that is due to the architectures and not to the
            images, 0 to 1.
        spread: standard deviation of the architectures' true losses, the images' part taken off.
        num_images: how many images the scores are of.
    """

    tau_top1: float
    tau_loss: float
    loss: float
    spread: float
    num_images: int

    @property
    def enough(self) -> bool:
        """Whether these images are enough to choose."""
        return self.loss >= RELIABLE

    @property
    def images_needed(self) -> int | None:
        """About how many images would be (Spearman and Brown's formula); None if nothing tells them apart."""
        if self.loss <= 0:
            return None
        factor = RELIABLE * (1 - self.loss) / (self.loss * (1 - RELIABLE))
        return int(np.ceil(round(self.num_images * factor, 6)))


def reliability(sums: FoldSums) -> Reliability:
    """How well one half of the images predicts what the other half says of the architectures.

    Architectures without a score do not count.
    """
    scored = np.isfinite(sums.loss).all(axis=1)
    taus = []
    for half in _halves(len(sums.sizes)):
        parts = []
        for used in (half, ~half):
            images = sums.sizes[used].sum()
            parts.append((sums.correct[scored][:, used].sum(1) / images, sums.loss[scored][:, used].sum(1) / images))
        (top1, loss), (other_top1, other_loss) = parts
        taus.append((_tau(top1, other_top1), _tau(loss, other_loss)))
    images = int(sums.sizes.sum())
    variance = float(np.var(sums.loss[scored].sum(axis=1) / images))
    signal = max(variance - _noise(sums.loss[scored], sums.sizes, ddof=0), 0.0)
    tau_top1, tau_loss = np.mean(taus, axis=0).tolist()
    return Reliability(tau_top1, tau_loss, signal / variance if variance else 0.0, float(np.sqrt(signal)), images)


@dataclass(frozen=True)
class Headroom:
    """What there is to find among architectures of equal cost, by the loss that they inherit.

    Attributes:
        number: random architectures that it is estimated from.
        spread: standard deviation of their true losses, the images' part taken off.
        noise: of what the images add by chance to the loss of one next to another's, on as many as were scored.
    """

    number: int
    spread: float
    noise: float

    @property
    def gain(self) -> float:
        """How far the best of them is ahead of their mean, about: the expected largest of as many normal numbers.

        Blom's approximation (1958).
        """
        return self.spread * NormalDist().inv_cdf((self.number - 0.375) / (self.number + 0.25))

    @property
    def exists(self) -> bool:
        """Whether that is more than what these images add by chance to a difference of two."""
        return self.gain > self.noise * float(np.sqrt(2))


def headroom(sums: FoldSums) -> Headroom | None:
    """Of random architectures of equal cost; None for fewer than eight that have a score."""
    scored = np.isfinite(sums.loss).all(axis=1)
    if scored.sum() < _FEWEST_OF_EQUAL_COST:
        return None
    sums = FoldSums(sums.correct[scored], sums.loss[scored], sums.sizes)
    noise = _noise(sums.loss, sums.sizes, ddof=1)
    signal = float(np.var(sums.loss.sum(axis=1) / sums.sizes.sum(), ddof=1)) - noise
    return Headroom(len(sums.loss), float(np.sqrt(max(signal, 0.0))), float(np.sqrt(noise)))


def _noise(loss: Floats, sizes: Integers, ddof: int) -> float:
    """Variance that the images add to the architectures' mean losses: what halves of the images disagree by."""
    parts = []
    for half in _halves(len(sizes)):
        one, other = (loss[:, used].sum(axis=1) / sizes[used].sum() for used in (half, ~half))
        parts.append(np.var(one - other, ddof=ddof) / 4)  # of the mean of two halves
    return float(np.mean(parts))


def _halves(folds: int) -> Iterator[NDArray[np.bool_]]:
    """Ways of cutting the folds into halves, the first fold always in the first."""
    for others in list(combinations(range(1, folds), folds // 2 - 1))[:_HALVES]:
        yield np.isin(np.arange(folds), (0, *others))


def _tau(x: Floats, y: Floats) -> float:
    from scipy.stats import kendalltau

    tau = float(kendalltau(x, y).statistic) if len(x) > 1 else 0.0
    return 0.0 if np.isnan(tau) else tau


def not_told_apart(sums: FoldSums, chosen: Sequence[int] | Integers, values: Floats) -> NDArray[np.bool_]:
    """(A,) which architectures the images cannot tell from the winner by their loss, itself included.

    In each fold all are compared with the winner of the other folds. The standard error is that of the difference
    between two of the best, a mean over their pairs; an architecture is told apart when it is worse by more than
    1.645 of it (one-sided 95 %).

    Args:
        sums: of all architectures.
        chosen: (K,) number, in ``sums``, of the winner of the other folds.
        values: (a, n) losses, image by image, of some of the best; of these images or of others like them.
    """
    winners = sums.loss[np.asarray(chosen), np.arange(len(sums.sizes))]
    behind = (sums.loss - winners).sum(axis=1) / sums.sizes.sum()
    pairs = list(combinations(range(len(values)), 2))
    variance = np.mean([np.var(values[a] - values[b], ddof=1) for a, b in pairs]) if pairs else 0.0
    variance *= len(sums.sizes) / (len(sums.sizes) - 1)  # as in _images_variance
    tied = behind <= NormalDist().inv_cdf(CONFIDENCE) * np.sqrt(variance / sums.sizes.sum())
    tied[np.bincount(chosen).argmax()] = True
    return np.asarray(tied & np.isfinite(sums.loss).all(axis=1))
