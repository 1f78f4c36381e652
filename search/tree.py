"""The prefix tree of paths: what begins alike is one node, so that it is computed once. No torch.

Scoring every architecture of Tiny/16 on its own takes 3.6e14 multiply-adds per image, along the tree 2.1e13.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from psvit.arch import IDENTITY, SHARING, CellPath, NetworkSpec
from psvit.cost import head_cost, layer_cost, pool_cost, stem_cost


class Layer(NamedTuple):
    """A layer of a stage of the supernet: its cell (from 0) and its letter."""

    cell: int
    letter: str


class Node:
    """All paths that are alike up to here.

    Attributes:
        children: the layers of this stage that some of them take next, and the nodes behind.
        onward: the node that enters the next stage, if the stage ends here for some of them.
        path: the number of the path that ends here, in the last stage; -1 for none.
    """

    __slots__ = ("children", "onward", "path")

    def __init__(self) -> None:
        self.children: dict[Layer, Node] = {}
        self.onward: Node | None = None
        self.path = -1

    @property
    def ends(self) -> bool:
        """Whether some path's stage ends here."""
        return self.onward is not None or self.path >= 0

    @property
    def shares(self) -> bool:
        """Whether a layer behind this node shares the attention map that is valid here."""
        return any(layer.letter == SHARING for layer in self.children)


def prefix_tree(paths: Iterable[CellPath]) -> Node:
    """The tree of paths that differ from each other, numbered in their order; its root enters the first stage."""
    root = Node()
    for number, path in enumerate(paths):
        node = root
        for stage, word in enumerate(path.stages):
            if stage:
                node.onward = node.onward or Node()
                node = node.onward
            for cell, letter in enumerate(word):
                if letter != IDENTITY:
                    node = node.children.setdefault(Layer(cell, letter), Node())
        assert node.path < 0, f"{path} is given twice"
        node.path = number
    return root


def tree_flops(root: Node, spec: NetworkSpec) -> int:
    """Multiply-adds per image of a walk through the tree, each node computed once."""
    layers = [{letter: layer_cost(spec, stage, letter).flops for letter in "BS"} for stage in range(spec.stages)]
    total, below = stem_cost(spec).flops, [(0, root)]
    while below:
        stage, node = below.pop()
        for layer, child in node.children.items():
            total += layers[stage][layer.letter]
            below.append((stage, child))
        if node.onward is not None:
            total += pool_cost(spec, stage + 1).flops
            below.append((stage + 1, node.onward))
        if node.path >= 0:
            total += head_cost(spec).flops
    return total


def shares(items: int, parts: int) -> Sequence[range]:
    """``range(items)`` in ``parts`` consecutive pieces whose lengths differ by one at most; empty ones are left out."""
    ends = [items * part // parts for part in range(parts + 1)]
    return [range(first, last) for first, last in pairwise(ends) if first < last]
