"""Intervals against scipy's, resampling against drawing image by image, and the winner's place by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from psvit.arch import Architecture
from psvit.search.trial import Trial
from psvit.search.trust import RESAMPLES, gain_over_random, top_table, wilson

NAMES = ("B-B-B", "B-B-BS", "B-BS-B", "BS-B-B", "BB-B-B", "B-BB-B")


def trial(name: str, top1: float, loss: float = 1.0, flops: int = 1_000) -> Trial:
    return Trial(Architecture.parse(name), flops, 10, top1, loss, num_images=100, generation=0)


def scored(correct: np.ndarray, loss: np.ndarray) -> list[Trial]:
    """Trials whose scores are the means of their outcomes."""
    return [
        trial(name, float(hits.mean()), float(losses.mean()))
        for name, hits, losses in zip(NAMES, correct, loss, strict=False)
    ]


@pytest.fixture
def outcomes() -> tuple[np.ndarray, np.ndarray]:
    """Five networks that err on much the same 150 images."""
    rng = np.random.default_rng(0)
    hard = rng.normal(-1.2, 1, 150)
    margins = hard + rng.normal(0, 0.4, (5, 150)) + 0.1 * np.arange(5)[:, None]
    return margins < 0, np.log1p(np.exp(2 * margins)).astype(np.float32)


@pytest.mark.parametrize("num_images", [1, 9, 100, 10_000])
def test_wilson_is_scipys(num_images: int) -> None:
    hits = np.unique(np.linspace(0, num_images, 7).astype(int))
    low, high = wilson(hits / num_images, num_images)
    for position, count in enumerate(hits):
        expected = stats.binomtest(int(count), num_images).proportion_ci(method="wilson")
        assert (low[position], high[position]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_any_shape() -> None:
    low, high = wilson(np.array([[0.5, np.nan], [0.0, 1.0]]), np.array([10, 20]))
    assert low.shape == high.shape == (2, 2)
    assert np.isnan([low[0, 1], high[0, 1]]).all()
    assert (low[1, 0], high[1, 1]) == pytest.approx((0, 1), abs=1e-12)
    assert np.nanmin(low) >= 0
    assert np.nanmax(high) <= 1
    assert [float(end) for end in wilson(0.5, 10)] == pytest.approx([low[0, 0], high[0, 0]])


def test_top_table_is_that_of_drawing_images_one_by_one(outcomes: tuple[np.ndarray, np.ndarray]) -> None:
    correct, loss = outcomes
    trials = scored(correct, loss)
    table = top_table(trials[::-1], correct[::-1], loss[::-1], seed=3)

    ranked = sorted(trials, key=lambda trial: trial.sort_key)
    order = [trials.index(trial) for trial in ranked]
    assert list(table["layers"]) == [str(trial.architecture) for trial in ranked]
    assert list(table["place"]) == [1, 2, 3, 4, 5]
    assert list(table["top1"]) == [trial.top1 for trial in ranked]
    assert (table["num_images"] == 150).all()
    np.testing.assert_allclose([table["low"], table["high"]], wilson(table["top1"], 150))

    rng = np.random.default_rng(1)
    first, deficits = np.zeros(5), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(150, size=150)
        hits, losses = correct[order][:, drawn].sum(1), loss[order][:, drawn].mean(1)
        first[min(range(5), key=lambda i: (-hits[i], losses[i]))] += 1 / RESAMPLES
        deficits.append((hits[0] - hits) / 150)
    assert table["best_share"].sum() == pytest.approx(1)
    assert 0.01 < table["best_share"].max() < 0.99  # else the next line shows nothing
    np.testing.assert_allclose(table["best_share"], first, atol=0.05)
    low, high = np.quantile(deficits, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(table["behind_low"], low, atol=1.01 / 150)
    np.testing.assert_allclose(table["behind_high"], high, atol=1.01 / 150)
    assert (table[["behind", "behind_low", "behind_high"]].iloc[0] == 0).all()
    assert ((table["behind_low"] <= table["behind"]) & (table["behind"] <= table["behind_high"])).all()


def test_top_table_is_a_function_of_the_seed(outcomes: tuple[np.ndarray, np.ndarray]) -> None:
    correct, loss = outcomes
    trials = scored(correct, loss)
    table = top_table(trials, correct, loss, seed=0)
    assert table.equals(top_table(trials, correct, loss, seed=0))
    assert not table["best_share"].equals(top_table(trials, correct, loss, seed=1)["best_share"])


def test_equal_top1_is_decided_by_the_loss() -> None:
    correct = np.ones((3, 30), bool)
    loss = np.stack([np.full(30, 0.2), np.full(30, 0.1), np.full(30, 0.3)]).astype(np.float32)
    table = top_table(scored(correct, loss), correct, loss, seed=0)
    assert list(table["layers"]) == ["B-B-BS", "B-B-B", "B-BS-B"]
    assert list(table["best_share"]) == [1, 0, 0]


def test_means_over_placements_tie_too() -> None:
    """The thirds add up in another order in each row; the sums must still count as equal."""
    rng = np.random.default_rng(0)
    thirds = rng.integers(0, 4, 60) / 3
    correct = np.stack([thirds, thirds + np.where(np.arange(60) % 2, 1e-16, -1e-16)])
    loss = np.stack([np.full(60, 0.1), np.full(60, 0.2)]).astype(np.float32)
    trials = [trial("B-B-B", 0.5, 0.1), trial("B-B-BS", 0.5, 0.2)]
    assert list(top_table(trials, correct, loss, seed=0)["best_share"]) == [1, 0]


def test_an_infinite_loss_is_last_and_no_nan() -> None:
    correct = np.ones((2, 20), bool)
    loss = np.zeros((2, 20), np.float32)
    loss[0, 0] = np.inf
    table = top_table([trial("B-B-B", 1.0, np.inf), trial("B-B-BS", 1.0, 0.0)], correct, loss, seed=0)
    assert list(table["layers"]) == ["B-B-BS", "B-B-B"]
    assert table["best_share"].sum() == 1
    assert table["best_share"][0] > 0.5
    assert not table.isna().any(axis=None)


def test_a_table_of_one_and_of_none() -> None:
    one = top_table([trial("B-B-B", 1.0)], np.ones((1, 5), bool), np.ones((1, 5), np.float32), seed=0)
    assert list(one["best_share"]) == [1]
    none = top_table([], np.ones((0, 5), bool), np.ones((0, 5), np.float32), seed=0)
    assert list(none.columns) == list(one.columns)
    assert none.empty


def test_gain_over_random() -> None:
    best = trial("B-B-B", 0.95, 0.2)
    scores = [0.90, 0.94, 0.95, 0.95, 0.96]
    losses = [0.30, 0.25, 0.19, 0.21, 0.18]
    others = [trial(name, *score) for name, score in zip(NAMES[1:], zip(scores, losses, strict=True), strict=True)]
    gain = gain_over_random(best, [*others, trial("BBB-B-B", float("nan"))])
    assert (gain.place, gain.others, gain.best) == (3, 5, 0.96)
    assert (gain.mean, gain.gain) == (pytest.approx(0.94), pytest.approx(0.01))
    expected = stats.ttest_1samp(scores, 0).confidence_interval(0.95)  # of the mean
    assert (gain.low, gain.high) == pytest.approx((0.95 - expected.high, 0.95 - expected.low))
    assert str(gain) == (
        "place 3 among 5 random architectures of equal cost (within 2%), whose mean top-1 is 0.9400 and best 0.9600; "
        f"expected gain over picking one at random 0.0100 (95% interval {gain.low:.4f} to {gain.high:.4f})"
    )
    assert json.loads(json.dumps(asdict(gain), allow_nan=False)) == asdict(gain)


def test_gain_over_few() -> None:
    best = trial("B-B-B", 0.95)
    assert str(gain_over_random(best, [])) == "no other architecture of equal cost was scored"
    gain = gain_over_random(best, [trial("B-B-BS", 0.90)])
    assert (gain.low, gain.high) == (None, None)
    assert str(gain).startswith("place 1 among 1 random architecture of equal cost (within 2%)")
    assert str(gain).endswith("expected gain over picking one at random 0.0500")
