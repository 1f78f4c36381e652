"""Estimates with their 95 % intervals, paired over the images that two networks, or more, were scored on. No torch.

Outcomes of networks on the same images differ for two reasons: the images, and what was drawn to train the networks
(seeds, or a draw of architectures). A row is a network or a pair of them, a column an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95  # of every interval


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({CONFIDENCE:.0%} interval {self.low:.4f} to {self.high:.4f})"


def t_interval(value: float, variance: float, freedom: float) -> Estimate:
    """Student's interval of a figure from the variance of its estimate and that variance's degrees of freedom."""
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance))
    return Estimate(float(value), float(value) - half, float(value) + half)


def wilson(
    top1: ArrayLike, num_images: ArrayLike, extra: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval (95 %) of a share: unlike top-1 +- 2 sigma, it holds near 0 and 1 and for few images.

    Args:
        top1: share of the images that was classified correctly, 0 to 1, of any shape; NaN gives NaN. For a mean over
            placements the interval is rather too wide.
        num_images: how many images that was.
        extra: variance of the share from elsewhere.

    Returns:
        The lower and the upper ends.
    """
    share, count = np.asarray(top1, np.float64), np.asarray(num_images, np.float64)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    shrink = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / shrink
    half = z / shrink * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2) + extra)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def share(part: Any, whole: Any) -> Estimate | None:
    """A share of ``whole`` images with Wilson's interval; None of none."""
    if not whole:
        return None
    low, high = wilson(part / whole, whole)
    return Estimate(float(part / whole), float(low), float(high))


def mean_interval(values: NDArray[Any]) -> Estimate:
    """The mean of values (R, n), R rows drawn at random on n images drawn at random, both crossed.

    Its variance is that of two random factors (Cornfield and Tukey's rules): the mean square of the rows, plus that of
    the images, less that of the rest, which is in both; its degrees of freedom are Satterthwaite's. One row gives
    Student's interval over the images: it is then of this row, not of others that might have been drawn.

    Raises:
        ValueError: fewer than two images.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    rows, images = values.shape
    if images < 2:
        raise ValueError(f"an interval needs two images at least, and there are {images}")
    mean, of_images = values.mean(), values.mean(axis=0)
    if rows == 1:
        return t_interval(mean, float(of_images.var(ddof=1)) / images, images - 1)
    of_rows = values.mean(axis=1)
    rest = values - of_images - of_rows[:, None] + mean
    squares = np.array([images * of_rows.var(ddof=1), rows * of_images.var(ddof=1)])
    freedom = np.array([rows - 1, images - 1])
    both = float((rest**2).sum()) / float(freedom.prod())
    total = squares.sum() - both
    if total <= squares.max():  # chance has made the rest too large: the larger factor alone is never too much
        largest = int(squares.argmax())
        return t_interval(mean, float(squares[largest]) / values.size, float(freedom[largest]))
    spread = (squares**2 / freedom).sum() + both**2 / freedom.prod()
    return t_interval(mean, float(total) / values.size, float(total**2 / spread))
