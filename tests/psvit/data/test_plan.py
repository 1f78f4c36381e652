"""Which images a step is made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from psvit.data.plan import Plan, Share

INDICES = np.arange(1000, 1103)  # 103 images of a collection


def whole_epoch(plan: Plan, epoch: int) -> list[int]:
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [image for step in steps for image in plan.part(step).images]


def test_an_epoch_has_every_image_once_but_the_few_left_over() -> None:
    plan = Plan(INDICES, 10, seed=3)
    assert (plan.steps_per_epoch, plan.batch_size) == (10, 10)
    epochs = [whole_epoch(plan, epoch) for epoch in range(40)]
    for images in epochs:
        assert len(set(images)) == len(images) == 100
        assert set(images) <= set(INDICES.tolist())
    assert epochs[0] != epochs[1]
    assert len({image for images in epochs for image in set(INDICES.tolist()) - set(images)}) > 50  # other ones each
    assert whole_epoch(Plan(INDICES, 10, seed=3), 7) == epochs[7]  # wherever one starts
    assert whole_epoch(Plan(INDICES, 10, seed=4), 7) != epochs[7]


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("repeats", [1, 3])
def test_parts_are_the_step_cut_into_nearly_equal_pieces(parts: int, repeats: int) -> None:
    plan = Plan(INDICES, 32, seed=0, repeats=repeats)
    for step in (0, 2, 5):
        pieces = [plan.part(step, 0, Share(number, parts)) for number in range(parts)]
        whole = plan.part(step)
        assert [image for piece in pieces for image in piece.images] == whole.images
        assert [version for piece in pieces for version in piece.versions] == whole.versions
        sizes = [len(piece.images) for piece in pieces]
        assert sum(sizes) == 32
        assert max(sizes) - min(sizes) <= 1
        assert {piece.epoch for piece in pieces} == {step // 3}


def test_a_batch_larger_than_the_split_is_the_split() -> None:
    plan = Plan(INDICES, 4096, seed=0)
    assert (plan.steps_per_epoch, plan.batch_size) == (1, 103)
    assert sorted(plan.part(5).images) == INDICES.tolist()


@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_repeated_augmentation_is_the_beginning_of_the_order_each_several_times(repeats: int) -> None:
    once, several = Plan(INDICES, 12, seed=1), Plan(INDICES, 12, seed=1, repeats=repeats)
    assert several.steps_per_epoch == once.steps_per_epoch == 8
    order = whole_epoch(once, 2)
    expected = [image for image in order[: -(-103 // repeats)] for _ in range(repeats)][: 8 * 12]
    assert whole_epoch(several, 2) == expected
    for step in range(16, 24):
        part = several.part(step)
        assert set(Counter(part.images).values()) == {repeats}  # 12 is a multiple of each
        assert part.versions == list(range(repeats)) * (12 // repeats)


def test_versions_of_an_image_differ_where_a_batch_ends_between_them() -> None:
    plan = Plan(INDICES, 10, seed=0, repeats=3)
    seen = [pair for step in range(10) for pair in zip(*plan.part(step)[:2], strict=True)]
    assert len(set(seen)) == len(seen) == 100


def test_empty_parts_are_refused() -> None:
    Plan(INDICES, 8, 0).check(Share(world=2, accumulate=4))
    with pytest.raises(ValueError, match="a batch of 7 images is too small for 2 processes with 4 micro-batches each"):
        Plan(INDICES, 7, 0).check(Share(world=2, accumulate=4))


def test_processes_and_micro_batches_take_parts_in_a_row() -> None:
    plan = Plan(INDICES, 32, seed=0)
    shares = [Share(rank, world=3, accumulate=2) for rank in range(3)]
    parts = [plan.part(4, micro, share) for share in shares for micro in range(2)]
    assert [image for part in parts for image in part.images] == plan.part(4).images
    assert parts == [plan.part(4, 0, Share(number, world=6)) for number in range(6)]
