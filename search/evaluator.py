"""Scores architectures by the weights they inherit, on the search split."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from psvit.arch import Architecture, CellPath
from psvit.data.data import Data
from psvit.engine.random import numpy_rng
from psvit.engine.scoring import Score, score_all
from supernet.space import SearchSpace
from supernet.supernet import Supernet

_KEEP_BYTES = 2 * 2**30  # a search split up to this size is decoded once and kept in memory


class Evaluator:
    """Top-1 and loss of architectures on the search split; the test split is never touched.

    Args:
        supernet: whose weights they inherit; in eval mode, on ``device``.
        placements: 0 scores an architecture on its canonical path; k averages over k random placements of its layers
            in the cells, which are a function of (seed, architecture).
    """

    def __init__(
        self,
        supernet: Supernet,
        space: SearchSpace,
        data: Data,
        device: torch.device,
        batch_size: int,
        placements: int,
        seed: int,
    ) -> None:
        self._supernet, self._space, self._data, self._device = supernet, space, data, device
        self._batch_size, self._placements, self._seed = batch_size, placements, seed
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    def __call__(self, architectures: list[Architecture]) -> list[Score]:
        """The score of each; the images are gone through once for all of them."""
        paths = [path for architecture in architectures for path in self._paths(architecture)]
        scores = score_all([partial(self._supernet, paths=path) for path in paths], self._batches(), self._device)
        each = max(1, self._placements)
        return [_mean(scores[first : first + each]) for first in range(0, len(scores), each)]

    def _paths(self, architecture: Architecture) -> list[CellPath]:
        if not self._placements:
            return [CellPath.canonical(architecture, self._space.cells)]
        rng = numpy_rng(self._seed, f"placements/{architecture}")
        return [self._space.placement(architecture, rng) for _ in range(self._placements)]

    def _batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        size = self._space.spec.image_size
        if self._kept is not None:
            return self._kept
        batches = self._data.eval_batches("search", size, self._batch_size)
        if self._data.size("search") * 3 * size[0] * size[1] * 4 > _KEEP_BYTES:
            return batches
        self._kept = [(images.to(self._device), labels.to(self._device)) for images, labels in batches]
        return self._kept


def _mean(scores: list[Score]) -> Score:
    return Score(*(sum(column) / len(scores) for column in zip(*scores, strict=True)))
