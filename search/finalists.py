"""Who enters a final, and which images judge it. Pure and seeded; no torch.

The search split is cut once. Some of its images have ranked the entrants; what is left is cut into three parts, even
in the classes, of which two drop networks in turns and the third, which has dropped nobody, says what the winner is
worth:

====================================  =====================  =======================================
search                                ranks who enters       drops, and reports
====================================  =====================  =======================================
asks the same whatever it scores      folds 1 to 3 of 6      folds 4 to 6, and what it did not score
follows the scores (evolve, nsga2)    what it searched on    what it did not search on
====================================  =====================  =======================================

The search's winner enters whatever they say. One that was found by all images, as exhaustive search does, is the only
entrant in whose choice the images of the report had a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psvit.arch import Architecture
from psvit.search.claims import TOP_ROWS
from psvit.search.crossfit import FOLDS, FoldSums, assign_folds, not_told_apart
from psvit.search.trial import Trial

DROPS = 2  # parts that drop, in turns
REPORT = 2  # number of the part that reports
_RANKED_FOLDS = FOLDS // 2
_FEWEST = 12  # images of a part


@dataclass(frozen=True)
class Judges:
    """What each image of the search split does, in an order of their own.

    Attributes:
        ranks: (n,) whether it ranks who enters.
        part: (n,) which third of the others it belongs to, 0 to 2; -1 where it ranks.
    """

    ranks: NDArray[np.bool_]
    part: NDArray[np.int8]

    @classmethod
    def of(cls, folds: NDArray[np.int8], labels: NDArray[np.int64], adaptive: bool, seed: int) -> Judges:
        """The images' parts.

        Args:
            folds: (searched,) fold of each image that was searched on; these come first.
            labels: (n,) class of each image.
            adaptive: whether what the search asked for follows from the scores.
            seed: of the cut.

        Raises:
            ValueError: there are too few images.
        """
        ranks = np.zeros(len(labels), bool)
        ranks[: len(folds)] = True if adaptive else folds < _RANKED_FOLDS
        part = np.full(len(labels), -1, np.int8)
        part[~ranks] = assign_folds(labels[~ranks], seed, DROPS + 1)
        _check_left(int((~ranks).sum()))
        return cls(ranks, part)


def check_images(num_images: int, searched: int, adaptive: bool) -> None:
    """Refuse a search split that leaves too few images to judge a final.

    Args:
        num_images: of the split.
        searched: how many of these the search scores on.
        adaptive: whether what the search asks for follows from the scores.

    Raises:
        ValueError: it does.
    """
    folds = np.arange(searched) % FOLDS  # as even as those of assign_folds
    _check_left(num_images - (searched if adaptive else int((folds < _RANKED_FOLDS).sum())))


def _check_left(images: int) -> None:
    needed = (DROPS + 1) * _FEWEST
    if images < needed:
        raise ValueError(
            f"the search has left {images} images to judge a final; it needs {needed}: train the supernet with a "
            "larger data.search_fraction"
        )


def who_enters(
    trials: Sequence[Trial],
    sizes: NDArray[np.int64],
    rank_by: str,
    adaptive: bool,
    losses: Callable[[Sequence[Architecture]], NDArray[Any]],
) -> list[Trial]:
    """The search's winner, then all that the images which rank cannot tell from the best of them, best first.

    Args:
        trials: all that the search scored on as many images as its winner, with the sums of each fold.
        sizes: (K,) images of each fold.
        rank_by: ``loss`` or ``top1``.
        adaptive: whether what the search asked for follows from the scores.
        losses: gives the losses (architectures, images that rank) of some of the best.

    Raises:
        ValueError: the search has kept no sums of folds, as a race does not.
    """
    ranked = sorted((trial for trial in trials if not trial.failed), key=lambda trial: trial.sort_key(rank_by))
    if not ranked or not all(trial.folds for trial in ranked):
        raise ValueError("a race does not score all on all images, so that nothing is tied; search without search.race")
    used = slice(None if adaptive else _RANKED_FOLDS)
    table = np.array([trial.folds for trial in ranked]).reshape(len(ranked), 2, FOLDS)
    sums = FoldSums(table[:, 0, used], table[:, 1, used], sizes[used])
    order = sums.order(rank_by)
    chosen = np.repeat(order[:1], len(sums.sizes)) if adaptive else sums.fold_orders(rank_by, 1)[:, 0]
    best = losses([ranked[row].architecture for row in order[:TOP_ROWS]])
    tied = not_told_apart(sums, chosen, best)
    return [ranked[0], *(ranked[row] for row in order if tied[row] and row != 0)]
