"""Path samplers: which paths a training step takes through the supernet."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from psvit.arch import BASIC, IDENTITY, SHARING, CellPath


class PathSampler(Protocol):
    """Draws paths; a pure function of the generator."""

    def draw(self, number: int, rng: np.random.Generator) -> list[CellPath]:
        """So many paths, independent of each other."""
        ...


class UniformCells:
    """Uniform path sampling (paper, section "AutoML"): each cell draws uniformly from its valid choices.

    Before a stage's first layer a cell may be basic or identity, after it also sharing; the last cell of a stage that
    is still empty is basic.
    """

    def __init__(self, stages: int, cells: int) -> None:
        self.stages, self.cells = stages, cells

    def draw(self, number: int, rng: np.random.Generator) -> list[CellPath]:
        choices = np.array([BASIC, IDENTITY, SHARING])
        letters = np.empty((number, self.stages, self.cells), dtype="<U1")
        started = np.zeros((number, self.stages), dtype=bool)
        for cell in range(self.cells):
            drawn = np.where(started, rng.integers(3, size=started.shape), rng.integers(2, size=started.shape))
            if cell == self.cells - 1:
                drawn[~started] = 0
            letters[:, :, cell] = choices[drawn]
            started |= drawn == 0
        return [CellPath(tuple("".join(stage) for stage in path)) for path in letters.tolist()]
