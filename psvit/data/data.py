"""The images of a run: its splits, and the batches that training and scoring take from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.arch import parse_image_size
from psvit.data.batches import TrainingSet
from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.datasets import open_dataset
from psvit.data.images import Dataset, Images
from psvit.data.loading import Batch, load
from psvit.data.plan import Plan
from psvit.data.splits import Integers, stratified_split
from psvit.data.transforms import EvalTransform, Normalize, TrainTransform

SPLITS = ("train", "search", "train+search", "test")


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

    @property
    def photographs(self) -> bool:
        """Whether its images are pictures whose margin may be cut off to look at the middle."""
        return self._dataset.photographs

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

    def training_set(
        self, split: str, image_size: tuple[int, int], augment: AugmentConfig, batch_size: int, seed: int
    ) -> TrainingSet:
        """A split as a training takes it.

        Args:
            image_size: (height, width) of the batches.
            batch_size: images per step, over all processes and micro-batches; more than there are means all of them.
            seed: of the order of the images and of all that is random about each.
        """
        images, indices = self._part(split)
        plan = Plan(indices, batch_size, seed, augment.repeats)
        transform = TrainTransform(image_size, augment, self.normalize)
        return TrainingSet(images, plan, transform, self.classes, self.config)

    def eval_batches(self, split: str, image_size: tuple[int, int], batch_size: int) -> Iterator[Batch]:
        """All images of a split, in order and nothing random: float32 (b, 3, *image_size) and int64 (b,).

        Raises:
            ValueError: an image cannot be read; none is skipped here.
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
            ValueError: an image cannot be read; none is skipped here.
        """
        images, indices = self._part(split)
        transform = EvalTransform(image_size, self._dataset.photographs)
        keys = (indices[list(numbers)].tolist() for numbers in batches)
        pin = torch.cuda.is_available()
        return load(_EvalBatches(images, transform, self.config.corrupt == "skip"), keys, self.config.workers, pin)


@dataclass(frozen=True)
class _EvalBatches(TorchDataset[Batch | ValueError]):
    """Batches by the indices of their images. The error of a broken one is returned, not raised, as in ``Source``."""

    images: Images
    transform: EvalTransform
    skip: bool

    def __getitem__(self, key: list[int]) -> Batch | ValueError:
        try:
            pictures = [self.images.read(index) for index in key]
        except ValueError as error:
            why = ". data.corrupt=skip is for training: a score without this image would not be of the recorded split"
            return ValueError(f"{error}{why if self.skip else ''}")
        aspects = None if self.images.aspects is None else self.images.aspects[key].tolist()
        return self.transform(pictures, aspects), torch.from_numpy(self.images.labels[key])
