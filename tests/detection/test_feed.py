"""What a step of a detector's training is made of: a function of (seed, step) alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from psvit.detection.coco import CocoImages, open_split
from psvit.detection.config import DetectRecipe
from psvit.detection.data_config import CocoConfig
from psvit.detection.feed import DetectionFeed
from psvit.engine.distributed import Processes
from psvit.engine.runtime import Runtime

CPU, ALONE = torch.device("cpu"), Processes()
Batch = tuple[list[Tensor], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def images(shapes_root: Path) -> CocoImages:
    return open_split(CocoConfig(root=str(shapes_root)), "train")


def feed(images: CocoImages, workers: int = 0, processes: Processes = ALONE, **settings: Any) -> DetectionFeed:
    recipe = DetectRecipe(**{"epochs": 4, "batch_size": 5, "min_sizes": [32, 48, 64], "max_size": 96} | settings)
    return DetectionFeed(images, workers, recipe, Runtime(3, CPU, processes))


def plain(batches: Iterator[Batch], number: int) -> list[Any]:
    """All that is in the next batches, as values that can be compared."""

    def values(target: dict[str, Any]) -> dict[str, Any]:
        return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in target.items()}

    return [
        ([image.tolist() for image in pictures], [values(target) for target in targets])
        for pictures, targets in islice(batches, number)
    ]


def test_batches_do_not_depend_on_where_a_run_starts_or_how_many_load(images: CocoImages) -> None:
    source = feed(images)
    assert (source.steps_per_epoch, source.batch_size) == (2, 5)
    whole = plain(source(0), 100)
    assert len(whole) == 8
    assert plain(feed(images)(3), 100) == whole[3:]
    assert plain(feed(images, workers=2)(1), 4) == whole[1:5]


def test_micro_batches_and_processes_share_a_step_out(images: CocoImages) -> None:
    whole = [target["image_id"] for _, targets in islice(feed(images)(0), 3) for target in targets]
    shares: list[list[int]] = [[], [], []]
    for rank in (0, 1):
        batches = feed(images, processes=Processes(rank, 2), accumulate=2)(0)
        for number, (pictures, targets) in enumerate(islice(batches, 6)):
            assert 1 <= len(pictures) == len(targets) <= 2
            shares[number // 2] += [target["image_id"] for target in targets]
    assert sum(shares, []) == whole  # noqa: RUF017
    with pytest.raises(ValueError, match="a batch of 5 images is too small for 6 processes"):
        feed(images, processes=Processes(0, 6))


def test_a_batch_larger_than_the_data_is_all_of_them(images: CocoImages) -> None:
    source = feed(images, batch_size=64)
    assert (source.steps_per_epoch, source.batch_size) == (1, 12)
    ((_, targets),) = islice(source(0), 1)
    assert sorted(target["image_id"] for target in targets) == sorted(images.image_ids)
    assert any(not len(target["boxes"]) for target in targets), "one has no object, and is learned from all the same"


def test_images_are_flipped_by_chance_with_all_that_is_on_them(images: CocoImages) -> None:
    originals = {target["image_id"]: (image, target) for image, target in images}
    flipped = Counter[bool]()
    for pictures, targets in feed(images, epochs=6)(0):
        for image, target in zip(pictures, targets, strict=True):
            original, objects = originals[target["image_id"]]
            mirrored = torch.equal(image, original.flip(-1))
            flipped[mirrored] += 1
            assert mirrored or torch.equal(image, original)
            masks = objects["masks"].flip(-1) if mirrored else objects["masks"]
            assert torch.equal(target["masks"], masks)
            for box, mask in zip(target["boxes"], masks, strict=True):  # boxes of drawn shapes touch their masks
                columns, rows = mask.any(0).nonzero(), mask.any(1).nonzero()
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert min(flipped.values()) >= 10
    never = feed(images, flip=0.0, epochs=1)(0)
    assert all(
        torch.equal(image, originals[target["image_id"]][0])
        for pictures, targets in never
        for image, target in zip(pictures, targets, strict=True)
    )


def test_each_image_draws_a_size_each_epoch(images: CocoImages) -> None:
    drawn = [(target["image_id"], target["short_side"]) for _, targets in feed(images)(0) for target in targets]
    assert {size for _, size in drawn} == {32, 48, 64}
    sizes_of = {image: {size for other, size in drawn if other == image} for image, _ in drawn}
    assert max(map(len, sizes_of.values())) > 1


def test_a_broken_image_is_named(images: CocoImages, tmp_path: Path, shapes_root: Path) -> None:
    root = tmp_path / "corrupt"
    shutil.copytree(shapes_root, root)
    (root / "train2017").joinpath(sorted(path.name for path in (root / "train2017").iterdir())[3]).write_bytes(b"no")
    corrupt = open_split(CocoConfig(root=str(root)), "train")
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"cannot read image .*000000007.png .*repair or remove it"):
            list(feed(corrupt, workers=workers)(0))
