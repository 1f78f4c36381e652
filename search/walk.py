"""One walk of a batch of images through a prefix tree: each node is computed once, those of one layer together.

Shapes: b images, N tokens, D width, H heads of the stage at hand.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from psvit.arch import SHARING
from psvit.engine.device import autocast
from psvit.layers import Grid
from psvit.search.tree import Layer, Node
from psvit.supernet.supernet import Supernet

# Values of the tokens that a layer works on in one call: few enough for a CPU's caches, enough to fill a GPU.
_VALUES_A_CALL = {"cpu": 2**19, "cuda": 2**26}
_MOST_IMAGES = 256  # a batch, unless more are asked for

T = TypeVar("T")


class _State(NamedTuple):
    """The images at a node: tokens (b, N, D), and maps (b, H, N, N) if a layer behind the node shares them."""

    node: Node
    tokens: Tensor
    maps: Tensor | None


@dataclass(frozen=True)
class Plan:
    """How much is done at a time: so many images, and so many nodes of each stage."""

    num_images: int
    nodes: tuple[int, ...]


class Walker:
    """Takes batches of images through prefix trees.

    Args:
        supernet: in eval mode, on ``device``.
        memory: bytes that a walk may use; less is done at a time where it is scarce.
        precision: as of :func:`psvit.engine.device.autocast`.
        compiled: whether the layers are compiled by ``torch.compile``, each kind once a stage.
    """

    def __init__(
        self, supernet: Supernet, device: torch.device, memory: int, precision: str = "auto", compiled: bool = False
    ) -> None:
        self._supernet, self._device, self._precision, self._memory = supernet, device, precision, memory
        spec = supernet.spec
        self._values = [tokens * width for tokens, width in zip(spec.tokens, spec.widths, strict=True)]
        self._map_values = [heads * tokens**2 for tokens, heads in zip(spec.tokens, spec.heads, strict=True)]
        if compiled:
            supernet.compile_layers()

    @property
    def batch_size(self) -> int:
        """Images that a walk is efficient with: the largest stage's tokens fill one call."""
        return max(1, min(_MOST_IMAGES, _VALUES_A_CALL[self._device.type] // max(self._values)))

    @torch.no_grad()  # inference mode would have autocast convert all weights anew in every call
    def __call__(self, tree: Node, paths: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each image is classified rightly along each path, and its cross entropy.

        Args:
            tree: of ``paths`` paths.
            images: (b, channels, height, width).
            labels: (b,).

        Returns:
            (paths, b), bool, and (paths, b), float32, on the CPU.

        Raises:
            ValueError: the memory does not hold one image.
        """
        done: list[tuple[Tensor, Tensor]] = []
        first = 0
        while first < len(images):
            plan = self.plan(len(images) - first, paths)
            part = slice(first, first + plan.num_images)
            try:
                done.append(self._walk(plan, tree, images[part], labels[part]))
                first += plan.num_images
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._shrink(plan, paths)
        correct, loss = (torch.cat(parts, dim=1) for parts in zip(*done, strict=True))
        return correct, loss

    # ------------------------------------------------------------------------------------------------ the walk

    def _walk(self, plan: Plan, tree: Node, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        order: list[int] = []
        correct, loss = [], []
        with autocast(self._device, self._precision):
            tokens, grid = self._supernet.embed(images)
            tokens = tokens.contiguous()  # one layout everywhere, so that compiled layers serve all nodes
            for ends, logits in self._descend(plan, 0, [_State(tree, tokens, None)], grid):
                logits = logits.float().reshape(len(ends), len(images), -1)
                targets = labels.expand(len(ends), -1)
                correct.append(logits.argmax(dim=2) == targets)
                loss.append(F.cross_entropy(logits.transpose(1, 2), targets, reduction="none"))
                order += ends
        rows = torch.tensor(order).argsort()  # the host waits for the device here, and nowhere before
        return torch.cat(correct).cpu()[rows], torch.cat(loss).cpu()[rows]

    def _descend(
        self, plan: Plan, stage: int, entering: list[_State], grid: Grid
    ) -> Iterator[tuple[list[int], Tensor]]:
        """The paths below nodes that enter a stage: numbers of some at a time, and their logits (numbers * b, classes).

        Depth first from stage to stage, so that only what is still needed is held.
        """
        last = stage + 1 == self._supernet.spec.stages
        for ending in _chunks(self._through(plan, stage, entering), plan.nodes[stage if last else stage + 1]):
            tokens = _cat([state.tokens for state in ending])
            if last:
                yield [state.node.path for state in ending], self._supernet.forward_head(self._supernet.norm(tokens))
            else:
                tokens, pooled = self._supernet.pool_into(stage + 1, tokens, grid)
                onward = [cast("Node", state.node.onward) for state in ending]
                parts = tokens.contiguous().chunk(len(ending))
                states = [_State(node, part, None) for node, part in zip(onward, parts, strict=True)]
                yield from self._descend(plan, stage + 1, states, pooled)

    def _through(self, plan: Plan, stage: int, level: list[_State]) -> Iterator[_State]:
        """The states in which a stage ends, level by level; on each, all nodes behind a layer are computed together."""
        while level:
            yield from (state for state in level if state.node.ends)
            calls: defaultdict[tuple[Layer, bool], list[tuple[Node, _State]]] = defaultdict(list)
            for state in level:
                for layer, child in state.node.children.items():
                    calls[layer, child.shares].append((child, state))
            level = [
                state
                for (layer, shares), members in calls.items()
                for chunk in _chunks(members, plan.nodes[stage])
                for state in self._apply(stage, layer, shares, chunk)
            ]

    def _apply(self, stage: int, layer: Layer, shares: bool, members: list[tuple[Node, _State]]) -> list[_State]:
        """The states behind a layer; maps are kept where a layer behind these nodes ``shares`` them."""
        nodes, before = zip(*members, strict=True)
        module, calls = self._supernet.layer(stage, *layer), self._supernet.calls
        tokens = _cat([state.tokens for state in before])
        maps: tuple[Tensor | None, ...] = (None,) * len(nodes)
        if layer.letter == SHARING:
            tokens = calls.sharing(stage, module, tokens, _cat([state.maps for state in before]))
            if shares:
                maps = tuple(state.maps for state in before)
        elif shares:
            tokens, kept = calls.kept(stage, module, tokens)
            maps = kept.chunk(len(nodes))
        else:
            tokens = calls.basic(stage, module, tokens)
        return [_State(*state) for state in zip(nodes, tokens.chunk(len(nodes)), maps, strict=True)]

    # ------------------------------------------------------------------------------------------------ memory

    def plan(self, num_images: int, paths: int) -> Plan:
        """How much of a walk of so many images through a tree of so many paths is done at a time.

        Few images leave room for many nodes: of what fits, the plan whose calls of the last stage's layers, where most
        of the work is, are largest by a factor of two, and of these the one with most images.
        """
        plans = [Plan(1, (1,) * len(self._values))]
        while num_images:
            nodes = [max(1, _VALUES_A_CALL[self._device.type] // (num_images * values)) for values in self._values]
            while self._bytes(num_images, nodes, paths) > self._memory and max(nodes) > 1:
                nodes = [max(1, number // 2) for number in nodes]
            if self._bytes(num_images, nodes, paths) <= self._memory:
                plans.append(Plan(num_images, tuple(nodes)))
            num_images //= 2
        return max(plans, key=lambda plan: (round(math.log2(plan.num_images * plan.nodes[-1])), plan.num_images))

    def _bytes(self, num_images: int, nodes: Iterable[int], paths: int) -> int:
        """Most bytes that a walk holds, counted in float32: what waits at the nodes, and what a call needs."""
        widest = min(2**self._supernet.cells, paths)  # two levels of the tree of one stage
        waiting, calls = 0, 0
        for stage, (number, values, maps) in enumerate(zip(nodes, self._values, self._map_values, strict=True)):
            waiting += (number if stage else 1) * widest * (values + maps)
            # of a call: q, k, v and the MLP's hidden layer twice; scores and maps
            calls = max(calls, number * (12 * values + 3 * maps))
        return 4 * num_images * (waiting + calls)

    def _shrink(self, plan: Plan, paths: int) -> None:
        """After running out of memory: take half of what was tried.

        Raises:
            ValueError: nothing can be halved.
        """
        if plan.num_images == 1 and max(plan.nodes) == 1:
            raise ValueError(
                f"{self._device} has too little memory for one image of this supernet; use another device="
            )
        self._memory = self._bytes(plan.num_images, plan.nodes, paths) // 2
        print(
            f"note: out of memory; continuing with half as much at a time ({self._memory >> 20} MiB)",
            file=sys.stderr,
        )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
