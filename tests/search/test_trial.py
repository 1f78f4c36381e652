"""A scored architecture: which of several is the best."""

import math
from dataclasses import replace
from itertools import permutations

from psvit.arch import Architecture
from psvit.search.tables import HISTORY
from psvit.search.trial import Trial


def trial(layers: str, top1: float, loss: float = 1.0, flops: int = 100, num_images: int = 100) -> Trial:
    return Trial(Architecture.parse(layers), flops, 10, top1, loss, num_images, 0)


def test_by_top1_the_order_is_decided_by_value() -> None:
    in_order(
        "top1",
        trial("BB-B", 0.9, 2.0),
        trial("BS-B", 0.8, 0.5, flops=300),
        trial("B-BS", 0.8, 0.7, flops=100),
        trial("B-BB", 0.8, 0.7, flops=200),
        trial("BB-BB", 0.8, 0.7, flops=200),
        trial("BBS-B", 1.0, 0.1, num_images=71),  # dropped in a race
        trial("BS-BS", math.nan, math.nan, flops=1),
        trial("BSS-BS", 1.0, math.nan, flops=2),
    )


def test_by_loss_the_order_is_decided_by_value() -> None:
    in_order(
        "loss",
        trial("BS-B", 0.8, 0.5, flops=300),
        trial("BB-B", 0.9, 0.7, flops=300),
        trial("B-BS", 0.8, 0.7, flops=100),
        trial("B-BB", 0.8, 0.7, flops=200),
        trial("BB-BB", 0.8, 0.7, flops=200),
        trial("BBS-B", 1.0, 0.1, num_images=71),
        trial("BS-BS", math.nan, math.nan, flops=1),
        trial("BSS-BS", 1.0, math.nan, flops=2),
    )


def in_order(rank_by: str, *ranking: Trial) -> None:
    """Whatever their order, they are sorted as they are given; the last two failed."""
    for number, order in enumerate(permutations(ranking)):
        if number % 397 == 0:
            assert sorted(order, key=lambda each: each.sort_key(rank_by)) == list(ranking)
    assert [each.failed for each in ranking] == [False] * 6 + [True] * 2


def test_the_row_has_the_sums_of_each_fold() -> None:
    row = replace(trial("B-B", 0.5), folds=tuple(map(float, range(12)))).row(3)
    assert list(row) == list(HISTORY.columns)
    assert (row["number"], row["correct_fold1"], row["loss_fold1"], row["loss_fold6"]) == (3, 0.0, 6.0, 11.0)
    assert math.isnan(trial("B-B", 0.5).row(1)["loss_fold6"])
