"""How sure a search can be of what it found: intervals, and the winner against chance. Pure and seeded; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from psvit.run.random import numpy_rng
from psvit.search.trial import Trial

EQUAL_COST = 0.02  # architectures whose FLOPs differ by at most this share are called of equal cost
CONFIDENCE = 0.95  # of every interval
RESAMPLES = 2_000
_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
_CHUNK = 50  # resamples at once: 4 MB of draws for 10,000 images

Floats = NDArray[np.float64]


def wilson(top1: ArrayLike, num_images: ArrayLike) -> tuple[Floats, Floats]:
    """Wilson's score interval (95 %) of a share: unlike top-1 +- 2 sigma, it holds near 0 and 1 and for few images.

    Args:
        top1: share of the images that was classified correctly, 0 to 1, of any shape; NaN gives NaN. For a mean over
            placements the interval is rather too wide.
        num_images: how many images that was.

    Returns:
        The lower and the upper ends.
    """
    share, count = np.asarray(top1, np.float64), np.asarray(num_images, np.float64)
    z = NormalDist().inv_cdf(_TAILS[1])
    shrink = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / shrink
    half = z / shrink * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def top_table(trials: Sequence[Trial], correct: NDArray[Any], loss: NDArray[Any], seed: int) -> pd.DataFrame:
    """The best trials of a search, and how well the images tell them apart.

    The images are drawn anew with replacement 2,000 times; all trials are compared on the same draws, since they were
    scored on the same images. What no resampling shows is that all of these were chosen by their scores on these very
    images: the scores and the shares of the first are optimistic.

    Args:
        trials: the k best, all of them scored.
        correct: (k, images) which images each classifies correctly: booleans, or means over placements.
        loss: (k, images) cross-entropy of each image.
        seed: of the draws.

    Returns:
        The table of ``top.csv`` (:data:`psvit.search.tables.TOP`), one row per trial, best first: place, layers, flops,
        params, top1, its Wilson interval ``low`` and ``high``, loss, num_images, ``best_share`` (share of the resamples
        in which it comes first of the k by top-1, then loss), ``behind`` (how much its top-1 is lower than the first
        one's) and the 95 % interval of that difference, ``behind_low`` and ``behind_high``.
    """
    assert len(trials) == len(correct) == len(loss), "a row of outcomes for each trial"
    assert not any(trial.failed for trial in trials), "a trial without a score has no place"
    order = sorted(range(len(trials)), key=lambda index: trials[index].sort_key)
    ranked = [trials[index] for index in order]
    num_images = correct.shape[1]
    shares, behind = _bootstrap(correct[order], loss[order], seed)
    low, high = wilson([trial.top1 for trial in ranked], num_images)
    return pd.DataFrame(
        {
            "place": np.arange(1, len(ranked) + 1),
            "layers": [str(trial.architecture) for trial in ranked],
            "flops": [trial.flops for trial in ranked],
            "params": [trial.params for trial in ranked],
            "top1": [trial.top1 for trial in ranked],
            "low": low,
            "high": high,
            "loss": [trial.loss for trial in ranked],
            "num_images": num_images,
            "best_share": shares,
            "behind": [ranked[0].top1 - trial.top1 for trial in ranked],
            "behind_low": behind[0],
            "behind_high": behind[1],
        }
    )


def _bootstrap(correct: NDArray[Any], loss: NDArray[Any], seed: int) -> tuple[Floats, Floats]:
    """How often each of k comes first, (k,), and the ends of how much top-1 it is behind the first, (2, k)."""
    k, num_images = correct.shape
    if not k:
        return np.zeros(0), np.zeros((2, 0))
    # an infinite loss would make NaN of the images that a resample leaves out
    outcomes = np.vstack([correct, np.minimum(loss, 1e30)]).astype(np.float64)
    first = np.zeros(k)
    deficits = []
    for weights in _resamples(num_images, seed):
        sums = weights @ outcomes.T
        hits, losses = sums[:, :k].round(6), sums[:, k:]  # rounded: sums of equal means over placements shall be equal
        tied = hits == hits.max(axis=1, keepdims=True)
        first += np.bincount(np.where(tied, losses, np.inf).argmin(axis=1), minlength=k)
        deficits.append((hits[:, :1] - hits) / num_images)
    return first / RESAMPLES, np.quantile(np.concatenate(deficits), _TAILS, axis=0)


def _resamples(num_images: int, seed: int) -> Iterator[Floats]:
    """How often each image is in each resample, (resamples, images), in chunks; a row sums to ``num_images``."""
    rng = numpy_rng(seed, "bootstrap")
    for start in range(0, RESAMPLES, _CHUNK):
        rows = min(_CHUNK, RESAMPLES - start)
        drawn = rng.integers(num_images, size=(rows, num_images)) + num_images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * num_images).reshape(rows, num_images).astype(np.float64)


@dataclass(frozen=True)
class Gain:
    """A search's winner among random architectures of its cost; ``str`` says it in a sentence.

    Attributes:
        place: the winner's, 1 when none of them is better.
        others: how many random architectures of equal cost have a score.
        mean, best: their top-1; None without any.
        gain: the winner's top-1 less their mean: what searching brings over picking one of them at random.
        low, high: its 95 % interval; None for fewer than two.
    """

    place: int
    others: int
    mean: float | None = None
    best: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.gain is None:
            return "no other architecture of equal cost was scored"
        noun = "architecture" if self.others == 1 else "architectures"
        text = (
            f"place {self.place} among {self.others} random {noun} of equal cost (within {EQUAL_COST:.0%}), whose mean "
            f"top-1 is {self.mean:.4f} and best {self.best:.4f}"
        )
        text += f"; expected gain over picking one at random {self.gain:.4f}"
        if self.low is None:
            return text
        return f"{text} ({CONFIDENCE:.0%} interval {self.low:.4f} to {self.high:.4f})"


def gain_over_random(best: Trial, baseline: Sequence[Trial]) -> Gain:
    """What a search has won over picking an architecture of equal cost at random, by inherited scores.

    The winner's score is optimistic: it was chosen as the best of many on these very images. Neither its place nor the
    gain corrects for that; the retrained network on the test split will show less. The interval (Student's t) is that
    of the mean over random architectures alone; it leaves out what other images, or training anew, would change.

    Args:
        best: the winner.
        baseline: random architectures of its cost; those without a score do not count.
    """
    from scipy.stats import sem, t

    others = [trial for trial in baseline if not trial.failed]
    if not others:
        return Gain(1, 0)
    scores = np.array([trial.top1 for trial in others])
    place = 1 + sum(trial.sort_key < best.sort_key for trial in others)
    mean, top = float(scores.mean()), float(scores.max())
    gain = best.top1 - mean
    if len(others) < 2:
        return Gain(place, len(others), mean, top, gain)
    half = float(t.ppf(_TAILS[1], len(others) - 1) * sem(scores))
    return Gain(place, len(others), mean, top, gain, gain - half, gain + half)
