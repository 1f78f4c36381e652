"""How a network calls its layers: plainly, compiled, or keeping little for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from psvit.layers import BasicLayer, SharingLayer


def _basic(layer: BasicLayer, x: Tensor) -> Tensor:
    return layer(x)[0]


def _kept(layer: BasicLayer, x: Tensor) -> Any:
    return layer(x, None)


def _sharing(layer: BasicLayer | SharingLayer, x: Tensor, given: Tensor) -> Tensor:
    return layer.share(x, given)


class LayerRunner:
    """The three ways in which a layer is called, for each stage; weights are an argument of compiled code.

    Not a module: a network's state does not know of it.

    Attributes:
        checkpoint: whether, in training, a layer keeps only its inputs and is run again in the backward pass.
    """

    def __init__(self, stages: int) -> None:
        self.checkpoint = False
        self._compiled = False
        self._ways: list[dict[str, Callable[..., Any]]] = [
            {"basic": _basic, "kept": _kept, "sharing": _sharing} for _ in range(stages)
        ]

    def basic(self, stage: int, layer: Any, x: Tensor) -> Tensor:
        """A basic layer whose maps nobody shares: (B, N, D) -> (B, N, D)."""
        return self._call("basic", stage, layer, x)

    def kept(self, stage: int, layer: Any, x: Tensor, kept: int | None = None) -> tuple[Tensor, Tensor]:
        """A basic layer: (B, N, D), and the maps of its first ``kept`` images; None is all of them."""
        # in training the factors of all images come for free
        if kept is not None and kept < x.shape[0] and not layer.training:
            return layer(x, kept)
        return self._call("kept", stage, layer, x)

    def sharing(self, stage: int, layer: Any, x: Tensor, given: Tensor | None) -> Tensor:
        """A layer that takes given maps, one for each image: (B, N, D) -> (B, N, D)."""
        return self._call("sharing", stage, layer, x, given)

    def _call(self, way: str, stage: int, layer: Any, x: Tensor, *others: Any) -> Any:
        if self._compiled:  # the images at a cell are other in number each step; all else stays
            for tensor in (x, *others):
                if isinstance(tensor, Tensor):
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        if self.checkpoint and layer.training:
            return checkpoint(self._ways[stage][way], layer, x, *others, use_reentrant=False)
        return self._ways[stage][way](layer, x, *others)

    def compile(self, backend: str = "inductor") -> None:
        """Compile each way once a stage, by a backend of torch.compile."""
        if not self._compiled:
            self._compiled = True
            self._ways = [
                {name: torch.compile(_copy(way, f"{name}_{stage}"), backend=backend) for name, way in ways.items()}
                for stage, ways in enumerate(self._ways)
            ]


def _copy(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function with code of its own: torch.compile counts recompilations, and learns which sizes vary, by code."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__.replace(co_name=name), function.__globals__, name)
