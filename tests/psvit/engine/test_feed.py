"""What feeds the training loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.data import Data, open_data
from psvit.engine.config import Recipe
from psvit.engine.distributed import Processes
from psvit.engine.feed import Feed
from psvit.engine.runtime import Runtime

CPU, ALONE = torch.device("cpu"), Processes()
AUGMENT = AugmentConfig(randaugment_ops=0, mixup=0.0, cutmix=0.0)
RECIPE = Recipe(epochs=2, batch_size=250, accumulate=2, augment=AUGMENT)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data(DataConfig())


def feed(data: Data, recipe: Recipe, processes: Processes = ALONE) -> Feed:
    return Feed(data, "train", (16, 16), recipe, Runtime(5, CPU, processes))


def test_it_goes_from_a_step_to_the_end_of_the_recipe(digits: Data) -> None:
    whole = feed(digits, RECIPE)
    assert (whole.batch_size, whole.steps_per_epoch) == (250, digits.size("train") // 250)
    steps = 2 * whole.steps_per_epoch
    batches = list(whole(0))
    assert [len(images) for images, _ in batches] == [125] * 2 * steps
    later = list(whole(steps - 1))
    assert len(later) == 2
    assert all(torch.equal(a, b) for pair in zip(later, batches[-2:], strict=True) for a, b in zip(*pair, strict=True))
    images, targets = batches[0]
    assert (images.dtype, images.device, targets.dtype) == (torch.float32, CPU, torch.int64)


def test_a_batch_is_never_larger_than_the_split(digits: Data) -> None:
    n = digits.size("train")
    whole = feed(digits, replace(RECIPE, batch_size=10**6))
    assert (whole.batch_size, whole.steps_per_epoch) == (n, 1)
    assert sum(len(images) for images, _ in whole(1)) == n


def test_processes_and_micro_batches_share_the_batch_that_one_process_has(digits: Data) -> None:
    one = next(feed(digits, replace(RECIPE, accumulate=1))(3))
    shares = [list(feed(digits, RECIPE, Processes(rank, 3))(3))[:2] for rank in range(3)]
    sizes = [len(images) for share in shares for images, _ in share]
    assert sum(sizes) == 250
    assert set(sizes) == {41, 42}
    assert torch.equal(torch.cat([images for share in shares for images, _ in share]), one[0])
    assert torch.equal(torch.cat([labels for share in shares for _, labels in share]), one[1])


def test_a_batch_smaller_than_the_processes_is_refused_before_the_run(digits: Data) -> None:
    with pytest.raises(ValueError, match="a batch of 4 images is too small for 3 processes with 2 micro-batches each"):
        feed(digits, replace(RECIPE, batch_size=4), Processes(0, 3))


def test_a_decoder_that_is_not_there_is_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match=r"data\.decode=gpu: no JPEG can be decoded there"):
        feed(open_data(DataConfig(decode="gpu")), RECIPE)
