"""Inherited scores against networks trained alone: figures against scipy's, intervals against a plain bootstrap."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from psvit.search.correlation import Correlation, Estimate, correlations, kendall_tau, spearman_rho

UNDEFINED = Estimate(None, None, None)


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
    assert lines[0].startswith("inherited top-1 and top-1 alone: Kendall's tau 0.33 (95%: -1.00 to 1.00), Spearman's")
    assert lines[3].startswith(
        "regret of picking by inherited loss: 0.1000 (95%: 0.0000 to 0.1000) of top-1 (BBBB-B-B; "
    )
    assert lines[3].endswith("the best is BB-B-B)")
    assert lines[4].startswith("regret of picking one at random: 0.1000 (95%: ")
    assert lines[5] == "1 left out, without a score that is a number"
    equal = str(correlations(table([0.5] * 4, [0.5, 0.7, 0.6, 0.7]), 0))
    assert "Kendall's tau undefined (all equal), Spearman's rho undefined (all equal)" in equal
