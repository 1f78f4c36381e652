"""The images of a run: its splits, and the batches that training and scoring take from them."""

from __future__ import annotations

import copy
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
from psvit.data.overview import overview
from psvit.data.plan import Plan
from psvit.data.record import DataRecord, Listed, Split
from psvit.data.splits import Integers, stratified_split
from psvit.data.transforms import EvalTransform, Normalize, TrainTransform
from psvit.preprocessing import Preprocessing, TrainedOn, usual_preprocessing

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
        normalize: what is done to all pixels, in training and scoring.
    """

    def __init__(self, config: DataConfig, dataset: Dataset) -> None:
        self.config = config
        self.class_names = dataset.class_names
        self._dataset = dataset
        self._preprocessing: Preprocessing | None = None  # the custom
        self._label_of: Integers | None = None  # as they are
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

    def preprocessing(self, image_size: tuple[int, int]) -> Preprocessing:
        """What is done to images that are scored at this (height, width)."""
        if self._preprocessing is not None:
            return self._preprocessing
        mean, std = self.normalize.mean, self.normalize.std
        return usual_preprocessing(mean, std, self._dataset.photographs, image_size)

    def trained_on(self, image_size: tuple[int, int]) -> TrainedOn:
        """What a network that learns from these images has to remember of them."""
        return TrainedOn(self.class_names, self.preprocessing(image_size))

    def normalized_as(self, preprocessing: Preprocessing) -> Data:
        """The same images, normalised as those that weights have learned from, which are to learn from these."""
        data = copy.copy(self)
        data.normalize = Normalize(preprocessing.mean, preprocessing.std)
        return data

    def as_seen_by(self, trained_on: TrainedOn, whose: str) -> Data:
        """The same images as a trained network is to see them: preprocessed as its own, labelled as its outputs.

        Args:
            whose: the network's weights, for the message.

        Raises:
            ValueError: a class that the network does not know.
        """
        place = {name: label for label, name in enumerate(trained_on.class_names)}
        unknown = [name for name in self.class_names if name not in place]
        if unknown:
            raise ValueError(
                f"{whose} knows {_listed(trained_on.class_names)}, and not {_listed(unknown)} of the data "
                f"{self.config.name}: give data of its classes, by the same names"
            )
        data = self.normalized_as(trained_on.preprocessing)
        data._preprocessing = trained_on.preprocessing
        data._label_of = np.array([place[name] for name in self.class_names], np.int64)
        data.class_names = trained_on.class_names
        return data

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
        return stratified_split(
            labels, self.config.test_fraction, self.config.split_seed, "test", self._dataset.class_names
        )

    @cached_property
    def _train_and_search(self) -> tuple[Integers, Integers]:
        both = self._train_and_test[0]
        split = stratified_split(
            self._dataset.train.labels[both],
            self.config.search_fraction,
            self.config.split_seed,
            "search",
            self._dataset.class_names,
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
        labels = images.labels[indices]
        return labels if self._label_of is None else self._label_of[labels]

    def image(self, split: str, index: int) -> Tensor:
        """An image of a split as it lies on the disk, uint8 (3, height, width); for pictures."""
        images, indices = self._part(split)
        return images.read(int(indices[index]))

    def images(self, split: str) -> tuple[Images, Integers]:
        """The collection that a split is a part of, and the split's indices into it, ascending."""
        return self._part(split)

    def image_name(self, split: str, index: int) -> str:
        """What identifies an image of a split: its path below the folder, or its number in the dataset."""
        images, indices = self._part(split)
        return images.names[int(indices[index])]

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

    def overview(self, *splits: str) -> list[str]:
        """Lines on what is read, and as what; the first split is what is learned from."""
        counts = np.bincount(self.labels(splits[0]), minlength=self.classes).tolist()
        classes = dict(zip(self.class_names, counts, strict=True))
        return list(overview(self.config.name, classes, {split: self.size(split) for split in splits}))

    def record(self, test: bool = False) -> DataRecord:
        """What a run is made on; images are not decoded.

        Args:
            test: whether the run reads the test split, too, where that lies apart from the images to learn from.
        """
        apart = self._dataset.open_test is not None
        parts = {"train": self._dataset.train} | ({"test": self._test[0]} if test and apart else {})
        splits = ["train", "search", *(["test"] if test or not apart else [])]
        return DataRecord(
            self.config.name,
            self.class_names,
            {name: Listed.of(each.names, each.labels, each.stamps(), self.classes) for name, each in parts.items()},
            {name: Split.of(self._part(name)[1]) for name in splits},
        )

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
        assert self._label_of is None, "what is labelled as a trained network's outputs is to be scored"
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
        transform = EvalTransform(image_size, self.preprocessing(image_size))
        source = _EvalBatches(images, transform, self._label_of, self.config.corrupt == "skip")
        keys = (indices[list(numbers)].tolist() for numbers in batches)
        return load(source, keys, self.config.workers, torch.cuda.is_available(), patience=self.config.patience)


@dataclass(frozen=True)
class _EvalBatches(TorchDataset[Batch | ValueError]):
    """Batches by the indices of their images. The error of a broken one is returned, not raised, as in ``Source``."""

    images: Images
    transform: EvalTransform
    label_of: Integers | None
    skip: bool

    def __getitem__(self, key: list[int]) -> Batch | ValueError:
        try:
            pictures = [self.images.read(index) for index in key]
        except ValueError as error:
            why = ". data.corrupt=skip is for training: a score without this image would not be of the recorded split"
            return ValueError(f"{error}{why if self.skip else ''}")
        aspects = None if self.images.aspects is None else self.images.aspects[key].tolist()
        labels = self.images.labels[key]
        labels = labels if self.label_of is None else self.label_of[labels]
        return self.transform(pictures, aspects), torch.from_numpy(labels)


def _listed(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many there are beyond."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
