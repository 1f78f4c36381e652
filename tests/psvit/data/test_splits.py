import numpy as np
import pytest

from psvit.data.splits import stratified_split

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 40, 3]))
NAMES = ["many", "some", "few"]


def test_stratified_and_disjoint() -> None:
    stay, held = stratified_split(LABELS, 0.1, 0, "search", NAMES)
    assert sorted([*stay, *held]) == list(range(len(LABELS)))
    assert list(held) == sorted(held)
    assert np.bincount(LABELS[held]).tolist() == [10, 4, 1]


def test_every_class_stays_in_both_parts() -> None:
    stay, held = stratified_split(LABELS, 0.99, 0, "search", NAMES)
    assert np.bincount(LABELS[stay]).tolist() == [1, 1, 1]
    assert set(LABELS[held]) == {0, 1, 2}


def test_seed_and_purpose_determine_it() -> None:
    def held(seed: int, purpose: str) -> list[int]:
        return stratified_split(LABELS, 0.1, seed, purpose, NAMES)[1].tolist()

    assert held(0, "search") == held(0, "search")
    assert held(0, "search") != held(1, "search")
    assert held(0, "search") != held(0, "test")


def test_the_split_of_a_class_does_not_depend_on_other_classes() -> None:
    def held_of_class_1(labels: np.ndarray) -> list[int]:
        held = stratified_split(labels, 0.1, 0, "search", NAMES)[1]
        members = np.flatnonzero(labels == 1)
        return np.flatnonzero(np.isin(members, held)).tolist()

    assert held_of_class_1(LABELS) == held_of_class_1(np.concatenate([np.zeros(7, int), LABELS]))


def test_classes_of_equal_size_are_drawn_from_independently() -> None:
    held = stratified_split(np.repeat([0, 1], 50), 0.2, 0, "search", ["a", "b"])[1]
    assert held[:10].tolist() != (held[10:] - 50).tolist()


def test_a_class_with_one_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"class 'few' has too few images to hold out a search split: 1 left"):
        stratified_split(np.array([0, 0, 1, 1, 2]), 0.1, 0, "search", NAMES)
