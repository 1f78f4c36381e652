"""The prefix tree: against sets of prefixes, and the sums that the design rests on."""

from __future__ import annotations

import numpy as np
import pytest

from psvit.arch import IDENTITY, Architecture, CellPath
from psvit.cost import fixed_cost, head_cost, layer_cost, pool_cost, stem_cost
from psvit.search.tree import Node, prefix_tree, shares, tree_flops
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES

TINY = SearchSpace(SPACES["1d_tiny_16"])


def canonical(architectures: list[Architecture]) -> list[CellPath]:
    return [CellPath.canonical(architecture, 6) for architecture in architectures]


def brute_force(space: SearchSpace, paths: list[CellPath]) -> int:
    """Multiply-adds an image: every distinct beginning of the paths once."""
    spec, seen, total = space.spec, set(), stem_cost(space.spec).flops
    for path in paths:
        beginning: tuple = ()
        for stage, word in enumerate(path.stages):
            if stage:
                beginning += ("pool",)
                total += pool_cost(spec, stage).flops * (beginning not in seen)
                seen.add(beginning)
            for cell, letter in enumerate(word):
                if letter != IDENTITY:
                    beginning += ((cell, letter),)
                    total += layer_cost(spec, stage, letter).flops * (beginning not in seen)
                    seen.add(beginning)
        total += head_cost(spec).flops
    return total


@pytest.mark.parametrize("name", ["1d_tiny_16", "2d_mini_4"])
def test_flops_of_a_tree_are_those_of_all_distinct_beginnings(name: str) -> None:
    space, rng = SearchSpace(SPACES[name]), np.random.default_rng(0)
    architectures = sorted({space.within().draw(rng) for _ in range(300)})
    paths = canonical(architectures) + [space.placement(architecture, rng) for architecture in architectures]
    paths = sorted(set(paths), key=lambda path: path.stages)
    assert tree_flops(prefix_tree(paths), space.spec) == brute_force(space, paths)


def test_one_path_costs_what_its_network_costs() -> None:
    for architecture in (Architecture.parse("B-B-B"), Architecture.parse("BSBBSS-BSS-BBBBBB")):
        assert tree_flops(prefix_tree(canonical([architecture])), TINY.spec) == TINY.cost(architecture).flops


@pytest.mark.slow
def test_sharing_the_beginnings_of_all_within_1_3_g_saves_thirteen_times() -> None:
    architectures = list(TINY.within(Band.parse("1.3G")))
    alone = sum(TINY.cost(architecture).flops for architecture in architectures)
    together = tree_flops(prefix_tree(canonical(architectures)), TINY.spec)
    assert (len(architectures), f"{alone:.2g}", f"{together:.2g}") == (48_829, "5.7e+13", "4.5e+12")
    assert alone / together == pytest.approx(12.71, abs=0.005)


def test_every_path_ends_at_a_node_of_its_own() -> None:
    paths = canonical([Architecture.parse(text) for text in ("B-B-B", "B-B-BS", "B-BS-B", "BS-B-B")])
    root = prefix_tree(paths)
    found = {}

    def visit(node: Node, letters: str) -> None:
        if node.path >= 0:
            found[node.path] = letters
        for layer, child in node.children.items():
            visit(child, f"{letters}{layer.letter}{layer.cell}")
        if node.onward is not None:
            visit(node.onward, f"{letters}-")

    visit(root, "")
    assert found == {0: "B0-B0-B0", 1: "B0-B0-B0S1", 2: "B0-B0S1-B0", 3: "B0S1-B0-B0"}
    (basic,) = root.children.values()
    assert basic.shares
    assert basic.ends
    assert not root.ends
    assert fixed_cost(TINY.spec).flops < tree_flops(root, TINY.spec)


def test_a_path_given_twice_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="twice"):
        prefix_tree(canonical([Architecture.parse("B-B-B")] * 2))


@pytest.mark.parametrize(("items", "parts"), [(10, 3), (3, 10), (1, 1), (0, 4), (512, 8)])
def test_shares_are_even_and_cover_everything(items: int, parts: int) -> None:
    pieces = shares(items, parts)
    assert [item for piece in pieces for item in piece] == list(range(items))
    assert len(pieces) == min(items, parts)
    assert not pieces or max(map(len, pieces)) - min(map(len, pieces)) <= 1
