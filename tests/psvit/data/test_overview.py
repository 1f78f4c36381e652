"""The lines that say what is read, and as what, against numbers counted by hand."""

import pytest

from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.overview import overview, standard_error


def test_digits() -> None:
    data = open_data(DataConfig())
    assert data.overview("train", "search") == [
        "digits: 10 classes; 1,295 to learn from, 143 to search by",
        "images per class: 125 (8) to 131 (1)",
        "search split: 143 images; a top-1 of 0.9 there has a standard error of 0.0251",
    ]
    first, _ = data.overview("train+search", "test")
    assert first == "digits: 10 classes; 1,438 to learn from, 359 to test on"


def test_uneven_classes_are_said_to_be() -> None:
    lines = list(overview("photos", {"a\nb": 10, "c": 100}, {"train": 110}))
    assert lines[1] == "images per class: 10 (a\\nb) to 100 (c)"
    assert lines[2].startswith("    the classes are far from even")
    assert len(list(overview("photos", {"a": 11, "c": 100}, {"train": 111}))) == 2


def test_the_standard_error_is_that_of_a_share() -> None:
    assert standard_error(10_000) == pytest.approx(0.003)
