"""Path samplers: which paths a training step takes through the supernet. No torch.

A sampler draws **codes** (supernet/routing.py): int8 (copies, images, stages, cells), 0 basic, 1 sharing, 2 identity.
All but the sandwich rule draw one path per image, and each image's path alone follows the sampler's distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
BASIC_CODE, SHARING_CODE, IDENTITY_CODE = range(3)


class PathSampler(Protocol):
    """Draws paths; a pure function of the generator.

    Attributes:
        copies: paths that each image takes in a step. Where they are several, the first is the largest network, which
            learns from labels, and the others learn from it.
    """

    copies: int

    def draw(self, images: int, rng: np.random.Generator) -> Codes:
        """Valid paths (copies, images, stages, cells)."""
        ...


class UniformCells:
    """Uniform path sampling (paper, section "AutoML"): each cell draws uniformly from its valid choices.

    Before a stage's first layer a cell may be basic or identity, after it also sharing; the last cell of a stage that
    is still empty is basic.
    """

    copies = 1

    def __init__(self, stages: int, cells: int) -> None:
        self.stages, self.cells = stages, cells

    def draw(self, images: int, rng: np.random.Generator) -> Codes:
        codes = np.empty((1, images, self.stages, self.cells), np.int8)
        started = np.zeros(codes.shape[:-1], bool)
        for cell in range(self.cells):
            before, after = self._points(~started, rng), self._points(started, rng)
            first = np.where(before < self._first_layer(self.cells - cell), BASIC_CODE, IDENTITY_CODE)
            codes[..., cell] = np.where(started, np.floor(3 * after), first)
            started |= codes[..., cell] == BASIC_CODE
        return codes

    def _first_layer(self, left: int) -> float:
        """The probability that the first of the ``left`` last cells of a still empty stage is basic."""
        return 1.0 if left == 1 else 1 / 2

    def _points(self, among: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """A number in [0, 1) for each image and stage; those of ``among`` choose by it."""
        return rng.random(among.shape)


class UniformPaths(UniformCells):
    """Every valid path of a stage is as likely as any other: 364 of them with six cells.

    With n cells left, a stage that has begun goes on in 3^n ways, and an empty one in N(n) = 3^(n-1) + N(n-1) =
    (3^n - 1) / 2, of which 3^(n-1) begin with a basic cell. So every cell holds a layer in about two thirds of the
    paths, where :class:`UniformCells` gives the first cell half of them.
    """

    def _first_layer(self, left: int) -> float:
        return 2 * 3 ** (left - 1) / (3**left - 1)


class FairCells(UniformCells):
    """As :class:`UniformCells` for each image, but each choice of each cell is taken equally often, to one image.

    The images of a cell that have the same valid choices stand in an order of chance at equal distances on [0, 1), and
    the grid has an offset of chance (systematic sampling). So the layers' groups hardly vary in size, and each layer
    learns from as many images in every step (strict fairness: arXiv 1907.01845, there over successive batches).
    """

    def _points(self, among: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        order = np.where(among, rng.random(among.shape), 2.0).argsort(axis=1).argsort(axis=1)  # of each among its like
        return (order + rng.random((1, 1, among.shape[2]))) / np.maximum(among.sum(axis=1, keepdims=True), 1) % 1


class CanonicalPaths:
    """Each image draws an architecture, uniform over all of the space, and takes its canonical path.

    The 250,047 architectures of 3 x 6 cells then have one path each to learn, not 48 million paths together; but in
    any one stage half of them have six layers.
    """

    copies = 1

    def __init__(self, stages: int, cells: int) -> None:
        self.stages, self.cells = stages, cells

    def draw(self, images: int, rng: np.random.Generator) -> Codes:
        # 1..2^cells-1 in binary: the leading one is the first layer, the digits behind it say which share
        words = rng.integers(1, 2**self.cells, size=(1, images, self.stages, 1))
        depths = (words >> np.arange(self.cells) > 0).sum(axis=-1, keepdims=True)
        return self._codes(words, depths)

    def _codes(self, words: npt.NDArray[np.int64], depths: npt.NDArray[np.int64]) -> Codes:
        """Layers by the binary digits of a word: the first is basic, then 1 shares; identity from ``depths`` on."""
        cell = np.arange(self.cells)
        shares = (words >> np.maximum(depths - 1 - cell, 0)) & 1
        codes = np.where(cell == 0, BASIC_CODE, np.where(shares == 1, SHARING_CODE, BASIC_CODE))
        return np.where(cell < depths, codes, IDENTITY_CODE).astype(np.int8)


class CanonicalDepths(CanonicalPaths):
    """Canonical paths of uniform depth in each stage; a fair coin says whether a layer behind the first shares."""

    def draw(self, images: int, rng: np.random.Generator) -> Codes:
        shape = (1, images, self.stages, 1)
        return self._codes(rng.integers(2**self.cells, size=shape), rng.integers(1, self.cells + 1, size=shape))


class Sandwich:
    """The sandwich rule (arXiv 1903.05134): each image takes the largest path, the smallest, and some random ones.

    The largest learns from labels, the others from its answers (in-place distillation). A step costs as many passes.

    Args:
        random: draws the random ones.
        number: how many of them an image takes.
    """

    def __init__(self, random: UniformCells, number: int = 2) -> None:
        self._random, self._number = random, number
        self.copies = 2 + number

    def draw(self, images: int, rng: np.random.Generator) -> Codes:
        drawn = [self._random.draw(images, rng) for _ in range(self._number)]
        largest = np.full_like(drawn[0], BASIC_CODE)
        smallest = np.full_like(drawn[0], IDENTITY_CODE)
        smallest[..., 0] = BASIC_CODE
        return np.concatenate([largest, smallest, *drawn])


class OncePerBatch:
    """One draw of another sampler for all images of a step (SPOS, arXiv 1904.00420)."""

    def __init__(self, sampler: PathSampler) -> None:
        self._sampler, self.copies = sampler, sampler.copies

    def draw(self, images: int, rng: np.random.Generator) -> Codes:
        return self._sampler.draw(1, rng).repeat(images, axis=1)


# Name -> maker for (stages, cells). The settings' check, the help and the conformance tests read the names here.
SAMPLINGS: dict[str, Callable[[int, int], PathSampler]] = {
    "uniform": UniformCells,
    "uniform-paths": UniformPaths,
    "fair": FairCells,
    "canonical": CanonicalPaths,
    "canonical-depth": CanonicalDepths,
    "sandwich": lambda stages, cells: Sandwich(UniformCells(stages, cells)),
}


def make_sampler(name: str, paths: str, stages: int, cells: int) -> PathSampler:
    """The sampler that the settings ``sampling`` and ``paths`` name.

    Raises:
        ValueError: an unknown name, or fair shares of a single path.
    """
    if name not in SAMPLINGS:
        raise ValueError(f"sampling is {name!r}; use one of {', '.join(SAMPLINGS)}")
    sampler = SAMPLINGS[name](stages, cells)
    if paths == "image":
        return sampler
    if name == "fair":
        raise ValueError("sampling=fair spreads the images of a step over the layers, so it needs paths=image")
    return OncePerBatch(sampler)
