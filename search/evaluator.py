"""Scores many architectures at once by the weights they inherit, on the search split.

The common beginnings of their paths are computed once (``search/walk.py``). This is the one place of a search that
knows of several processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from psvit.arch import IDENTITY, LAYER_LETTERS, Architecture, CellPath
from psvit.data.data import Data
from psvit.data.pixels import Pixels
from psvit.engine.device import free_memory
from psvit.engine.distributed import Processes
from psvit.engine.scoring import Score
from psvit.run.random import numpy_rng
from psvit.search.config import SearchRunConfig
from psvit.search.tree import prefix_tree, shares, tree_flops
from psvit.search.walk import Walker
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.units import parse_quantity

_LETTERS = (IDENTITY, *LAYER_LETTERS.values())  # how a path travels between processes: a byte a cell


@dataclass(frozen=True)
class Outcomes:
    """What becomes of each image in each architecture.

    Attributes:
        correct: (architectures, images) whether the most likely class is the right one; a share when an architecture
            is scored on several placements.
        loss: (architectures, images) cross entropy; NaN where the logits are.
    """

    correct: npt.NDArray[Any]
    loss: npt.NDArray[np.float32]

    def scores(self) -> list[Score]:
        """Top-1 and loss of each architecture, both NaN if the loss of any image is."""
        top1, loss = self.correct.mean(axis=1), self.loss.mean(axis=1, dtype=np.float64)
        return [
            Score(math.nan, math.nan) if math.isnan(b) else Score(a, b)
            for a, b in zip(top1.tolist(), loss.tolist(), strict=True)
        ]


class Evaluator:
    """Top-1 and loss of architectures on the search split; the test split is never touched.

    With several processes the main one asks, inside ``with evaluator``, and the others ``follow()``: batches of images
    are shared out among all, and parts of the tree where there are few batches.

    Args:
        supernet: whose weights they inherit; in eval mode, on ``device``.
        pixels: the images of the search split.
        batch_size: images that walk through the tree together; None chooses by the device and the space.
        memory: bytes that the walk may use; None takes what is free, with a margin.
        placements: 0 scores an architecture on its canonical path; k averages over k random placements of its layers
            in the cells, which are a function of (seed, architecture).
        precision, compiled: see :class:`psvit.search.walk.Walker`.

    Attributes:
        batch_size: as above, as it was chosen.
    """

    def __init__(
        self,
        supernet: Supernet,
        space: SearchSpace,
        pixels: Pixels,
        device: torch.device,
        *,
        batch_size: int | None = None,
        memory: int | None = None,
        placements: int = 0,
        seed: int = 0,
        precision: str = "auto",
        compiled: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self._space, self._pixels, self._device = space, pixels, device
        self._placements, self._seed = placements, seed
        self._processes = processes or Processes()
        self._walk = Walker(supernet, device, memory or free_memory(device), precision, compiled)
        self.batch_size = batch_size or self._walk.batch_size

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(num_images,) class of each image, in the order in which they are scored."""
        return self._pixels.labels

    @property
    def num_images(self) -> int:
        """Number of images that architectures are scored on."""
        return len(self._pixels)

    def __call__(self, architectures: Sequence[Architecture]) -> list[Score]:
        """The score of each on all images."""
        return self.outcomes(architectures, range(self.num_images)).scores()

    def outcomes(self, architectures: Sequence[Architecture], images: range) -> Outcomes:
        """What becomes of some consecutive images in each architecture.

        Raises:
            ValueError: an image cannot be read, another process has died, or the memory does not hold one image.
        """
        assert architectures, "nothing to score"
        assert images, "nothing to score on"
        paths = [path for architecture in architectures for path in self._paths(architecture)]
        self._announce(paths, images)
        correct, loss = self._score(paths, images)
        if not self._placements:
            return Outcomes(correct, loss)
        shape = (len(architectures), self._placements, len(images))
        return Outcomes(correct.reshape(shape).mean(axis=1), loss.reshape(shape).mean(axis=1))

    def flops(self, architectures: Sequence[Architecture]) -> int:
        """Multiply-adds per image that scoring these together takes."""
        paths = {path for architecture in architectures for path in self._paths(architecture)}
        return tree_flops(prefix_tree(paths), self._space.spec)

    def _paths(self, architecture: Architecture) -> list[CellPath]:
        if not self._placements:
            return [CellPath.canonical(architecture, self._space.cells)]
        rng = numpy_rng(self._seed, f"placements/{architecture}")
        return [self._space.placement(architecture, rng) for _ in range(self._placements)]

    def _score(self, paths: list[CellPath], images: range) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Do this process's share of the work, and put all shares together: (paths, images) each."""
        unique = sorted(set(paths), key=lambda path: path.stages)
        rank, world = self._processes.rank, self._processes.world
        # Batches are the same for any number of processes, since what an image becomes depends, in its last bits, on
        # the size of its batch. Where they do not come out even, the tree is cut as well.
        batches = shares(len(images), -(-len(images) // self.batch_size))
        parts = shares(len(unique), 1 if len(batches) >= 8 * world else world // math.gcd(len(batches), world))
        units = [(part, batch) for part in parts for batch in batches][rank::world]
        trees = {part: prefix_tree(unique[part.start : part.stop]) for part, _ in units}

        correct = torch.zeros((len(unique), len(images)), dtype=torch.bool)
        loss = torch.zeros((len(unique), len(images)))
        spans = [range(images.start + batch.start, images.start + batch.stop) for _, batch in units]
        loaded = self._pixels.batches(spans, self._device)
        for (part, batch), (pixels, labels) in zip(units, loaded, strict=True):
            place = slice(part.start, part.stop), slice(batch.start, batch.stop)
            correct[place], loss[place] = self._walk(trees[part], len(part), pixels, labels)
        if world > 1:  # zeros stand where another process has worked, so that the sums are exact
            correct = self._processes.sum(correct.byte().to(self._device)).bool().cpu()
            loss = self._processes.sum(loss.to(self._device)).cpu()
        number = {path: row for row, path in enumerate(unique)}
        rows = [number[path] for path in paths]
        return correct.numpy()[rows], loss.numpy()[rows]

    # ------------------------------------------------------------------------------------------------ processes

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes.world > 1 and self._processes.main:
            self._processes.broadcast(torch.zeros(3, dtype=torch.int64, device=self._device))  # no paths: the end

    def follow(self) -> None:
        """In a process that is not the main one: do one's share of what that one asks for, until it has ended."""
        while True:
            header = torch.zeros(3, dtype=torch.int64, device=self._device)
            number, first, last = self._processes.broadcast(header).tolist()
            if not number:
                return
            shape = (number, self._space.spec.stages, self._space.cells)
            coded = self._processes.broadcast(torch.zeros(shape, dtype=torch.uint8, device=self._device))
            paths = [CellPath(tuple("".join(_LETTERS[i] for i in word) for word in path)) for path in coded.tolist()]
            self._score(paths, range(first, last))

    def _announce(self, paths: list[CellPath], images: range) -> None:
        if self._processes.world > 1:
            coded = [[[_LETTERS.index(letter) for letter in word] for word in path.stages] for path in paths]
            header = [len(paths), images.start, images.stop]
            self._processes.broadcast(torch.tensor(header, device=self._device))
            self._processes.broadcast(torch.tensor(coded, dtype=torch.uint8, device=self._device))


def make_evaluator(
    config: SearchRunConfig, trained: TrainedSupernet, data: Data, device: torch.device, processes: Processes
) -> Evaluator:
    """The evaluator of a search.

    Raises:
        ValueError: fewer images are asked for than there are classes, or placements that the supernet does not know.
    """
    settings, spec = config.search, trained.space.spec
    trained.check_placements(settings.placements)
    if settings.num_images is not None and settings.num_images < spec.classes:
        raise ValueError(
            f"search.num_images is {settings.num_images}; {spec.classes} classes need at least {spec.classes} images"
        )
    return Evaluator(
        trained.load().to(device),
        trained.space,
        Pixels(data, "search", spec.image_size, settings.num_images, trained.data.split_seed, Path(config.out)),
        device,
        batch_size=settings.batch_size,
        memory=None if settings.memory is None else parse_quantity(settings.memory),
        placements=settings.placements,
        seed=config.seed,
        precision=settings.precision,
        compiled=device.type == "cuda" if settings.compile is None else settings.compile,
        processes=processes,
    )
