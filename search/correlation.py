"""How well inherited scores predict what networks reach that are trained alone: correlations, regret, intervals.

Pure and seeded; no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psvit.intervals import CONFIDENCE
from psvit.run.random import numpy_rng

RESAMPLES = 9_999
_PAIRS = ("inherited_top1", "inherited_loss", "standalone_top1", "standalone_loss")
_MOST_SIGNS = 2_000_000  # that are compared at once: 16 MB an array

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap 95 % interval; all None where it is undefined, since all values are equal."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, template: str = "{:.2f}") -> str:
        """``0.61 (95%: 0.32 to 0.82)``."""
        if self.value is None:
            return "undefined (all equal)"
        value, low, high = (template.format(number) for number in (self.value, self.low, self.high))
        return f"{value} ({CONFIDENCE:.0%}: {low} to {high})"


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau-b and Spearman's rho of one pair of scores."""

    tau: Estimate
    rho: Estimate


@dataclass(frozen=True)
class Correlations:
    """How well inherited scores predict networks trained alone; ``str`` says it in a few lines.

    Attributes:
        networks: how many were compared.
        left_out: how many were not, since one of their scores is not a number.
        top1: inherited top-1 with top-1 alone.
        loss: inherited loss with loss alone.
        loss_to_top1: inherited loss, its sign turned, with top-1 alone.
        regret: the best top-1 alone less that of ``picked``.
        random_regret: the best top-1 alone less the mean: what picking one at random costs.
        picked: layers of the one with the best inherited score; None without any.
        best: layers of the one with the best top-1 alone; None without any.
        seed: of the resamples.
        resamples: how many the intervals are from.
    """

    networks: int
    left_out: int
    top1: Correlation
    loss: Correlation
    loss_to_top1: Correlation
    regret: Estimate
    random_regret: Estimate
    picked: str | None
    best: str | None
    seed: int
    resamples: int = RESAMPLES

    def __str__(self) -> str:
        pairs = {
            "inherited top-1 and top-1 alone": self.top1,
            "inherited loss and loss alone": self.loss,
            "inherited loss and top-1 alone": self.loss_to_top1,
        }
        lines = [
            f"{what}: Kendall's tau {pair.tau.text()}, Spearman's rho {pair.rho.text()}" for what, pair in pairs.items()
        ]
        if self.networks:
            note = "" if self.picked == self.best else f"; the best is {self.best}"
            regret, random_regret = (each.text("{:.4f}") for each in (self.regret, self.random_regret))
            lines.append(f"regret of picking by inherited score: {regret} of top-1 ({self.picked}{note})")
            lines.append(f"regret of picking one at random: {random_regret}")
        if self.left_out:
            lines.append(f"{self.left_out} left out, without a score that is a number")
        return "\n".join(lines)


def correlations(frame: pd.DataFrame, seed: int) -> Correlations:
    """Compare inherited scores with those of networks trained alone, each figure with a bootstrap 95 % interval.

    Architectures are drawn anew with replacement 9,999 times, for all figures the same ones. Resamples in which a
    figure is undefined do not count for its interval. The intervals are of other architectures of the same kind; they
    leave out what other seeds and other images would change.

    Args:
        frame: one row per architecture: ``layers``, ``flops``, and top-1 and loss on the same images, inherited and
            alone: ``inherited_top1``, ``inherited_loss``, ``standalone_top1``, ``standalone_loss``. Rows with a NaN are
            left out.
        seed: of the resamples.
    """
    whole = frame.dropna(subset=list(_PAIRS))
    # best first by inherited top-1, then loss, then FLOPs, then layers: a search ranks so with search.rank_by=top1
    whole = whole.sort_values(
        ["inherited_top1", "inherited_loss", "flops", "layers"], ascending=[False, True, True, True]
    )
    inherited, loss = whole["inherited_top1"].to_numpy(float), whole["inherited_loss"].to_numpy(float)
    standalone, standalone_loss = whole["standalone_top1"].to_numpy(float), whole["standalone_loss"].to_numpy(float)
    places = np.arange(len(whole), dtype=float)
    best = whole.sort_values("standalone_top1", ascending=False, kind="stable")

    def correlate(x: Floats, y: Floats) -> Correlation:
        return Correlation(_estimate(kendall_tau, x, y, seed), _estimate(spearman_rho, x, y, seed))

    return Correlations(
        networks=len(whole),
        left_out=len(frame) - len(whole),
        top1=correlate(inherited, standalone),
        loss=correlate(loss, standalone_loss),
        loss_to_top1=correlate(-loss, standalone),
        regret=_estimate(regret, places, standalone, seed),
        random_regret=_estimate(random_regret, places, standalone, seed),
        picked=str(whole["layers"].iloc[0]) if len(whole) else None,
        best=str(best["layers"].iloc[0]) if len(whole) else None,
        seed=seed,
    )


def kendall_tau(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Kendall's tau-b along the last axis; NaN where all of x or of y are equal.

    As ``scipy.stats.kendalltau``, which takes one pair at a time: for thousands of resamples that is seconds.
    """
    signs = [np.sign(values[..., :, None] - values[..., None, :]) for values in (x, y)]
    agreement, of_x, of_y = ((a * b).sum((-2, -1)) for a, b in ((signs[0], signs[1]), (signs[0],) * 2, (signs[1],) * 2))
    with np.errstate(invalid="ignore"):
        return np.asarray(agreement / np.sqrt(of_x * of_y))


def spearman_rho(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Spearman's rho along the last axis, as ``scipy.stats.spearmanr``; NaN where all of x or of y are equal."""
    from scipy.stats import rankdata

    a, b = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (x, y))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def regret(places: Floats, standalone: Floats, axis: int = -1) -> Floats:
    """The best along the last axis less the one whose place, from 0, is the first."""
    picked = np.take_along_axis(standalone, places.argmin(axis=-1, keepdims=True), axis=-1)
    return np.asarray(standalone.max(axis=-1) - picked[..., 0])


def random_regret(places: Floats, standalone: Floats, axis: int = -1) -> Floats:
    """The best along the last axis less the mean: the expected regret of picking one at random."""
    return np.asarray(standalone.max(axis=-1) - standalone.mean(axis=-1))


def _estimate(statistic: Callable[..., Floats], x: Floats, y: Floats, seed: int) -> Estimate:
    """A figure and the ends of its interval."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    value = float(statistic(x, y)) if len(x) >= 2 else np.nan
    if not np.isfinite(value):
        return Estimate(None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # resamples without a figure: dropped below
        found = bootstrap(
            (x, y),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, _MOST_SIGNS // len(x) ** 2),
            method="percentile",
            random_state=numpy_rng(seed, "rank bootstrap"),
        )
    drawn = found.bootstrap_distribution
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
