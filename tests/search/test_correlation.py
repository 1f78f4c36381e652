"""Inherited scores against networks trained alone: figures against scipy's, intervals against a plain bootstrap."""

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from psvit.search import correlation
from psvit.search.correlation import (
    Correlation,
    Correlations,
    Estimate,
    Noise,
    kendall_tau,
    network_means,
    noise,
    spearman_rho,
    tau_of,
)
from tests.search.builders import trained_once

UNDEFINED = Estimate(None, None, None)


def correlations(frame: pd.DataFrame, seed: int, rank_by: str = "loss") -> Correlations:
    """Of networks that were trained once each."""
    return correlation.correlations(frame, trained_once(frame), seed, rank_by)


def table(inherited: list[float], standalone: list[float], **columns: list) -> pd.DataFrame:
    """A frame with the columns of rank.csv, whose losses are 1 - top-1 unless given."""
    frame = pd.DataFrame({"inherited_top1": inherited, "standalone_top1": standalone}, dtype=float)
    frame["layers"] = [f"{'B' * (number + 1)}-B-B" for number in range(len(frame))]
    frame["flops"] = range(1000, 1000 + len(frame))
    frame["inherited_loss"], frame["standalone_loss"] = 1 - frame["inherited_top1"], 1 - frame["standalone_top1"]
    return frame.assign(**columns)


@pytest.mark.parametrize("levels", [4, 1000])
def test_tau_and_rho_are_scipys_with_ties_too(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x, y = rng.integers(0, levels, (2, 5, 12)).astype(float)
    tau, rho = kendall_tau(x, y), spearman_rho(x, y)
    for row in range(5):
        assert tau[row] == pytest.approx(stats.kendalltau(x[row], y[row]).statistic)
        assert rho[row] == pytest.approx(stats.spearmanr(x[row], y[row]).statistic)
    assert np.isnan(kendall_tau(np.ones(4), x[0, :4]))
    assert np.isnan(spearman_rho(x[0, :4], np.ones(4)))


def test_figures_of_a_perfect_and_a_reversed_order() -> None:
    scores = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    perfect, reverse = correlations(table(scores, scores), 0), correlations(table(scores, scores[::-1]), 0)
    for pair in ("top1", "loss", "loss_to_top1"):
        for figure in ("tau", "rho"):
            assert asdict(getattr(getattr(perfect, pair), figure)) == pytest.approx({"value": 1, "low": 1, "high": 1})
            assert asdict(getattr(getattr(reverse, pair), figure)) == pytest.approx(
                {"value": -1, "low": -1, "high": -1}
            )
    assert (perfect.regret.value, perfect.picked) == (0, "BBBBBB-B-B")
    assert reverse.regret.value == pytest.approx(0.45)
    assert perfect.random_regret.value == pytest.approx(0.95 - np.mean(scores))


def test_loss_chooses_among_equal_top1_and_then_flops() -> None:
    frame = table([0.8, 0.9, 0.9, 0.9], [0.99, 0.7, 0.6, 0.5], inherited_loss=[0.1, 0.4, 0.3, 0.3])
    figures = correlations(frame, 0, "top1")
    assert (figures.picked, figures.best) == ("BBB-B-B", "B-B-B")
    assert figures.regret.value == pytest.approx(0.39)


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    figures = correlations(table(x.tolist(), y.tolist()), 0)
    resamples = rng.integers(20, size=(1500, 20))
    for found, statistic in ((figures.top1.tau, stats.kendalltau), (figures.top1.rho, stats.spearmanr)):
        drawn = [statistic(x[rows], y[rows]).statistic for rows in resamples]
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert found.low == pytest.approx(low, abs=0.05)
        assert found.high == pytest.approx(high, abs=0.05)
    regrets = [y[rows].max() - y[rows][x[rows].argmax()] for rows in resamples]
    assert figures.regret.high == pytest.approx(np.quantile(regrets, 0.975), abs=0.1)


@pytest.mark.filterwarnings("error")
def test_degenerate_tables() -> None:
    few = correlations(table([0.5, 0.6, 0.7], [0.5, 0.7, 0.6]), 0)
    assert asdict(few.top1.tau) == pytest.approx({"value": 1 / 3, "low": -1, "high": 1})
    assert few == correlations(table([0.5, 0.6, 0.7], [0.5, 0.7, 0.6]), 0)
    equal = correlations(table([0.5] * 4, [0.5, 0.7, 0.6, 0.7]), 0)
    assert equal.top1 == Correlation(UNDEFINED, UNDEFINED)
    assert equal.random_regret.value == pytest.approx(0.075)
    corrupt = correlations(table([0.5, 0.6, np.nan, 0.7], [0.5, 0.7, 0.9, 0.6]), 0)
    assert (corrupt.networks, corrupt.left_out, corrupt.best) == (3, 1, "BB-B-B")
    assert corrupt.top1 == few.top1
    nothing = correlations(table([np.nan], [0.5]), 0)
    assert (nothing.networks, nothing.picked, nothing.regret) == (0, None, UNDEFINED)
    for figures in (few, equal, corrupt, nothing):
        json.dumps(asdict(figures), allow_nan=False)


def test_what_the_figures_say() -> None:
    lines = str(correlations(table([0.5, 0.6, np.nan, 0.7], [0.5, 0.7, 0.9, 0.6]), 0)).splitlines()
    assert lines.pop(0).endswith("is not known: seeds=2 says it")
    assert lines[0].startswith("inherited top-1 and top-1 alone: Kendall's tau 0.33 (95%: -1.00 to 1.00), Spearman's")
    assert lines[3].startswith(
        "regret of picking by inherited loss: 0.1000 (95%: 0.0000 to 0.1000) of top-1 (BBBB-B-B; "
    )
    assert lines[3].endswith("the best is BB-B-B)")
    assert lines[4].startswith("regret of picking one at random: 0.1000 (95%: ")
    assert lines[4].endswith("with one seed the best is the luckiest, too, and both are too large")
    assert lines[5] == "1 left out, without a score that is a number"
    equal = str(correlations(table([0.5] * 4, [0.5, 0.7, 0.6, 0.7]), 0))
    assert "Kendall's tau undefined (all equal), Spearman's rho undefined (all equal)" in equal


# ---------------------------------------------------------------------------------------------------- several seeds


def trainings(
    networks: int, seeds: int, spread: float, between_seeds: float, seed: int, luck: float = 0.0
) -> tuple[np.ndarray, pd.DataFrame]:
    """True qualities, and what each network reaches with each seed, which may be lucky for all networks."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0.8, spread, networks)
    reached = true[:, None] + rng.normal(0, between_seeds, (networks, seeds)) + rng.normal(0, luck, seeds)
    rows = [
        (f"{number}", seed, value, 1 - value)
        for number in range(networks)
        for seed, value in enumerate(reached[number])
    ]
    return true, pd.DataFrame(rows, columns=["layers", "seed", "top1", "loss"])


def joined(frame: pd.DataFrame, inherited: np.ndarray) -> pd.DataFrame:
    """A frame of rank.csv for inherited top-1 in the order of the networks."""
    means = frame.groupby("layers", sort=False)["top1"].mean()
    return table(inherited.tolist(), means.tolist(), layers=list(means.index))


def test_the_noise_is_that_of_the_textbooks_analysis_of_variance() -> None:
    """Of two factors without interaction, each network with each seed."""
    frame = trainings(30, 3, 0.02, 0.01, seed=3, luck=0.05)[1]
    found = noise(frame, "top1")
    assert found is not None
    cells = frame.pivot_table(index="layers", columns="seed", values="top1").to_numpy()
    left = cells - cells.mean(1, keepdims=True) - cells.mean(0, keepdims=True) + cells.mean()
    within = (left**2).sum() / (29 * 2)
    assert found.repeated == 30
    assert found.seeds == pytest.approx(np.sqrt(within))
    assert found.reliability == pytest.approx(1 - within / (3 * cells.mean(1).var(ddof=1)))


def uneven(frame: pd.DataFrame) -> pd.DataFrame:
    """A third of the networks with all seeds and the rest with one, as a table may have them."""
    return frame[(frame["seed"] == 0) | (frame["layers"].astype(int) % 3 == 0)]


@pytest.mark.parametrize("keep", [uneven, lambda frame: frame])
def test_means_are_those_of_a_regression_on_networks_and_seeds(keep: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame = keep(trainings(12, 3, 0.02, 0.01, seed=5, luck=0.05)[1])
    means = network_means(frame, "loss")
    dummies = [pd.get_dummies(frame[factor], dtype=float).to_numpy() for factor in ("layers", "seed")]
    fitted = np.linalg.lstsq(np.concatenate(dummies, axis=1), frame["loss"], rcond=None)[0]
    networks = sorted(frame["layers"].unique())
    assert means[networks].to_numpy() == pytest.approx(fitted[: len(networks)] + fitted[len(networks) :].mean())


def test_a_seed_that_is_lucky_for_all_does_not_favour_the_networks_trained_with_it() -> None:
    """Plain means would place the networks with one seed, which was unlucky, behind all others."""
    true, frame = trainings(30, 3, 0.02, 0.002, seed=0, luck=0.0)
    frame["top1"] += frame["seed"].map({0: -0.1, 1: 0.0, 2: 0.1})
    frame = uneven(frame)
    tau = [
        stats.kendalltau(true, means.loc[[f"{number}" for number in range(30)]]).statistic
        for means in (network_means(frame, "top1"), frame.groupby("layers")["top1"].mean())
    ]
    assert tau[0] > 0.9 > 0.7 > tau[1]


def test_a_network_without_a_score_has_no_mean() -> None:
    frame = trainings(4, 2, 0.02, 0.01, seed=0)[1]
    frame.loc[frame["layers"] == "2", "top1"] = np.nan
    frame.loc[0, "top1"] = np.nan  # one of two seeds
    means = network_means(frame, "top1")
    assert list(means.index) == ["0", "1", "2", "3"]
    assert list(means.isna()) == [False, False, True, False]


def test_two_seeds_of_one_network_say_nothing_of_chance() -> None:
    """What they differ by may be what the seed does to all."""
    frame = trainings(5, 2, 0.02, 0.01, seed=0)[1]
    assert noise(frame[(frame["seed"] == 0) | (frame["layers"] == "1")], "loss") is None
    assert noise(frame[(frame["seed"] == 0) | frame["layers"].isin(["1", "3"])], "loss") is not None


@pytest.mark.parametrize("luck", [0.0, 0.03])
def test_noise_of_uneven_seeds_is_unbiased(luck: float) -> None:
    found = []
    for seed in range(300):
        frame = trainings(30, 3, 0.02, 0.01, seed, luck)[1]
        part = noise(uneven(frame), "loss")
        assert part is not None
        assert part.repeated == 10
        found.append((part.seeds**2, part.spread**2))
    assert np.mean(found, axis=0) == pytest.approx([0.01**2, 0.02**2], rel=0.05)


@pytest.mark.parametrize("between_seeds", [0.01, 0.03])
def test_the_ceiling_is_what_the_true_order_reaches(between_seeds: float) -> None:
    reached, ceilings = [], []
    for seed in range(200):
        true, frame = trainings(40, 2, 0.02, between_seeds, seed)
        part = noise(frame, "top1")
        assert part is not None
        reached.append(stats.kendalltau(true, frame.groupby("layers", sort=False)["top1"].mean()).statistic)
        ceilings.append(part.ceiling)
    assert np.median(ceilings) == pytest.approx(np.mean(reached), abs=0.03)


def test_a_corrected_tau_is_that_with_the_true_order() -> None:
    corrected, with_truth = [], []
    for seed in range(200):
        true, frame = trainings(40, 2, 0.02, 0.02, seed)
        inherited = true + np.random.default_rng(1000 + seed).normal(0, 0.02, len(true))
        measured = frame.groupby("layers", sort=False)["top1"].mean()
        part = noise(frame, "top1")
        assert part is not None
        tau = float(stats.kendalltau(inherited, measured).statistic)
        corrected.append(part.corrected(Estimate(tau, tau, tau)).value)
        with_truth.append(stats.kendalltau(inherited, true).statistic)
    # a ratio of estimates: its mean lies higher by what they vary
    assert np.median(corrected) == pytest.approx(np.median(with_truth), abs=0.02)


def test_regret_by_other_seeds_is_not_flattered() -> None:
    """All networks are equal: one seed finds a regret, and several seeds find none on the average."""
    every = np.random.default_rng(0).normal(0, 0.01, (3, 4000, 16))
    places = np.random.default_rng(1).permuted(np.tile(np.arange(16.0), (4000, 1)), axis=1)
    lucky = 0.01 * 1.766  # the expected largest of 16 normal numbers
    for figure in (correlation.random_regret, correlation.regret):
        assert figure(places, every[0]).mean() == pytest.approx(lucky, rel=0.05)
        assert abs(figure(places, *every).mean()) < 0.001


def test_regret_of_all_seeds_is_that_of_a_loop() -> None:
    _, frame = trainings(9, 3, 0.02, 0.01, seed=4)
    inherited = np.random.default_rng(4).normal(size=9)
    found = correlation.correlations(joined(frame, inherited), frame, 0, "top1")
    by_seed = frame.pivot_table(index="layers", columns="seed", values="top1")
    picked, regrets = str(inherited.argmax()), []
    for seed in by_seed:
        best = by_seed.drop(columns=seed).mean(axis=1).idxmax()
        regrets.append(by_seed.loc[best, seed] - by_seed.loc[picked, seed])
    assert (found.seeds, found.picked) == (3, picked)
    assert found.regret.value == pytest.approx(np.mean(regrets))


def test_where_seeds_differ_more_than_networks_the_first_line_says_so() -> None:
    for spread, words in ((0.001, "there is little to rank"), (0.05, "loss alone: networks differ by 0.0")):
        true, frame = trainings(16, 2, spread, 0.01, seed=5)
        assert str(correlation.correlations(joined(frame, true), frame, 0)).startswith(words)
    assert tau_of(1.0) == pytest.approx(1)
    assert Noise(3, 0.1, 0.0, 0.0).corrected(Estimate(0.5, 0.1, 0.7)) == UNDEFINED
