"""What feeds the training of a detector: this process's micro-batches, a function of (seed, step) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.data.loading import load
from psvit.data.plan import Part, Plan
from psvit.detection.coco import CocoImages, flip_horizontal
from psvit.detection.config import DetectRecipe
from psvit.engine.runtime import Runtime
from psvit.run.random import numpy_rng

Target = dict[str, Any]  # of coco.Target's keys, and short_side


class _Key(NamedTuple):
    """An image to load, and the epoch that it is augmented for."""

    image: int
    epoch: int


class DetectionFeed:
    """The training batches of a run, of images one by one: they have sizes of their own.

    Args:
        images: to learn from.
        workers: processes that load; 0 loads in this one. No effect on what comes.

    Attributes:
        steps_per_epoch: optimiser steps per epoch.
        batch_size: images of a whole step, over all processes and micro-batches: the recipe's, or all there are.

    Raises:
        ValueError: a process or micro-batch would get no image.
    """

    def __init__(self, images: CocoImages, workers: int, recipe: DetectRecipe, runtime: Runtime) -> None:
        self._plan = Plan(np.arange(len(images)), recipe.batch_size, runtime.seed)
        self._share = runtime.processes.share(recipe.accumulate)
        self._plan.check(self._share)
        self._source = AugmentedImages(images, recipe, runtime.seed)
        self._workers, self._device, self._epochs = workers, runtime.device, recipe.epochs
        self.steps_per_epoch, self.batch_size = self._plan.steps_per_epoch, self._plan.batch_size

    def __call__(self, first_step: int) -> Iterator[tuple[list[Tensor], list[Target]]]:
        """This process's micro-batches on the device, from a step on to the end of the recipe.

        Images are float32 (3, height, width), targets as :class:`psvit.detection.model.Detector` takes them.

        Raises:
            ValueError: an image cannot be read.
        """
        # image by image, since each tensor that a worker has under way costs a file descriptor
        keys = (_Key(image, part.epoch) for part in self._parts(first_step) for image in part.images)
        pictures = load(self._source, keys, self._workers, pin=self._device.type == "cuda", ahead=4)
        for part in self._parts(first_step):
            pairs = [self._move(*pair) for pair in islice(pictures, len(part.images))]
            yield [image for image, _ in pairs], [target for _, target in pairs]

    def _parts(self, first_step: int) -> Iterator[Part]:
        for step in range(first_step, self._epochs * self.steps_per_epoch):
            for micro in range(self._share.accumulate):
                yield self._plan.part(step, micro, self._share)

    def _move(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        moved = {
            key: value.to(self._device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in target.items()
        }
        return image.to(self._device, non_blocking=True), moved


@dataclass(frozen=True)
class AugmentedImages(TorchDataset[tuple[Tensor, Target] | ValueError]):
    """Images by key, flipped by chance and told a size by chance: both are a function of (seed, epoch, image).

    The error of a broken image is returned, as torch would wrap a raised one in a traceback.
    """

    images: CocoImages
    recipe: DetectRecipe
    seed: int

    def __getitem__(self, key: _Key) -> tuple[Tensor, Target] | ValueError:
        try:
            image, target = self.images[key.image]
        except ValueError as error:
            return ValueError(str(error))
        rng = numpy_rng(self.seed, "detection", key.epoch, key.image)
        short_side = self.recipe.min_sizes[rng.integers(len(self.recipe.min_sizes))]
        if rng.random() < self.recipe.flip:
            image, target = flip_horizontal(image, target)
        return image, {**target, "short_side": short_side}
