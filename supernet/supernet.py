"""The supernet: every cell has a basic and a sharing layer of its own, and an architecture is a path through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from psvit.arch import BASIC, IDENTITY, SHARING, CellPath, NetworkSpec
from psvit.model import Frame, Layer, drop_path_rates, make_layer, run_stage


class Supernet(Frame):
    """Stages of cells; a path chooses a layer, or none, in each.

    The first cell of a stage has no sharing layer: there is no map before it that it could share.

    Args:
        spec: the dimensions around the cells.
        cells: cells a stage.
        drop_path: drop-path rate of the last cell; it rises linearly from 0 over the cells.
    """

    def __init__(self, spec: NetworkSpec, cells: int = 6, drop_path: float = 0.0) -> None:
        super().__init__(spec)
        self.cells = cells
        rates = drop_path_rates(spec.stages * cells, drop_path)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        letter: make_layer(letter, spec, stage, rates[stage * cells + cell])
                        for letter in ((BASIC, SHARING) if cell else (BASIC,))
                    }
                )
                for cell in range(cells)
            )
            for stage in range(spec.stages)
        )
        self.init_weights()

    def layer(self, stage: int, cell: int, letter: str) -> Layer:
        """The layer that a choice stands for; stages and cells count from 0."""
        cells = cast("nn.ModuleList", self.stages[stage])
        return cast("Layer", cast("nn.ModuleDict", cells[cell])[letter])

    def forward(self, images: Tensor, paths: CellPath | Sequence[CellPath]) -> Tensor:
        """Images (B, channels, height, width) -> logits (B, classes), all along one path or each along its own.

        Raises:
            ValueError: not one path an image, or a path of another number of stages or cells.
        """
        self._check(paths if isinstance(paths, CellPath) else list(paths), len(images))
        x, grid = self.embed(images)
        for stage in range(self.spec.stages):
            x, grid = self.enter(stage, x, grid)
            if isinstance(paths, CellPath):
                choices = enumerate(paths.stages[stage])
                x = run_stage([self.layer(stage, cell, letter) for cell, letter in choices if letter != IDENTITY], x)
            else:
                x = self._run_stage_by_image(stage, x, [path.stages[stage] for path in paths])
        return self.forward_head(self.norm(x))

    def _run_stage_by_image(self, stage: int, x: Tensor, words: Sequence[str]) -> Tensor:
        """Image i along the choices ``words[i]``: at each cell, the images that chose a layer go through it together.

        Identity costs nothing. An attention map lives as rows of the basic layer's group, and only for the images
        whose next layer shares it.
        """
        source = [-1] * len(words)  # the cell whose map an image holds
        row = [-1] * len(words)  # its row among the maps of that cell
        maps: list[Tensor | None] = []
        for cell in range(self.cells):
            basic = [image for image, word in enumerate(words) if word[cell] == BASIC]
            basic.sort(key=lambda image: not _shares_next(words[image], cell))  # those that keep their map come first
            kept = sum(_shares_next(words[image], cell) for image in basic)
            for position, image in enumerate(basic[:kept]):
                source[image], row[image] = cell, position
            maps.append(None)
            before = x
            if basic:
                chosen = torch.tensor(basic, device=x.device)
                out, maps[cell] = self.layer(stage, cell, BASIC)(before[chosen], kept=kept)
                x = x.index_copy(0, chosen, out)
            sharing = sorted((source[image], image) for image, word in enumerate(words) if word[cell] == SHARING)
            if sharing:
                chosen = torch.tensor([image for _, image in sharing], device=x.device)
                groups = [(origin, [row[image] for of, image in sharing if of == origin]) for origin in range(cell)]
                shared = torch.cat(
                    [maps[origin][torch.tensor(rows, device=x.device)] for origin, rows in groups if rows]  # type: ignore[index]
                )
                x = x.index_copy(0, chosen, self.layer(stage, cell, SHARING)(before[chosen], shared))
        return x

    def _check(self, paths: CellPath | list[CellPath], images: int) -> None:
        if isinstance(paths, list) and len(paths) != images:
            raise ValueError(f"{images} images and {len(paths)} paths: give one path, or one for each image")
        for path in {paths} if isinstance(paths, CellPath) else set(paths):
            if len(path.stages) != self.spec.stages or any(len(word) != self.cells for word in path.stages):
                raise ValueError(f"{path} is no path of a supernet of {self.spec.stages} stages x {self.cells} cells")


def _shares_next(word: str, cell: int) -> bool:
    """Whether the layer that follows a cell, identities left out, shares its map."""
    return word[cell + 1 :].replace(IDENTITY, "").startswith(SHARING)
