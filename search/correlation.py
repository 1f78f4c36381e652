"""How well inherited scores predict what networks reach that are trained alone: correlations, regret, intervals.

Pure and seeded; no torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psvit.intervals import CONFIDENCE
from psvit.run.random import numpy_rng
from psvit.search.trial import score_order

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
class Noise:
    """How far the order of networks trained alone is their own, and how far that of their seeds.

    Attributes:
        repeated: networks that were trained with several seeds.
        seeds: standard deviation between the seeds of one network, without what a seed changes in all networks alike,
            which leaves their order as it is.
        spread: standard deviation between networks, without what the seeds add to it: what there is to find.
        reliability: share of the networks' variance that is not the seeds'.
    """

    repeated: int
    seeds: float
    spread: float
    reliability: float

    @property
    def ceiling(self) -> float:
        """Kendall's tau that even the true order would have with the measured one (:func:`tau_of`)."""
        return tau_of(math.sqrt(self.reliability))

    def corrected(self, tau: Estimate) -> Estimate:
        """The tau with the true order that a tau with the measured one stands for (Spearman's correction)."""
        if tau.value is None or not self.reliability:
            return Estimate(None, None, None)
        ends = (
            math.sin(math.pi / 2 * each) / math.sqrt(self.reliability)
            for each in (tau.value, tau.low, tau.high)
            if each is not None
        )
        return Estimate(*(tau_of(min(max(each, -1.0), 1.0)) for each in ends))


@dataclass(frozen=True)
class Correlations:
    """How well inherited scores predict networks trained alone; ``str`` says it in a few lines.

    Attributes:
        networks: how many were compared.
        left_out: how many were not, since one of their scores is not a number.
        top1: inherited top-1 with top-1 alone.
        loss: inherited loss with loss alone.
        loss_to_top1: inherited loss, its sign turned, with top-1 alone.
        top1_noise, loss_noise: of the networks trained alone; None where none has two seeds.
        regret: the best top-1 alone less that of ``picked``. With several seeds of all, the best is named by the other
            seeds than the one that it is measured with; with one, the luckiest of all, which makes it too large.
        random_regret: the best top-1 alone, named in the same way, less the mean: what picking one at random costs.
        seeds: that all networks have; the regret is of these.
        picked: layers of the one with the best inherited score; None without any.
        best: layers of the one with the best top-1 alone; None without any.
        rank_by: inherited score that ``picked`` and ``regret`` go by.
        seed: of the resamples.
        resamples: how many the intervals are from.
    """

    networks: int
    left_out: int
    top1: Correlation
    loss: Correlation
    loss_to_top1: Correlation
    top1_noise: Noise | None
    loss_noise: Noise | None
    regret: Estimate
    random_regret: Estimate
    seeds: int
    picked: str | None
    best: str | None
    rank_by: str
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
        lines = [*self._headroom(), *lines, *self._regrets()]
        if self.left_out:
            lines.append(f"{self.left_out} left out, without a score that is a number")
        return "\n".join(lines)

    def _headroom(self) -> list[str]:
        """What there is to find, and how much of it a ranking can show."""
        if self.loss_noise is None or self.top1_noise is None:
            return ["no two networks share two seeds, so what of their order is chance is not known: seeds=2 says it"]
        lines = []
        for what, noise, pair in (("loss", self.loss_noise, self.loss), ("top-1", self.top1_noise, self.top1)):
            says = (
                f"{what} alone: networks differ by {noise.spread:.4f} (standard deviation), seeds of one by "
                f"{noise.seeds:.4f}"
            )
            if noise.reliability:
                says += f"; a perfect supernet would reach a tau of {noise.ceiling:.2f}"
                if pair.tau.value is not None:
                    says += f", and this one's, corrected for the seeds, is {noise.corrected(pair.tau).text()}"
            lines.append(says)
        if self.loss_noise.spread < self.loss_noise.seeds:
            lines.insert(
                0, "there is little to rank: networks of this space differ by less than two trainings of one do"
            )
        return lines

    def _regrets(self) -> list[str]:
        if not self.networks:
            return []
        note = "" if self.picked == self.best else f"; the best is {self.best}"
        regret, random_regret = (each.text("{:.4f}") for each in (self.regret, self.random_regret))
        score = {"loss": "loss", "top1": "top-1"}[self.rank_by]
        flattered = "" if self.seeds > 1 else "; with one seed the best is the luckiest, too, and both are too large"
        return [
            f"regret of picking by inherited {score}: {regret} of top-1 ({self.picked}{note})",
            f"regret of picking one at random: {random_regret}{flattered}",
        ]


def correlations(frame: pd.DataFrame, standalone: pd.DataFrame, seed: int, rank_by: str = "loss") -> Correlations:
    """Compare inherited scores with those of networks trained alone, each figure with a bootstrap 95 % interval.

    Architectures are drawn anew with replacement 9,999 times, for all figures the same ones. Resamples in which a
    figure is undefined do not count for its interval. The intervals are of other architectures of the same kind; they
    leave out what other seeds and other images would change.

    Args:
        frame: one row per architecture: ``layers``, ``flops``, and top-1 and loss, inherited and, as means over the
            seeds, alone: ``inherited_top1``, ``inherited_loss``, ``standalone_top1``, ``standalone_loss``. Rows with a
            NaN are left out.
        standalone: one row per training: ``layers``, ``seed``, ``top1``, ``loss``.
        seed: of the resamples.
        rank_by: inherited score that the regret is of picking by, ``loss`` or ``top1``.
    """
    whole = frame.dropna(subset=list(_PAIRS))
    order = {f"inherited_{score}": less_is_better for score, less_is_better in score_order(rank_by).items()}
    order |= {"flops": True, "layers": True}  # best first, as a search ranks
    whole = whole.sort_values(list(order), ascending=list(order.values()))
    inherited, loss = whole["inherited_top1"].to_numpy(float), whole["inherited_loss"].to_numpy(float)
    top1, standalone_loss = whole["standalone_top1"].to_numpy(float), whole["standalone_loss"].to_numpy(float)
    places = np.arange(len(whole), dtype=float)
    best = whole.sort_values("standalone_top1", ascending=False, kind="stable")
    trainings = standalone[standalone["layers"].isin(whole["layers"])]
    by_seed = trainings.pivot_table(index="layers", columns="seed", values="top1").dropna(axis=1)
    of_seeds = by_seed.reindex(whole["layers"]).to_numpy(float).T if by_seed.shape[1] > 1 else top1[None]

    def correlate(x: Floats, y: Floats) -> Correlation:
        return Correlation(_estimate(kendall_tau, (x, y), seed), _estimate(spearman_rho, (x, y), seed))

    return Correlations(
        networks=len(whole),
        left_out=len(frame) - len(whole),
        top1=correlate(inherited, top1),
        loss=correlate(loss, standalone_loss),
        loss_to_top1=correlate(-loss, top1),
        top1_noise=noise(trainings, "top1"),
        loss_noise=noise(trainings, "loss"),
        regret=_estimate(regret, (places, *of_seeds), seed),
        random_regret=_estimate(random_regret, (places, *of_seeds), seed),
        seeds=len(of_seeds),
        picked=str(whole["layers"].iloc[0]) if len(whole) else None,
        best=str(best["layers"].iloc[0]) if len(whole) else None,
        rank_by=rank_by,
        seed=seed,
    )


def noise(standalone: pd.DataFrame, score: str) -> Noise | None:
    """Seeds against networks (analysis of variance, networks and seeds as factors without interaction).

    Args:
        standalone: one row per training: ``layers``, ``seed`` and the score.
        score: ``top1`` or ``loss``.

    Returns:
        None where fewer than two networks were trained with the same two seeds.
    """
    trainings = standalone.dropna(subset=[score])
    scores, effects = _without_seeds(trainings, score)
    groups = scores.groupby(trainings["layers"])
    counts, means = groups.size().to_numpy(float), groups.mean().to_numpy(float)
    free = len(scores) - len(counts) - effects
    if free < 1:
        return None
    squares = float(((groups.var(ddof=1).fillna(0.0).to_numpy(float)) * (counts - 1)).sum())
    within, between = squares / free, float(means.var(ddof=1))
    own = max(0.0, between - within * float((1 / counts).mean()))
    return Noise(int((counts > 1).sum()), math.sqrt(within), math.sqrt(own), own / between if between else 0.0)


def network_means(standalone: pd.DataFrame, score: str) -> pd.Series:
    """Each network's mean over its seeds, by ``layers``; NaN for one without a score.

    Where networks have unequal seeds, the means are as if each had all of them: a seed decides the order of the images
    and how the layers begin that all networks share, so it can be lucky for all, and a network that was trained with it
    alone would seem better.

    Args:
        standalone: one row per training: ``layers``, ``seed`` and the score.
        score: ``top1`` or ``loss``.
    """
    trainings = standalone.dropna(subset=[score])
    means = _without_seeds(trainings, score)[0].groupby(trainings["layers"]).mean()
    return means.reindex(standalone["layers"].unique())


def _without_seeds(trainings: pd.DataFrame, score: str) -> tuple[pd.Series, int]:
    """Scores without what each seed adds to all networks, by least squares; and how many such effects were free."""
    networks, seeds = trainings["layers"], pd.get_dummies(trainings["seed"], dtype=float)
    own = trainings[score] - trainings.groupby("layers")[score].transform("mean")
    within = seeds - seeds.groupby(networks).transform("mean")
    effects, _, free, _ = np.linalg.lstsq(within.to_numpy(), own.to_numpy(float), rcond=None)
    return trainings[score] - seeds.to_numpy() @ effects, int(free)


def tau_of(correlation: float) -> float:
    """Kendall's tau of two normal variables of a correlation (Greiner's relation)."""
    return 2 / math.pi * math.asin(correlation)


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


def regret(places: Floats, *standalone: Floats, axis: int = -1) -> Floats:
    """The best along the last axis less the one whose place, from 0, is the first; ``standalone`` is of each seed."""
    picked = np.take_along_axis(np.stack(standalone), places.argmin(axis=-1)[None, ..., None], axis=-1)
    return np.asarray(_best(standalone) - picked[..., 0].mean(axis=0))


def random_regret(places: Floats, *standalone: Floats, axis: int = -1) -> Floats:
    """The best along the last axis less the mean: the expected regret of picking one at random."""
    return np.asarray(_best(standalone) - np.mean(standalone, axis=(0, -1)))


def _best(standalone: Sequence[Floats]) -> Floats:
    """What the best along the last axis reaches: with each seed, the best by the mean of the others."""
    every = np.stack(standalone)
    others = every.sum(axis=0) - every if len(every) > 1 else every
    return np.asarray(np.take_along_axis(every, others.argmax(axis=-1)[..., None], axis=-1)[..., 0].mean(axis=0))


def _estimate(statistic: Callable[..., Floats], values: Sequence[Floats], seed: int) -> Estimate:
    """A figure and the ends of its interval."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    value = float(statistic(*values)) if len(values[0]) >= 2 else np.nan
    if not np.isfinite(value):
        return Estimate(None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # resamples without a figure: dropped below
        found = bootstrap(
            tuple(values),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, _MOST_SIGNS // len(values[0]) ** 2),
            method="percentile",
            random_state=numpy_rng(seed, "rank bootstrap"),
        )
    drawn = found.bootstrap_distribution
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
