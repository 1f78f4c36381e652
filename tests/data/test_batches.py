import json
import multiprocessing
import os
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.data import Data, open_data

SIZE = (32, 32)
NO_MIX = AugmentConfig(mixup=0.0, cutmix=0.0)
Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data(DataConfig())


def equal(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(chain(*one), chain(*other), strict=True)
    )  # images and targets


def names(data: Data, split: str) -> list[str]:
    images, indices = data._part(split)
    return [images.names[index] for index in indices]


def test_digits_splits(digits: Data) -> None:
    assert digits.classes == 10
    assert digits.image_size == (32, 32)
    assert open_data(DataConfig(image_size="64x32")).image_size == (64, 32)
    sizes = {split: digits.size(split) for split in ("train", "search", "train+search", "test")}
    assert sizes["train"] + sizes["search"] == sizes["train+search"]
    assert sizes["train+search"] + sizes["test"] == 1797
    assert sizes["test"] == pytest.approx(0.2 * 1797, abs=5)
    assert sizes["search"] == pytest.approx(0.1 * sizes["train+search"], abs=5)
    parts = [set(digits._part(split)[1].tolist()) for split in ("train", "search", "test")]
    assert len(set.union(*parts)) == 1797  # disjoint, as the sizes sum up to it
    assert set(digits.labels("search")) == set(range(10))
    with pytest.raises(ValueError, match="no split is named 'val'; use one of train, search"):
        digits.size("val")


def test_split_record_changes_with_the_search_split_alone(digits: Data, make_folder) -> None:
    record = digits.split_record()
    assert json.loads(json.dumps(record)) == record
    assert record["images"] == digits.size("search")
    assert open_data(DataConfig(workers=2, image_size="64")).split_record() == record
    assert open_data(DataConfig(split_seed=1)).split_record()["sha256"] != record["sha256"]
    assert open_data(DataConfig(search_fraction=0.2)).split_record()["sha256"] != record["sha256"]

    root = make_folder("root", count=9)
    before = open_data(DataConfig("imagefolder", str(root)))
    held = set(before._part("search")[1].tolist())
    there = root.rename(root.with_name("elsewhere"))
    assert open_data(DataConfig("imagefolder", str(there))).split_record() == before.split_record()
    for index in (min(held), min(set(range(9)) - held)):  # rename an image of the split, and one that is not in it
        (there / f"ant/{index:02}.png").rename(there / f"ant/{index:02}x.png")
        same = open_data(DataConfig("imagefolder", str(there))).split_record() == before.split_record()
        assert same == (index not in held)
        (there / f"ant/{index:02}x.png").rename(there / f"ant/{index:02}.png")


def test_an_epoch_sees_every_image_once_and_epochs_differ(digits: Data) -> None:
    steps = digits.steps_per_epoch("train", 100)
    assert steps == digits.size("train") // 100
    config = AugmentConfig([1.0, 1.0], flip=0, randaugment_ops=0, erasing=0, mixup=0, cutmix=0)
    epochs = [
        torch.cat(
            [images for images, _ in digits.train_batches("train", SIZE, config, 100, 0, e * steps, (e + 1) * steps)]
        )
        for e in (0, 1)
    ]
    whole = torch.cat([images for images, _ in digits.eval_batches("train", SIZE, 256)]).flatten(1)
    for epoch in epochs:
        place = torch.cdist(epoch.flatten(1), whole).argmin(1)
        assert len(place.unique()) == len(epoch) == steps * 100
    assert not torch.equal(*epochs)


def test_augmentation_differs_between_epochs(digits: Data) -> None:
    n = digits.size("search")  # the batch is the whole split, so that an epoch is a step
    assert digits.steps_per_epoch("search", 10 * n) == 1
    first, second = digits.train_batches("search", SIZE, NO_MIX, 10 * n, 0, 0, 2)
    assert len(first[0]) == n
    assert sorted(first[1].tolist()) == sorted(second[1].tolist())
    assert not torch.equal(first[0].sum((1, 2, 3)).sort()[0], second[0].sum((1, 2, 3)).sort()[0])


@pytest.mark.parametrize("name", ["digits", "imagefolder"])
def test_workers_and_start_have_no_effect(name: str, make_folder) -> None:
    root = None if name == "digits" else str(make_folder("root", count=10))
    batch_size, first, last = (64, 19, 23) if name == "digits" else (6, 1, 5)  # over the end of an epoch

    def batches(workers: int, first: int) -> Batches:
        data = open_data(DataConfig(name, root, workers=workers))
        return list(data.train_batches("train", SIZE, AugmentConfig(), batch_size, 7, first, last, accumulate=2))

    unbroken = batches(0, first)
    assert len(unbroken) == 2 * (last - first)
    assert unbroken[0][1].dtype == torch.float32
    assert equal(batches(2, first), unbroken)
    assert equal(batches(0, first + 2), unbroken[4:])
    assert equal(batches(2, last - 1), unbroken[-2:])


def test_evaluation_batches_are_in_order_whatever_the_workers(digits: Data) -> None:
    batches = list(digits.eval_batches("search", SIZE, 50))
    assert [len(labels) for _, labels in batches] == [50, 50, digits.size("search") - 100]
    assert torch.cat([labels for _, labels in batches]).tolist() == digits.labels("search").tolist()
    assert torch.equal(batches[1][0][3], digits.normalize(digits.image("search", 53)))
    assert equal(list(open_data(DataConfig(workers=2)).eval_batches("search", SIZE, 50)), batches)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 3), (2, 1), (3, 2), (4, 1)])
def test_shares_together_are_the_batch(digits: Data, world: int, accumulate: int) -> None:
    def batches(rank: int, world: int, accumulate: int) -> Batches:
        return list(
            digits.train_batches("train", SIZE, NO_MIX, 62, 0, 3, 5, accumulate=accumulate, rank=rank, world=world)
        )

    shares = [batches(rank, world, accumulate) for rank in range(world)]
    for step, whole in enumerate(batches(0, 1, 1)):
        micro = [share[step * accumulate + part] for share in shares for part in range(accumulate)]
        size = 62 // (world * accumulate)  # all of one size, and what is left over is dropped
        assert [len(labels) for _, labels in micro] == [size] * world * accumulate
        assert torch.equal(torch.cat([images for images, _ in micro]), whole[0][: size * world * accumulate])
        assert torch.equal(torch.cat([labels for _, labels in micro]), whole[1][: size * world * accumulate])


def test_a_batch_too_small_to_share_is_refused_at_once(digits: Data) -> None:
    with pytest.raises(ValueError, match="a batch of 7 images is too small for 2 processes with 4 micro-batches each"):
        digits.train_batches("train", SIZE, NO_MIX, 7, 0, 0, 1, accumulate=4, world=2)
    assert len(list(digits.train_batches("train", SIZE, NO_MIX, 8, 0, 0, 1, accumulate=4, world=2))) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_left_alone(workers: int) -> None:
    data = open_data(DataConfig(workers=workers))
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(data.train_batches("train", SIZE, AugmentConfig(), 8, 0, 0, 3))
    list(data.eval_batches("search", SIZE, 100))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_one_line_even_from_a_worker(workers: int, make_folder) -> None:
    root = make_folder("root/train", count=8).parent
    (root / "train/bee/03.png").write_bytes(b"no picture")
    data = open_data(DataConfig("imagefolder", str(root), workers=workers))
    split = next(split for split in ("train+search", "test") if "bee/03.png" in names(data, split))
    for batches in (data.train_batches(split, SIZE, NO_MIX, 2, 0, 0, 99), data.eval_batches(split, SIZE, 4)):
        with pytest.raises(ValueError, match=r"^cannot read image .*03\.png \(it is no image\); repair .*") as caught:
            list(batches)
        assert "\n" not in str(caught.value)


def test_training_and_search_do_not_look_at_the_test_split(make_folder, tmp_path: Path) -> None:
    make_folder("own/train", count=10)
    own_test = make_folder("own/test", count=10)
    for path in own_test.glob("*/*.png"):
        path.write_bytes(b"")
    alone = make_folder("alone", count=10)
    held_out = open_data(DataConfig("imagefolder", str(alone)))
    for name in names(held_out, "test"):
        (alone / name).write_bytes(b"")

    for root in (tmp_path / "own", alone):
        data = open_data(DataConfig("imagefolder", str(root)))
        data.split_record()
        list(data.train_batches("train", SIZE, NO_MIX, 8, 0, 0, 4))
        list(data.train_batches("train+search", SIZE, NO_MIX, 8, 0, 0, 4))
        list(data.eval_batches("search", SIZE, 8))
        with pytest.raises(ValueError, match="cannot read image"):
            list(data.eval_batches("test", SIZE, 8))


def test_every_micro_batch_is_mixed_in_its_own_proportion(digits: Data) -> None:
    batches = chain(
        *(digits.train_batches("train", SIZE, AugmentConfig(), 64, 0, 0, 3, 2, rank, world=2) for rank in (0, 1))
    )
    proportions = [tuple(targets[(targets > 0) & (targets < 1)].unique().tolist()) for _, targets in batches]
    assert len(set(proportions)) == len(proportions) == 12


def test_signals_to_the_runs_process_group_do_not_reach_its_workers() -> None:
    batches = open_data(DataConfig(workers=2)).eval_batches("test", SIZE, 8)
    for _ in range(3):  # of two workers in turn: then both have begun
        next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    assert os.getpgrp() not in {os.getpgid(worker.pid) for worker in workers}
    workers[0].terminate()  # but each can be ended by itself
    workers[0].join(10)
    assert workers[0].exitcode is not None
