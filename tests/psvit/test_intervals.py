"""Intervals of means over images and over what was drawn: by scipy where it knows them, else by simulation."""

import numpy as np
import pytest
from scipy import stats

from psvit.intervals import mean_interval


def test_of_one_row_it_is_students() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 50))
    found, expected = mean_interval(first - second), stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(first.mean() - second.mean())


def test_rows_that_are_equal_add_nothing_to_the_images() -> None:
    images = np.random.default_rng(1).normal(size=40)
    expected = stats.ttest_1samp(images, 0).confidence_interval(0.95)
    found = mean_interval(np.tile(images, (4, 1)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_rows_that_are_constant_are_all_that_counts() -> None:
    rows = np.array([1.0, 2.0, 4.0])
    expected = stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    found = mean_interval(np.tile(rows[:, None], (1, 30)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("images", [143, 1000, 10_000])
@pytest.mark.parametrize(("rows", "spread"), [(1, 0.0), (3, 0.02), (3, 0.2), (5, 0.05)])
def test_it_covers_the_truth_as_often_as_it_says(rows: int, spread: float, images: int) -> None:
    """Images of skewed difficulty, rows that are better or worse as a whole, and noise in each."""
    rng, covered, times = np.random.default_rng(images + rows), 0, 1000 if images < 10_000 else 600
    for _ in range(times):
        difficulty, noise = rng.exponential(1, (1, images)), rng.normal(0, 1, (rows, images))
        found = mean_interval(rng.normal(0, spread, (rows, 1)) + difficulty + noise)
        covered += found.low <= 1 <= found.high
    assert 0.93 - 0.015 <= covered / times <= 0.97 + 0.015  # 93 to 97 %, and what so few simulations are off by


def test_one_image_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two images at least, and there are 1"):
        mean_interval(np.ones((3, 1)))
