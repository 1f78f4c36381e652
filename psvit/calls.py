"""How a network calls its layers: plainly, compiled, or keeping little for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from psvit.layers import BasicLayer, SharingLayer

# All but cuDNN's, which torch prefers on Hopper and Blackwell: it takes tens to hundreds of milliseconds to make a plan
# for each new number of images, and in a supernet's step or a search nearly every layer has a new one.
_FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _basic(layer: BasicLayer, x: Tensor) -> Tensor:
    return layer(x)[0]


def _kept(layer: BasicLayer, x: Tensor) -> Any:
    return layer(x, None)


def _some_kept(layer: BasicLayer, x: Tensor, kept: int) -> Any:
    return layer(x, kept)


def _sharing(layer: BasicLayer | SharingLayer, x: Tensor, given: Tensor) -> Tensor:
    return layer.share(x, given)


def _run(way: Callable[..., Any], layer: Any, x: Tensor, *others: Any) -> Any:
    """Call a layer; an activation checkpoint repeats this whole, or another attention would meet what was saved."""
    if not x.is_cuda:
        return way(layer, x, *others)
    with sdpa_kernel(_FUSED):
        return way(layer, x, *others)


_WAYS: dict[str, Callable[..., Any]] = {"basic": _basic, "kept": _kept, "sharing": _sharing}


class LayerRunner:
    """The three ways in which a layer is called, for each stage; weights are an argument of compiled code.

    Not a module: a network's state does not know of it.

    Attributes:
        checkpoint: whether, in training, a layer keeps only its inputs and is run again in the backward pass.
    """

    def __init__(self, stages: int) -> None:
        self.checkpoint = False
        self._stages = stages
        self._compiled: list[dict[str, Callable[..., Any]]] = []

    def basic(self, stage: int, layer: Any, x: Tensor) -> Tensor:
        """A basic layer whose maps nobody shares: (B, N, D) -> (B, N, D)."""
        return self._call("basic", stage, layer, x)

    def kept(self, stage: int, layer: Any, x: Tensor, kept: int | None = None) -> tuple[Tensor, Tensor]:
        """A basic layer: (B, N, D), and the maps of its first ``kept`` images; None is all of them."""
        # in training the factors of all images come for free
        if kept is not None and kept < x.shape[0] and not layer.training:
            return _run(_some_kept, layer, x, kept)
        return self._call("kept", stage, layer, x)

    def sharing(self, stage: int, layer: Any, x: Tensor, given: Tensor | None) -> Tensor:
        """A layer that takes given maps, one for each image: (B, N, D) -> (B, N, D)."""
        return self._call("sharing", stage, layer, x, given)

    def _call(self, way: str, stage: int, layer: Any, x: Tensor, *others: Any) -> Any:
        function = _WAYS[way]
        if self._compiled and len(x) > 1:  # dynamo never takes a size of 1 for one that varies
            function = self._compiled[stage][way]
            x = x.contiguous()  # token pooling leaves another layout, which would be compiled once more
            for tensor in (x, *others):  # the images at a cell are other in number each step; all else stays
                if isinstance(tensor, Tensor):
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        run = partial(_run, function, layer)
        if self.checkpoint and layer.training:
            return checkpoint(run, x, *others, use_reentrant=False)
        return run(x, *others)

    def compile(self, backend: str = "inductor") -> None:
        """Compile each way once a stage, by a backend of torch.compile."""
        if not self._compiled:
            self._compiled = [
                {name: torch.compile(_copy(way, f"{name}_{stage}"), backend=backend) for name, way in _WAYS.items()}
                for stage in range(self._stages)
            ]


def _copy(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function with code of its own: torch.compile counts recompilations, and learns which sizes vary, by code."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__.replace(co_name=name), function.__globals__, name)
