"""What feeds the training loop: this process's batches of a split, by a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from psvit.data.data import Data
from psvit.data.loading import Batch, jpeg_decoder
from psvit.engine.config import Recipe
from psvit.engine.runtime import Runtime


class Feed:
    """The training batches of a run.

    Args:
        split: of the images, ``train`` or ``train+search``.
        image_size: (height, width) that the network takes.

    Attributes:
        steps_per_epoch: optimiser steps per epoch.
        batch_size: images of a whole step, over all processes and micro-batches: the recipe's, or all of the split.

    Raises:
        ValueError: a process or micro-batch would get no image, or ``data.decode=gpu`` cannot be had.
    """

    def __init__(self, data: Data, split: str, image_size: tuple[int, int], recipe: Recipe, runtime: Runtime) -> None:
        self._images = data.training_set(split, image_size, recipe.augment, recipe.batch_size, runtime.seed)
        self._share = runtime.processes.share(recipe.accumulate)
        self._images.plan.check(self._share)
        self.steps_per_epoch, self.batch_size = self._images.plan.steps_per_epoch, self._images.plan.batch_size
        self._steps, self._device = recipe.epochs * self.steps_per_epoch, runtime.device
        self._decode = jpeg_decoder(data.config.decode, runtime.device)

    def __call__(self, first_step: int) -> Iterator[Batch]:
        """This process's micro-batches on the device, from a step on to the end of the recipe."""
        return self._images.batches(range(first_step, self._steps), self._share, self._device, self._decode)
