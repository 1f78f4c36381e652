"""Where a trained network is wrong, and how far its confidence can be believed. Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psvit.intervals import Estimate, share

BINS = 15  # of confidences, as is usual


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(classes, classes) number of images of each class (rows) that were taken for each (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


@dataclass(frozen=True)
class ClassScore:
    """How well a class is told from the others.

    Attributes:
        name: of the class.
        images: of it.
        recall: share of these that is recognised, with a 95 % interval; None without images.
        precision: share of what was taken for it that is of it, likewise; None where nothing was.
        taken_for: the class that it is most often taken for by mistake, and how often; None without mistakes.
    """

    name: str
    images: int
    recall: Estimate | None
    precision: Estimate | None
    taken_for: tuple[str, int] | None


def class_scores(counts: NDArray[np.int64], names: Sequence[str]) -> list[ClassScore]:
    """A row for each class, the least recognised first.

    Args:
        counts: as :func:`confusion` gives them.
    """
    rows = []
    for number, name in enumerate(names):
        right, mistakes = counts[number, number], counts[number].copy()
        mistakes[number] = 0
        most = int(mistakes.argmax())
        rows.append(
            ClassScore(
                name,
                int(counts[number].sum()),
                share(right, counts[number].sum()),
                share(right, counts[:, number].sum()),
                (names[most], int(mistakes[most])) if mistakes[most] else None,
            )
        )
    return sorted(rows, key=lambda row: row.recall.value if row.recall else 2.0)


@dataclass(frozen=True)
class Bin:
    """Images of about equal confidence.

    Attributes:
        low, high: the confidences.
        images: how many.
        confidence: their mean.
        right: share that is right.
    """

    low: float
    high: float
    images: int
    confidence: float
    right: Estimate


def calibration(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> tuple[list[Bin], float]:
    """Bins of equal width that hold an image, and the expected calibration error (arXiv 1706.04599).

    The error is the mean, over images, of how far the share that is right in a bin is from its mean confidence.
    """
    place = np.minimum((confidence.astype(np.float64) * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for number in np.unique(place):
        inside = place == number
        right = share(correct[inside].sum(), inside.sum())
        assert right is not None
        mean = float(confidence[inside].mean(dtype=np.float64))
        bins.append(Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), mean, right))
        error += abs(right.value - mean) * inside.mean()
    return bins, float(error)
