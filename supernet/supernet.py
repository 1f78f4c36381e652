"""The supernet: an architecture is a path through its cells, each a basic layer, a sharing layer or neither."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from psvit.arch import BASIC, IDENTITY, SHARING, CellPath, NetworkSpec
from psvit.layers import BasicLayer
from psvit.model import Layer, NetworkBase, drop_path_rates, make_layer
from psvit.supernet.config import WEIGHTS
from psvit.supernet.routing import CellRouting, Routing


class Supernet(NetworkBase):
    """Stages of cells; a path chooses a layer, or none, in each.

    The first cell of a stage has no sharing layer: there is no map before it that it could share.

    Args:
        spec: the dimensions around the cells.
        cells: cells a stage.
        drop_path: drop-path rate of the last cell; it rises linearly from 0 over the cells.
        weights: ``separate`` gives the two layers of a cell weights of their own (the paper's figure); ``entangled``
            lets the sharing layer use the basic layer's norms, V, projection and MLP.
    """

    def __init__(self, spec: NetworkSpec, cells: int = 6, drop_path: float = 0.0, weights: str = "separate") -> None:
        assert weights in WEIGHTS, weights
        super().__init__(spec)
        self.cells, self.weights = cells, weights
        rates = drop_path_rates(spec.stages * cells, drop_path)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        letter: make_layer(letter, spec, stage, rates[stage * cells + cell])
                        for letter in ((BASIC, SHARING) if cell and weights == "separate" else (BASIC,))
                    }
                )
                for cell in range(cells)
            )
            for stage in range(spec.stages)
        )
        self.init_weights()

    def layer(self, stage: int, cell: int, letter: str) -> Layer:
        """The layer whose weights a choice uses; stages and cells count from 0."""
        cells = cast("nn.ModuleList", self.stages[stage])
        choices = cast("nn.ModuleDict", cells[cell])
        return cast("Layer", choices[BASIC if self.weights == "entangled" else letter])

    def layer_weights(self, stage: int, cell: int, letter: str) -> dict[str, Tensor]:
        """The state of the layer that a choice is when it stands alone; tensors are the supernet's own."""
        layer = self.layer(stage, cell, letter)
        if letter == SHARING and isinstance(layer, BasicLayer):
            return layer.sharing_weights()
        return layer.state_dict()

    def forward(self, images: Tensor, paths: CellPath | Routing) -> Tensor:
        """Images (B, channels, height, width) -> logits, (B, classes) along one path, (rows, classes) by a routing.

        Raises:
            ValueError: paths of another number of stages or cells.
        """
        shape = [*map(len, paths.stages)]
        if shape != [self.cells] * self.spec.stages:
            what = paths if isinstance(paths, CellPath) else f"a path of stages of {shape} cells"
            raise ValueError(f"{what} is not a path of a supernet of {self.spec.stages} stages x {self.cells} cells")
        x, grid = self.embed(images)
        if isinstance(paths, Routing) and paths.input_rows is not None:
            x = x.index_select(0, paths.input_rows)
        for stage, choices in enumerate(paths.stages):
            x, grid = self.pool_into(stage, x, grid)
            if isinstance(choices, str):
                chosen = [(letter, cell) for cell, letter in enumerate(choices) if letter != IDENTITY]
                x = self.run_stage(stage, [(letter, self.layer(stage, cell, letter)) for letter, cell in chosen], x)
            else:
                x = self._run_routing(stage, cast("Sequence[CellRouting]", choices), x)
        logits = self.forward_head(self.norm(x))
        if isinstance(paths, Routing) and paths.output_rows is not None:
            logits = logits.index_select(0, paths.output_rows)
        return logits

    def _run_routing(self, stage: int, routing: Sequence[CellRouting], x: Tensor) -> Tensor:
        """A stage along a path of its own for each row: at each cell, those that chose a layer go through it together.

        Identity costs nothing, and between two cells each row is copied once.
        """
        maps: dict[int, Tensor] = {}
        for number, cell in enumerate(routing):
            basic, sharing, identity = _parts(x, cell)
            if cell.sharing:
                given = _cat([maps[origin].index_select(0, rows) for origin, rows in cell.maps])
                sharing = self.calls.sharing(stage, self.layer(stage, number, SHARING), sharing, given)
            if cell.kept:
                layer = self.layer(stage, number, BASIC)
                basic, maps[number] = self.calls.kept(stage, layer, basic, cell.kept)
            elif cell.basic:
                basic = self.calls.basic(stage, self.layer(stage, number, BASIC), basic)
            parts = [part for part in (basic, sharing, identity) if len(part)]
            x = _cat(parts) if cell.onward is None else cast("Tensor", _Regroup.apply(cell.onward, *parts))
        return x


class _Regroup(torch.autograd.Function):
    """Rows of several parts, one behind the other, to new places: what cat and index_select do, with half the copies.

    Each place is taken once; so the gradient is looked up instead of added up.
    """

    @staticmethod
    def forward(ctx: Any, places: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.ends = [*accumulate(map(len, parts))]
        out = parts[0].new_empty((len(places), *parts[0].shape[1:]))
        for part, where in zip(parts, places.tensor_split(ctx.ends[:-1]), strict=True):
            out.index_copy_(0, where, part)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (places,), (gradient,) = ctx.saved_tensors, gradients
        return None, *(gradient.index_select(0, where) for where in places.tensor_split(ctx.ends[:-1]))


def _parts(x: Tensor, cell: CellRouting) -> tuple[Tensor, ...]:
    """The rows at the basic layer, at the sharing layer, and at neither."""
    return x.tensor_split([cell.basic, cell.basic + cell.sharing])


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
