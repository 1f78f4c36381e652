"""Confusions, classes and calibration, against counting one by one."""

import numpy as np
import pytest

from psvit.intervals import wilson
from psvit.retrain.errors import BINS, calibration, class_scores, confusion

NAMES = ("ant", "bee", "cat", "dog")


def drawn(seed: int = 0, images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)  # no dog
    return labels, np.where(rng.random(images) < 0.7, labels, rng.integers(0, 3, images))


def test_confusions_are_counted_one_by_one() -> None:
    labels, predicted = drawn()
    counts = confusion(labels, predicted, 4)
    for row in range(4):
        for column in range(4):
            pairs = zip(labels, predicted, strict=True)
            assert counts[row, column] == sum((label, taken) == (row, column) for label, taken in pairs)


def test_each_class_by_its_images_and_by_what_was_taken_for_it() -> None:
    labels, predicted = drawn()
    rows = class_scores(confusion(labels, predicted, 4), NAMES)
    assert [row.name for row in rows][-1] == "dog", "what has no images is not said to be bad"
    recalls = [row.recall.value for row in rows if row.recall]
    assert recalls == sorted(recalls)
    for row in rows[:-1]:
        number = NAMES.index(row.name)
        of_it, taken = labels == number, predicted == number
        assert row.images == of_it.sum()
        assert row.recall is not None
        assert row.precision is not None
        assert row.recall.value == pytest.approx(taken[of_it].mean())
        assert row.precision.value == pytest.approx(of_it[taken].mean())
        assert (row.recall.low, row.recall.high) == pytest.approx(wilson(taken[of_it].mean(), of_it.sum()))
        mistakes = [NAMES[taken] for taken in predicted[of_it & ~taken]]
        assert row.taken_for is not None
        assert row.taken_for[1] == mistakes.count(row.taken_for[0]) == max(map(mistakes.count, mistakes))
    assert (rows[-1].images, rows[-1].recall, rows[-1].precision, rows[-1].taken_for) == (0, None, None, None)


def test_calibration_is_summed_bin_by_bin() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(500).astype(np.float32)
    confidence[:2] = 1.0, 0.0
    correct = rng.random(500) < confidence**2
    bins, error = calibration(confidence, correct)
    expected = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = [i for i in range(500) if low <= float(confidence[i]) < high or (high == 1 and confidence[i] == 1)]
        found = next((each for each in bins if each.low == low), None)
        assert (found is None) == (not inside)
        if found:
            assert found.images == len(inside)
            assert found.right.value == pytest.approx(np.mean(correct[inside]))
            assert found.confidence == pytest.approx(np.mean(confidence[inside]), abs=1e-6)
            expected += len(inside) / 500 * abs(np.mean(correct[inside]) - np.mean(confidence[inside]))
    assert error == pytest.approx(expected, abs=1e-6)
    assert sum(each.images for each in bins) == 500


def test_who_is_as_often_right_as_sure_is_calibrated() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.2, 1, 200_000).astype(np.float32)
    assert calibration(confidence, rng.random(200_000) < confidence)[1] < 0.005
    assert calibration(np.full(1000, 0.9, np.float32), np.arange(1000) < 500)[1] == pytest.approx(0.4, abs=1e-6)
