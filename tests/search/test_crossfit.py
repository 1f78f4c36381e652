"""Figures from images that did not choose: against brute force and known truths, and how often intervals hold."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau, norm

from benchmarks.coverage import World, coverage
from psvit.search.crossfit import (
    FOLDS,
    FoldSums,
    Headroom,
    assign_folds,
    cross_fitted_difference,
    cross_fitted_gain,
    cross_fitted_score,
    fitted_values,
    headroom,
    not_told_apart,
    reliability,
)


def draw(images: int, seed: int = 0) -> tuple[World, np.ndarray, np.ndarray, np.ndarray]:
    """A world, outcomes of its architectures on some images, and the folds of these."""
    rng = np.random.default_rng(seed)
    world = World.draw(rng)
    correct, loss = world.score(images, rng)
    return world, correct, loss, assign_folds(rng.integers(7, size=images), seed)


def test_folds_are_even_and_so_is_each_class_in_them() -> None:
    labels = np.random.default_rng(0).integers(10, size=1003)
    folds = assign_folds(labels, seed=3)
    assert np.ptp(np.bincount(folds, minlength=FOLDS)) <= 1
    for label in range(10):
        assert np.ptp(np.bincount(folds[labels == label], minlength=FOLDS)) <= 1
    assert np.array_equal(folds, assign_folds(labels, seed=3))
    assert not np.array_equal(folds, assign_folds(labels, seed=4))


@pytest.mark.parametrize("rank_by", ["loss", "top1"])
def test_the_best_of_a_fold_is_the_best_on_all_other_images(rank_by: str) -> None:
    _, correct, loss, folds = draw(101)
    sums = FoldSums.of(correct, loss, folds)
    chosen = sums.fold_orders(rank_by, best=5)
    for fold in range(FOLDS):
        others = folds != fold
        scores = [
            (losses[others].sum() if rank_by == "loss" else -right[others].sum(), losses[others].sum())
            for right, losses in zip(correct, loss.astype(np.float64), strict=True)
        ]
        assert chosen[fold].tolist() == sorted(range(len(scores)), key=scores.__getitem__)[:5]
    whole = sorted(range(len(loss)), key=lambda a: (0 if rank_by == "loss" else -correct[a].sum(), loss[a].sum()))
    assert sums.order(rank_by).tolist() == whole


def test_equal_architectures_keep_their_order_and_those_without_a_score_come_last() -> None:
    loss = np.ones((4, 12))
    loss[0, 5] = np.nan
    sums = FoldSums.of(np.ones((4, 12), bool), loss, assign_folds(np.zeros(12), 0))
    assert sums.order("loss").tolist() == sums.order("top1").tolist() == [1, 2, 3, 0]


def test_each_image_reports_on_what_the_other_folds_have_chosen() -> None:
    _, correct, loss, folds = draw(60)
    chosen = FoldSums.of(correct, loss, folds).fold_orders("loss", 1)[:, 0]
    expected = [correct[chosen[folds[image]], image] for image in range(60)]
    assert fitted_values(correct, chosen, folds).tolist() == expected
    assert cross_fitted_score(correct, chosen, folds).value == np.mean(expected)


def test_of_equal_architectures_none_is_said_to_be_better() -> None:
    """All have the same true top-1: on its own images the winner leads, on others it does not."""
    naive, honest = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        correct = rng.random((100, 120)) < 0.9
        loss = np.where(correct, 0.1, 3.0) + 0.1 * rng.random(correct.shape)
        folds = assign_folds(np.zeros(120), seed)
        sums = FoldSums.of(correct, loss, folds)
        others = rng.choice(100, 30, replace=False)
        naive.append(correct[sums.order("loss")[0]].mean() - correct[others].mean())
        chosen = sums.fold_orders("loss", 1)[:, 0]
        honest.append(cross_fitted_gain(correct, chosen, folds, correct[others].astype(float)).value)
    error = np.std(honest) / np.sqrt(len(honest))
    assert min(naive) > 0.02
    assert abs(np.mean(honest)) < 3 * error < 0.02


def test_the_difference_to_oneself_is_nothing() -> None:
    _, correct, loss, folds = draw(90)
    chosen = FoldSums.of(correct, loss, folds).fold_orders("loss", 2)
    same = cross_fitted_difference(correct.astype(float), chosen[:, 0], chosen[:, 0], folds)
    assert same.value == 0
    other = cross_fitted_difference(correct.astype(float), chosen[:, 0], chosen[:, 1], folds)
    back = cross_fitted_difference(correct.astype(float), chosen[:, 1], chosen[:, 0], folds)
    assert (other.value, other.low, other.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_the_variance_of_the_gain_has_that_of_the_comparison() -> None:
    """With images without end, what is left is the standard error of the mean of those drawn."""
    rng = np.random.default_rng(0)
    means = rng.normal(0.9, 0.02, 20)
    others = np.clip(means[:, None] + rng.normal(0, 1e-4, (20, 4000)), 0, 1)
    values = np.full((1, 4000), 0.95) + rng.normal(0, 1e-4, (1, 4000))
    gain = cross_fitted_gain(values, np.zeros(FOLDS, int), assign_folds(np.zeros(4000), 0), others)
    from scipy.stats import t

    half = t.ppf(0.975, 19) * means.std(ddof=1) / np.sqrt(20)
    assert gain.value == pytest.approx(0.95 - means.mean(), abs=1e-4)
    assert (gain.high - gain.low) / 2 == pytest.approx(half, rel=0.01)


# ---------------------------------------------------------------------------------------------------- reliability


def test_reliability_is_the_mean_over_all_halves() -> None:
    _, correct, loss, folds = draw(240)
    found = reliability(FoldSums.of(correct, loss, folds))
    taus = []
    for half in combinations(range(FOLDS), FOLDS // 2):
        if 0 in half:
            one = np.isin(folds, half)
            taus.append(kendalltau(*(loss[:, part].mean(1, dtype=float) for part in (one, ~one))).statistic)
    assert len(taus) == 10
    assert found.tau_loss == pytest.approx(np.mean(taus))


def test_noise_is_not_reliable_and_what_has_none_is() -> None:
    rng = np.random.default_rng(1)
    folds = assign_folds(np.zeros(300), 0)
    noise = reliability(FoldSums.of(rng.random((80, 300)) < 0.9, rng.exponential(size=(80, 300)), folds))
    assert abs(noise.tau_loss) < 0.1
    assert not noise.enough
    levels = np.repeat(rng.random((80, 1)), 300, axis=1)
    exact = reliability(FoldSums.of(np.ones((80, 300), bool), levels, folds))
    assert exact.tau_loss == pytest.approx(1)
    assert exact.loss == pytest.approx(1)
    assert exact.spread == pytest.approx(levels[:, 0].std())
    assert exact.enough


def test_the_images_that_are_said_to_be_needed_are_enough() -> None:
    rng = np.random.default_rng(2)
    world = World.draw(rng)
    few = reliability(FoldSums.of(*world.score(600, rng), assign_folds(np.zeros(600), 0)))
    assert not few.enough
    assert few.images_needed is not None
    more = reliability(FoldSums.of(*world.score(few.images_needed, rng), assign_folds(np.zeros(few.images_needed), 0)))
    assert more.loss == pytest.approx(0.8, abs=0.06)
    assert (
        reliability(FoldSums.of(np.ones((5, 12), bool), np.ones((5, 12)), assign_folds(np.zeros(12), 0))).images_needed
        is None
    )


@pytest.mark.parametrize(("spread", "exists"), [(0.0, False), (0.002, False), (0.05, True)])
def test_headroom_is_what_the_architectures_truly_differ_by(spread: float, exists: bool) -> None:
    """A loss is a network's own, an image's, and what one makes of the other: 0.5, or 0.5 / sqrt(n) of a mean.

    The mean over 60 worlds is within four standard errors of what was put in.
    """
    rng, images, number = np.random.default_rng(0), 600, 50
    found = []
    for _ in range(60):
        own, shared = rng.normal(0, spread, (number, 1)), rng.exponential(1, images)
        loss = 1 + own + shared + rng.normal(0, 0.5, (number, images))
        room = headroom(FoldSums.of(loss < 1, loss, assign_folds(np.zeros(images), 0)))
        assert room is not None
        assert room.number == number
        found.append(room)
    signal, noise = (np.array([getattr(room, name) for room in found]) ** 2 for name in ("spread", "noise"))
    error = np.std(noise, ddof=1) / np.sqrt(len(noise))
    assert noise.mean() == pytest.approx(0.25 / images, abs=max(4 * error, 2e-5))
    if spread == 0.05:
        assert signal.mean() == pytest.approx(spread**2, rel=0.1)
    assert [room.exists for room in found].count(exists) >= 57


def test_the_best_of_many_is_ahead_by_the_expected_maximum() -> None:
    largest = np.random.default_rng(1).normal(size=(200_000, 20)).max(axis=1).mean()
    assert Headroom(20, 0.3, 0.1).gain == pytest.approx(0.3 * largest, rel=0.01)


def test_few_have_no_headroom_to_speak_of() -> None:
    _, correct, loss, folds = draw(60)
    assert headroom(FoldSums.of(correct[:7], loss[:7], folds)) is None
    failed = np.where(np.arange(8)[:, None] == 3, np.nan, loss[:8])
    assert headroom(FoldSums.of(correct[:8], failed, folds)) is None


def test_equals_are_not_told_apart_and_the_worse_are() -> None:
    truth, kept, changed = np.array([0.0] * 10 + [1.0] * 5), [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        loss = truth[:, None] + rng.normal(size=400) + rng.normal(0, 0.5, (15, 400))
        sums = FoldSums.of(np.ones_like(loss, bool), loss, assign_folds(np.zeros(400), seed))
        chosen = sums.fold_orders("loss", 1)[:, 0]
        tied = not_told_apart(sums, chosen, loss[:10])
        assert tied[np.bincount(chosen).argmax()]
        assert not tied[10:].any()
        repeated = np.tile(loss[:10], 4)  # the images of the sums are as many as before
        changed.append((not_told_apart(sums, chosen, repeated) != tied).mean())
        kept.append(tied[:10].mean())
    assert np.mean(kept) == pytest.approx(0.95, abs=0.05)
    assert np.mean(changed) < 0.01  # a twice as small error would change one in seven
    sums.loss[3, 0] = np.nan
    assert not not_told_apart(sums, chosen, loss[:10])[3]


# ---------------------------------------------------------------------------------------------------- coverage


def test_the_truth_of_the_simulation_is_what_many_images_show() -> None:
    rng = np.random.default_rng(5)
    world = World.draw(rng)
    correct, _ = world.score(40_000, rng)
    error = np.sqrt(world.top1 * (1 - world.top1) / 40_000)
    assert np.abs((correct.mean(axis=1) - world.top1) / error).max() < norm.ppf(1 - 1e-6)


@pytest.mark.parametrize(
    ("images", "repeats"),
    [
        (143, 100),
        *(pytest.param(n, k, marks=pytest.mark.slow) for n, k in ((143, 400), (575, 400), (2000, 400), (10_000, 150))),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(images: int, repeats: int) -> None:
    shares = coverage(images, repeats)
    error = np.sqrt(0.95 * 0.05 / repeats)
    for claim in ("gain", "own score", "behind"):
        assert 0.93 - 2 * error < shares[claim] <= min(1.0, 0.97 + 2 * error), claim
    assert shares["gain, same images"] < 0.8  # the interval that this one replaces
