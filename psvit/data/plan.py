"""Which images each step of a training is made of: a function of a seed and the step's number. No torch.

The images of an epoch are in an order of chance, and step t of the epoch takes the t-th slice of it. Into how many
parts a step is cut, for processes and micro-batches, does not change what the step as a whole is made of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from psvit.data.splits import Integers
from psvit.run.random import numpy_rng


class Part(NamedTuple):
    """The images of a part of a step, in order: indices into the collection, which version of its image each is
    (0, 1, ... below ``repeats``), and the epoch, from 0."""

    images: list[int]
    versions: list[int]
    epoch: int


class Plan:
    """The steps of a training.

    With ``repeats`` r above 1, augmentation is repeated (arXiv 1902.05509, 2012.12877): an epoch has as many steps, but
    is made of the first n/r images of its order (rounded up), each r times in a row. So a batch holds r versions of
    each of its images, but of the first and the last where r does not divide the batch.

    Args:
        indices: (n,) the images of the split.
        batch_size: images a step; more than there are means all of them.
        repeats: versions of an image in a batch.

    Attributes:
        batch_size: images a step, exactly.
        steps_per_epoch: whole batches among the images; the few left over are other ones each epoch.
    """

    def __init__(self, indices: Integers, batch_size: int, seed: int, repeats: int = 1) -> None:
        self.batch_size = min(batch_size, len(indices))
        self.steps_per_epoch = len(indices) // self.batch_size
        self._indices, self._seed, self._repeats = indices, seed, repeats
        self._order, self._order_epoch = indices, -1  # the order drawn last, of that epoch

    def part(self, step: int, number: int = 0, parts: int = 1) -> Part:
        """Part ``number`` of a step, from 0, that is cut into ``parts`` whose sizes differ by one image at most."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order = numpy_rng(self._seed, "order", epoch).permutation(self._indices)
            self._order_epoch = epoch
        bounds = (place * self.batch_size + p * self.batch_size // parts for p in (number, number + 1))
        places = np.arange(*bounds)
        images, versions = self._order[places // self._repeats], places % self._repeats
        return Part(images.tolist(), versions.tolist(), epoch)

    def check_parts(self, world: int, accumulate: int) -> None:
        """Refuse parts without an image.

        Raises:
            ValueError: a step has fewer images than ``world`` processes with ``accumulate`` micro-batches each.
        """
        if self.batch_size < world * accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} images is too small for {world} processes with {accumulate} "
                "micro-batches each; use a larger recipe.batch_size, less recipe.accumulate or fewer processes"
            )
