"""Routing a batch through the supernet: which images meet in which layer, known before a step begins.

Made on the CPU with numpy, ahead of time, and sent to the device in one copy; so nothing in a step asks the device for
a value. **Codes** are paths as numbers: int8 (..., stages, cells), 0 basic, 1 sharing, 2 identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psvit.arch import BASIC, IDENTITY, SHARING, CellPath
from psvit.supernet.sampling import BASIC_CODE, SHARING_CODE, Codes

Numbers = npt.NDArray[np.int64]
LETTERS = BASIC + SHARING + IDENTITY


def to_codes(paths: Iterable[CellPath]) -> Codes:
    """Paths as codes (n, stages, cells)."""
    return np.array([[[LETTERS.index(c) for c in word] for word in path.stages] for path in paths], np.int8)


def to_paths(codes: Codes) -> list[CellPath]:
    """Codes (n, stages, cells) as paths.

    Raises:
        ValueError: a path that is not valid.
    """
    letters = np.array(list(LETTERS))[codes]
    return [CellPath(tuple("".join(word) for word in path)) for path in letters.tolist()]


@dataclass(frozen=True)
class CellRouting:
    """What happens at a cell. Its rows stand in this order: those at the basic layer, at the sharing one, at neither.

    Attributes:
        basic, sharing: how many images each layer takes.
        kept: how many of the basic layer's images, its first ones, have their maps shared later.
        maps: where the sharing layer's maps come from, in the order of its images: an earlier cell, and the rows among
            that cell's kept maps.
        onward: (rows,) where each stands at the next cell; None if the order stays.
    """

    basic: int
    sharing: int
    kept: int
    maps: tuple[tuple[int, Tensor], ...]
    onward: Tensor | None


@dataclass(frozen=True)
class Routing:
    """The ways of a batch.

    Attributes:
        rows: paths; a multiple of the batch's images.
        input_rows: (rows,) image of each row, in the order of the first cell; None if each is its own.
        stages: the cells of each stage.
        output_rows: (rows,) where the row of each path stands behind the last cell; None if where it began.
    """

    rows: int
    input_rows: Tensor | None
    stages: tuple[tuple[CellRouting, ...], ...]
    output_rows: Tensor | None

    @classmethod
    def of(cls, codes: Codes, num_images: int) -> Routing:
        """The routing for paths (rows, stages, cells), row r of which is of image r % ``num_images``."""
        assert len(codes) % num_images == 0, f"{len(codes)} paths for {num_images} images"
        stages = [_Stage.of(codes[:, stage]) for stage in range(codes.shape[1])]
        orders = _orders(stages)
        places = [np.argsort(order) for order in orders]
        onward = [there[order] for order, there in zip(orders, places[1:], strict=False)]
        cells = [
            CellRouting(
                basic=int((stage.code[:, cell] == BASIC_CODE).sum()),
                sharing=int((stage.code[:, cell] == SHARING_CODE).sum()),
                kept=int(stage.kept[:, cell].sum()),
                maps=_maps(stage, cell, orders[first : first + codes.shape[2]], places[first : first + codes.shape[2]]),
                onward=_unless_still(onward[first + cell]) if first + cell < len(onward) else None,
            )
            for first, stage in zip(range(0, len(orders), codes.shape[2]), stages, strict=True)
            for cell in range(codes.shape[2])
        ]
        return cls(
            len(codes),
            None if len(codes) == num_images and _still(orders[0]) else torch.from_numpy(orders[0] % num_images),
            tuple(tuple(cells[first : first + codes.shape[2]]) for first in range(0, len(cells), codes.shape[2])),
            _unless_still(places[-1]),
        )

    @classmethod
    def of_paths(cls, paths: Sequence[CellPath]) -> Routing:
        """The routing for one path an image.

        Raises:
            ValueError: paths of different numbers of stages or cells.
        """
        if len({tuple(map(len, path.stages)) for path in paths}) != 1:
            raise ValueError("paths of one routing must have the same numbers of stages and cells")
        return cls.of(to_codes(paths), len(paths))

    def to(self, device: torch.device) -> Routing:
        """The same routing with its tensors on a device, sent there in one copy that the host does not wait for."""
        tensors = list(self._tensors())
        if not tensors:
            return self
        packed = torch.cat(tensors)
        if device.type == "cuda":
            packed = packed.pin_memory()
        ends = [*accumulate(map(len, tensors))]
        parts = iter(packed.to(device, non_blocking=True).tensor_split(ends[:-1]))

        def sent(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else next(parts)

        return Routing(
            self.rows,
            sent(self.input_rows),
            tuple(
                tuple(
                    replace(
                        cell,
                        maps=tuple((origin, next(parts)) for origin, _ in cell.maps),
                        onward=sent(cell.onward),
                    )
                    for cell in stage
                )
                for stage in self.stages
            ),
            sent(self.output_rows),
        )

    def _tensors(self) -> Iterable[Tensor]:
        """All tensors, in the order of :meth:`to`."""
        yield from () if self.input_rows is None else (self.input_rows,)
        for stage in self.stages:
            for cell in stage:
                yield from (rows for _, rows in cell.maps)
                yield from () if cell.onward is None else (cell.onward,)
        yield from () if self.output_rows is None else (self.output_rows,)


@dataclass(frozen=True)
class _Stage:
    """A stage's codes (rows, cells), whether a cell's map is shared later, and whose map a sharing layer takes."""

    code: Codes
    kept: npt.NDArray[np.bool_]
    origin: Numbers

    @classmethod
    def of(cls, code: Codes) -> _Stage:
        kept, origin = np.zeros(code.shape, bool), np.full(code.shape, -1)
        for cell in range(1, code.shape[1]):
            before = np.where(code[:, cell - 1] == BASIC_CODE, cell - 1, origin[:, cell - 1])
            origin[:, cell] = before
            sharers = np.flatnonzero(code[:, cell] == SHARING_CODE)
            kept[sharers, before[sharers]] = True
        return cls(code, kept, origin)


def _orders(stages: Sequence[_Stage]) -> list[Numbers]:
    """For each cell of each stage: the rows as they stand there, as near as can be to how they stood before.

    Those of the basic layer come first, and of these the ones whose maps are kept; those of the sharing layer stand by
    the cell whose map they take.
    """
    orders = []
    order = np.arange(len(stages[0].code))
    for stage in stages:
        for cell, code in enumerate(stage.code.T):
            within = np.where(
                code == BASIC_CODE, ~stage.kept[:, cell], np.where(code == SHARING_CODE, stage.origin[:, cell], 0)
            )
            order = order[np.lexsort((within[order], code[order]))]
            orders.append(order)
    return orders


def _maps(
    stage: _Stage, cell: int, orders: Sequence[Numbers], places: Sequence[Numbers]
) -> tuple[tuple[int, Tensor], ...]:
    """Where the maps of a cell's sharing layer come from; ``orders`` and ``places`` are of the stage's cells."""
    sharers = orders[cell][stage.code[orders[cell], cell] == SHARING_CODE]
    origins = stage.origin[sharers, cell]
    return tuple((int(o), torch.from_numpy(places[o][sharers[origins == o]])) for o in np.unique(origins))


def _still(numbers: Numbers) -> bool:
    return bool((numbers == np.arange(len(numbers))).all())


def _unless_still(numbers: Numbers) -> Tensor | None:
    return None if _still(numbers) else torch.from_numpy(numbers)
