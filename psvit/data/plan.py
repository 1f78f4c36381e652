"""Which images each step of a training is made of: a function of a seed and the step's number. No torch.

The images of an epoch are in an order of chance, and step t of the epoch takes the t-th slice of it. Into how many
parts a step is cut, for processes and micro-batches, does not change what the step as a whole is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from psvit.data.splits import Integers
from psvit.run.random import numpy_rng


@dataclass(frozen=True)
class Share:
    """What a process takes of each step: ``accumulate`` parts in a row, of ``world * accumulate`` in all.

    Attributes:
        rank, world: the number of the process, from 0, and of all processes.
        accumulate: micro-batches of each process.
    """

    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def places(self, batch_size: int, micro: int) -> slice:
        """The places in a step's batch that a micro-batch, from 0, takes; their numbers differ by one at most."""
        part, parts = self.rank * self.accumulate + micro, self.world * self.accumulate
        return slice(part * batch_size // parts, (part + 1) * batch_size // parts)


ALL = Share()  # a process on its own that takes a step at once


class Part(NamedTuple):
    """The images of a micro-batch, in order.

    Attributes:
        images: indices into the collection.
        versions: which version of its image each is, from 0; always 0 without repeated augmentation.
        epoch: from 0.
    """

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
        batch_size: images per step; more than there are means all of them.
        repeats: versions of an image in a batch.

    Attributes:
        batch_size: images per step, exactly.
        steps_per_epoch: whole batches among the images; the few left over are other ones each epoch.
    """

    def __init__(self, indices: Integers, batch_size: int, seed: int, repeats: int = 1) -> None:
        self.batch_size = min(batch_size, len(indices))
        self.steps_per_epoch = len(indices) // self.batch_size
        self.indices, self.seed, self._repeats = indices, seed, repeats
        self._order, self._order_epoch = indices, -1  # the order drawn last, of that epoch

    def part(self, step: int, micro: int = 0, share: Share = ALL) -> Part:
        """The images of a step's micro-batch, from 0, of a process."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order = numpy_rng(self.seed, "order", epoch).permutation(self.indices)
            self._order_epoch = epoch
        mine = share.places(self.batch_size, micro)
        places = place * self.batch_size + np.arange(mine.start, mine.stop)
        images, versions = self._order[places // self._repeats], places % self._repeats
        return Part(images.tolist(), versions.tolist(), epoch)

    def check(self, share: Share) -> None:
        """Refuse micro-batches without an image.

        Raises:
            ValueError: a step has fewer images than micro-batches.
        """
        if self.batch_size < share.world * share.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} images is too small for {share.world} processes with {share.accumulate} "
                "micro-batches each; use a larger recipe.batch_size, less recipe.accumulate or fewer processes"
            )
