"""The images of a run: its splits, and the batches that training and scoring take from them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from psvit.arch import parse_image_size
from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.datasets import Dataset, Images, open_dataset
from psvit.data.splits import Integers, stratified_split
from psvit.data.transforms import EvalTransform, Normalize, TrainTransform, mix
from psvit.engine.random import numpy_rng, seed_of

SPLITS = ("train", "search", "train+search", "test")
Batch = tuple[Tensor, Tensor]


def open_data(config: DataConfig) -> Data:
    """Open a dataset; images of its test split are not looked at before the split ``test`` is asked for.

    Raises:
        ValueError: an unknown dataset, or a folder that is missing or not what the dataset needs.
    """
    return Data(config, open_dataset(config))


class Data:
    """A dataset and its splits.

    ``train`` is what a supernet learns from and ``search`` what architectures are scored on, held out of the training
    images; a network that is trained alone takes both, ``train+search``. ``test`` is the dataset's own or, where
    it has none, held out of all images before anything else. Every method that takes the name of a split raises
    ValueError if there is none of that name, or if a class has too few images to be split.

    Attributes:
        class_names: name of each class; its place is its label.
    """

    def __init__(self, config: DataConfig, dataset: Dataset) -> None:
        self.config = config
        self.class_names = dataset.class_names
        self._dataset = dataset
        self.normalize = Normalize(dataset.mean, dataset.std)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) that the config asks for, else the dataset's own; None leaves it to the network."""
        if self.config.image_size is not None:
            return parse_image_size(self.config.image_size)
        return self._dataset.image_size

    @cached_property
    def _test(self) -> tuple[Images, Integers]:
        if self._dataset.open_test is None:
            return self._dataset.train, self._train_and_test[1]
        images = self._dataset.open_test()
        return images, np.arange(len(images.labels))

    @cached_property
    def _train_and_test(self) -> tuple[Integers, Integers]:
        labels = self._dataset.train.labels
        if self._dataset.open_test is not None:
            return np.arange(len(labels)), np.arange(0)
        return stratified_split(labels, self.config.test_fraction, self.config.split_seed, "test", self.class_names)

    @cached_property
    def _train_and_search(self) -> tuple[Integers, Integers]:
        both = self._train_and_test[0]
        split = stratified_split(
            self._dataset.train.labels[both],
            self.config.search_fraction,
            self.config.split_seed,
            "search",
            self.class_names,
        )
        return both[split[0]], both[split[1]]

    def _part(self, split: str) -> tuple[Images, Integers]:
        """The collection that a split is a part of, and the split's indices into it, ascending."""
        if split == "test":
            return self._test
        if split not in SPLITS:
            raise ValueError(f"no split is named {split!r}; use one of {', '.join(SPLITS)}")
        if split == "train+search":
            return self._dataset.train, self._train_and_test[0]
        return self._dataset.train, self._train_and_search[split == "search"]

    def size(self, split: str) -> int:
        """Number of images of a split."""
        return len(self._part(split)[1])

    def labels(self, split: str) -> Integers:
        """(n,) label of each image of a split."""
        images, indices = self._part(split)
        return images.labels[indices]

    def image(self, split: str, index: int) -> Tensor:
        """An image of a split as it lies on the disk, uint8 (3, height, width); for pictures."""
        images, indices = self._part(split)
        return images.read(int(indices[index]))

    def split_record(self) -> dict[str, Any]:
        """What names the search split, as plain JSON values; ``sha256`` is of its images' names and labels."""
        images, indices = self._part("search")
        names = images.names
        digest = hashlib.sha256()
        for index in indices:
            digest.update(f"{names[index]}\t{images.labels[index]}\n".encode("utf-8", "surrogateescape"))
        return {
            "dataset": self.config.name,
            "seed": self.config.split_seed,
            "fraction": self.config.search_fraction,
            "images": len(indices),
            "sha256": digest.hexdigest(),
        }

    def steps_per_epoch(self, split: str, batch_size: int) -> int:
        """Whole batches in a split; a batch larger than the split is the whole split."""
        return max(1, self.size(split) // batch_size)

    def train_batches(
        self,
        split: str,
        image_size: tuple[int, int],
        augment: AugmentConfig,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """The micro-batches of the steps ``first_step`` up to, not including, ``last_step``.

        Step t is the (t % steps_per_epoch)-th slice of a permutation drawn for its epoch, t // steps_per_epoch. Each
        process gets a contiguous share of it by its rank, cut into ``accumulate`` micro-batches, all of one size: the
        few images left over are dropped. The order is a function of (seed, epoch), what becomes of an image of (seed,
        epoch, image), and mixup and cutmix of (seed, step, micro-batch, rank): it matters neither where a run starts
        nor how many workers load.

        Args:
            batch_size: images a step, over all processes and micro-batches.

        Yields:
            Images, float32 (b, 3, *image_size), and labels, int64 (b,), or targets, float32 (b, classes), if mixed.

        Raises:
            ValueError: a process or micro-batch would get no image, or an image cannot be read.
        """
        images, indices = self._part(split)
        most = min(batch_size, len(indices))
        micro_batch = most // (world * accumulate)
        if not micro_batch:
            raise ValueError(
                f"a batch of {most} images is too small for {world} processes with {accumulate} micro-batches "
                "each; use a larger recipe.batch_size, less recipe.accumulate or fewer processes"
            )

        def keys() -> Iterator[_Key]:
            steps_per_epoch = self.steps_per_epoch(split, batch_size)
            order, order_epoch = indices, -1
            for step in range(first_step, last_step):
                epoch, place = divmod(step, steps_per_epoch)
                if epoch != order_epoch:
                    order, order_epoch = numpy_rng(seed, "order", epoch).permutation(indices), epoch
                for micro in range(accumulate):
                    start = place * most + (rank * accumulate + micro) * micro_batch
                    part = order[start : start + micro_batch].tolist()
                    yield _Key(part, epoch, seed_of(seed, "mix", step, micro, rank))

        transform = TrainTransform(image_size, augment, self.normalize, images.size)
        return self._load(_TrainBatches(images, transform, seed, self.classes), keys())

    def eval_batches(self, split: str, image_size: tuple[int, int], batch_size: int) -> Iterator[Batch]:
        """All images of a split, in order and nothing random: float32 (b, 3, *image_size) and int64 (b,).

        Raises:
            ValueError: an image cannot be read.
        """
        numbers = range(self.size(split))
        batches = (numbers[start : start + batch_size] for start in numbers[::batch_size])
        for pixels, labels in self.pixel_batches(split, image_size, batches):
            yield self.normalize(pixels), labels

    def pixel_batches(
        self, split: str, image_size: tuple[int, int], batches: Iterable[Sequence[int]]
    ) -> Iterator[Batch]:
        """Images of a split by their numbers in it, as ``eval_batches`` but not normalised: uint8 (b, 3, *image_size).

        Raises:
            ValueError: an image cannot be read.
        """
        images, indices = self._part(split)
        transform = EvalTransform(image_size, self._dataset.photographs)
        keys = (indices[list(numbers)].tolist() for numbers in batches)
        return self._load(_EvalBatches(images, transform), keys)

    def _load(self, batches: TorchDataset[Batch | ValueError], keys: Iterable[Any]) -> Iterator[Batch]:
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=keys,
            num_workers=self.config.workers,
            worker_init_fn=_leave_group_signals_to_the_run,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else the loader draws from, and so changes, torch's global random state
        )
        for batch in loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch[0], batch[1]


class _Key(NamedTuple):
    """What a micro-batch is made of."""

    images: list[int]
    epoch: int
    mix_seed: int


def _read(images: Images, indices: list[int]) -> tuple[list[Tensor], Tensor]:
    return [images.read(index) for index in indices], torch.from_numpy(images.labels[indices])


@dataclass(frozen=True)
class _TrainBatches(TorchDataset[Batch | ValueError]):
    """Micro-batches by key. A broken image's error is returned, as torch would wrap a raised one in a traceback."""

    images: Images
    transform: TrainTransform
    seed: int
    classes: int

    def __getitem__(self, key: _Key) -> Batch | ValueError:
        try:
            pictures, labels = _read(self.images, key.images)
        except ValueError as error:
            return ValueError(str(error))
        seeds = [seed_of(self.seed, "augment", key.epoch, index) for index in key.images]
        return mix(self.transform(pictures, seeds), labels, self.classes, self.transform.augment, key.mix_seed)


@dataclass(frozen=True)
class _EvalBatches(TorchDataset[Batch | ValueError]):
    """Batches by the indices of their images; the error of a broken one is returned, as above."""

    images: Images
    transform: EvalTransform

    def __getitem__(self, key: list[int]) -> Batch | ValueError:
        try:
            pictures, labels = _read(self.images, key)
        except ValueError as error:
            return ValueError(str(error))
        return self.transform(pictures), labels


def _leave_group_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a launcher's SIGTERM go to the process group of a run; it saves, then ends its workers itself."""
    os.setpgid(0, 0)
