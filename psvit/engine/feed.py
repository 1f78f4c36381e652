"""What feeds the training loop: this process's batches of a split, by a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from psvit.data.data import Data
from psvit.engine.config import Recipe
from psvit.engine.distributed import Processes


class Feed:
    """The training batches of a run.

    Args:
        split: of the images, ``train`` or ``train+search``.
        image_size: (height, width) that the network takes.
    """

    def __init__(
        self, data: Data, split: str, image_size: tuple[int, int], recipe: Recipe, seed: int, processes: Processes
    ) -> None:
        self._data, self._split, self._image_size = data, split, image_size
        self._recipe, self._seed, self._processes = recipe, seed, processes
        self.steps_per_epoch = data.steps_per_epoch(split, recipe.batch_size)

    def __call__(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's micro-batches from a step on to the end of the recipe."""
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
        )
