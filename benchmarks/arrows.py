"""Pictures whose class takes several steps to find: an instrument for rankings, in which depth must matter.

A picture is a grid of cells. Each holds an arrow to a neighbour, or a coloured end; one cell is marked. The class is
the colour of the end that is reached from the marked cell along the arrows. Every length of way is as frequent, and the
colours of all other ends are drawn alike, so that nothing short of following the arrows tells the class.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from psvit.run.random import numpy_rng

CELL = 4
"""Side of a cell in pixels."""

COLOURS = ((230, 40, 40), (40, 200, 40), (60, 90, 255), (240, 220, 40))
_STEPS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # up, right, down, left
_ENDS = 0.2  # share of cells
_TOGETHER = 20_000


def draw_arrows(number: int, seed: int, grid: int = 5, longest: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, their classes and the lengths of their ways.

    Args:
        grid: cells a side.
        longest: the most arrows on the way from the marked cell to its end; the least is 1.

    Returns:
        uint8 (number, 3, 4 * grid, 4 * grid), int64 (number,) and int64 (number,).
    """
    rng = numpy_rng(seed, "arrows", grid, longest)
    wanted = np.arange(number) % longest + 1
    kept: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {length: [] for length in range(1, longest + 1)}
    missing = {length: int((wanted == length).sum()) for length in kept}
    while any(missing.values()):
        cells, colours, starts, lengths = _boards(rng, _TOGETHER, grid, longest)
        for length in kept:
            chosen = np.flatnonzero(lengths == length)[: missing[length]]
            kept[length].append((cells[chosen], colours[chosen], starts[chosen]))
            missing[length] -= len(chosen)
    cells, colours, starts = (
        np.concatenate([part[which] for length in kept for part in kept[length]]) for which in range(3)
    )
    order = rng.permutation(number)
    cells, colours, starts = cells[order], colours[order], starts[order]
    lengths = np.sort(wanted)[order]
    ends = _follow(cells, starts, grid, longest)[0]
    classes = colours.reshape(number, -1)[np.arange(number), ends]
    return _paint(cells, colours, starts, grid), torch.from_numpy(classes), torch.from_numpy(lengths)


def _boards(
    rng: np.random.Generator, number: int, grid: int, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells (number, grid, grid) with 0 to 3 for an arrow and 4 for an end, colours, marked cells, and ways' lengths.

    A length of 0 is a way that does not end in time, or begins on an end.
    """
    row, column = np.mgrid[:grid, :grid]
    inside = [
        (row + dy >= 0) & (row + dy < grid) & (column + dx >= 0) & (column + dx < grid) for dy, dx in _STEPS.tolist()
    ]
    chance = np.where(np.stack(inside), rng.random((number, 4, grid, grid)), -1.0)  # an arrow points to a neighbour
    cells = np.where(rng.random((number, grid, grid)) < _ENDS, 4, chance.argmax(axis=1))
    colours = rng.integers(len(COLOURS), size=cells.shape)
    starts = rng.integers(grid * grid, size=number)
    return cells, colours, starts, _follow(cells, starts, grid, longest)[1]


def _follow(cells: np.ndarray, starts: np.ndarray, grid: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each way stands after ``longest`` arrows, and how many it took to an end; 0 if it reached none."""
    flat, every = cells.reshape(len(cells), -1), np.arange(len(cells))
    steps = np.append(_STEPS @ [grid, 1], 0)
    at, lengths = starts, np.zeros(len(cells), np.int64)
    for length in range(1, longest + 1):
        before, at = at, at + steps[flat[every, at]]
        lengths = np.where((flat[every, before] < 4) & (flat[every, at] == 4), length, lengths)
    return at, lengths


def _paint(cells: np.ndarray, colours: np.ndarray, starts: np.ndarray, grid: int) -> Tensor:
    """Grey cells; an arrow is a bright triangle, an end a coloured square, and the marked cell has a white ground."""
    tip = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)  # points up
    glyphs = np.stack([*(np.rot90(tip, -turn) for turn in range(4)), np.ones((CELL, CELL), bool)])
    ground = np.full((len(cells), grid * grid), 60, np.uint8)
    ground[np.arange(len(cells)), starts] = 255
    ink = np.concatenate([np.array(COLOURS, np.uint8), [[0, 160, 200]]]).astype(np.uint8)
    kind = np.where(cells == 4, colours, len(COLOURS))
    glyph = glyphs[cells][..., None]  # (n, grid, grid, 4, 4, 1)
    painted = np.where(glyph, ink[kind][:, :, :, None, None], ground.reshape(-1, grid, grid, 1, 1, 1))
    return torch.from_numpy(painted.transpose(0, 5, 1, 3, 2, 4).reshape(len(cells), 3, grid * CELL, grid * CELL).copy())
