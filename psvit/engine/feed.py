"""What feeds the training loop: this process's batches of a split, by a recipe."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from psvit.data.data import Data
from psvit.data.loading import jpeg_decoder
from psvit.engine.config import Recipe
from psvit.engine.distributed import Processes


class Feed:
    """The training batches of a run.

    Args:
        split: of the images, ``train`` or ``train+search``.
        image_size: (height, width) that the network takes.
        device: of the batches.

    Attributes:
        steps_per_epoch: optimiser steps an epoch.
        batch_size: images of a whole step, over all processes and micro-batches: the recipe's, or all of the split.

    Raises:
        ValueError: a process or micro-batch would get no image, or ``data.decode=gpu`` cannot be had.
    """

    def __init__(
        self,
        data: Data,
        split: str,
        image_size: tuple[int, int],
        recipe: Recipe,
        seed: int,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self._data, self._split, self._image_size = data, split, image_size
        self._recipe, self._seed, self._processes, self._device = recipe, seed, processes, device
        plan = data.plan(split, recipe.batch_size, seed)
        plan.check_parts(processes.world, recipe.accumulate)
        self.steps_per_epoch, self.batch_size = plan.steps_per_epoch, plan.batch_size
        self._decode = jpeg_decoder(data.config.decode, device)

    def __call__(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's micro-batches on the device, from a step on to the end of the recipe."""
        return self._data.train_batches(
            self._split,
            self._image_size,
            self._recipe.augment,
            self._recipe.batch_size,
            self._seed,
            first_step,
            self._recipe.epochs * self.steps_per_epoch,
            self._recipe.accumulate,
            self._processes.rank,
            self._processes.world,
            self._device,
            self._decode,
        )
