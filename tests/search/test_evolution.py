"""Evolution: who becomes a parent, what their children are, and that it beats random search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest

from benchmarks.evolution_vs_random import Interactions, best_so_far
from psvit.arch import Architecture
from psvit.search.evolution import Evolution, edits
from psvit.search.random_search import RandomSearch
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.zoo import SPACES
from tests.search.test_searchers import SMALL, TIGHT, score, search


def as_tried(layers: Iterable[str], top1: Sequence[float]) -> list[Trial]:
    return [Trial(Architecture.parse(a), 0, 0, b, 0.0, 10, 0) for a, b in zip(layers, top1, strict=True)]


@cache
def distance(a: str, b: str) -> int:
    """Levenshtein distance."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


@pytest.mark.parametrize("cells", [3, 4])
def test_edits_are_all_legal_stages_at_distance_one(cells: int) -> None:
    stages = ["B" + "".join(rest) for depth in range(cells) for rest in product("BS", repeat=depth)]
    for word in stages:
        assert set(edits(word, cells)) - {word} == {other for other in stages if distance(word, other) == 1}


def far(child: Architecture, parent: Architecture) -> int:
    return sum(distance(a, b) for a, b in zip(child.stages, parent.stages, strict=True))


SIX = SearchSpace(SPACES["2d_mini_4"]).within()
LAYERS = ["BSBS-BBS-BSSB", "BB-BSSS-BSB", "BSSB-BBBB-BB", "B-B-B", "BBB-BBB-BBB"]


def test_mutants_are_one_edit_from_the_best_of_all_time() -> None:
    evolution = Evolution(SIX, 0, population=5, parents=2, mutation=1.0)
    tried = as_tried(LAYERS, [0.7, 0.2, 0.9, 0.1, math.nan])
    evolution.tell(tried)
    best = [tried[2].architecture, tried[0].architecture]
    for _ in range(3):  # worse children do not displace their elders
        children = evolution.ask(10)
        assert all(min(far(child, parent) for parent in best) == 1 for child in children)
        assert {min((far(child, parent), i) for i, parent in enumerate(best))[1] for child in children} == {0, 1}
        evolution.tell(as_tried(map(str, children), [0.3] * 10))
    better = evolution.ask(1)
    evolution.tell(as_tried(map(str, better), [0.95]))
    best = [better[0], best[0]]
    assert all(min(far(child, parent) for parent in best) == 1 for child in evolution.ask(10))


def test_failed_architectures_have_no_children() -> None:
    evolution = Evolution(SIX, 0, population=5, parents=4, mutation=1.0)
    evolution.tell(as_tried(LAYERS, [math.nan, 0.1, math.nan, math.nan, 0.2]))
    parents = [Architecture.parse(LAYERS[1]), Architecture.parse(LAYERS[4])]
    assert all(min(far(child, parent) for parent in parents) == 1 for child in evolution.ask(20))


def test_crossover_takes_each_stage_from_one_of_two_parents() -> None:
    evolution = Evolution(SIX, 0, population=5, parents=3, mutation=0.0)
    evolution.tell(as_tried(LAYERS, [0.7, 0.8, 0.9, 0.1, 0.2]))
    parents = [layers.split("-") for layers in LAYERS[:3]]
    mixes = {
        "-".join(child)
        for a, b in ((0, 1), (0, 2), (1, 2))
        for child in product(*zip(parents[a], parents[b], strict=True))
    }
    children = [str(child) for child in evolution.ask(18)]
    assert set(children) == mixes - set(LAYERS)  # 6 true mixes for each of 3 pairs
    assert all(min(far(child, Architecture.parse(a)) for a in LAYERS[:3]) == 1 for child in evolution.ask(10))


def test_children_are_uniform_over_the_unseen_neighbours() -> None:
    parent = Architecture.parse("BS-B-BB")
    rounds = 1500
    firsts = []
    for seed in range(rounds):
        evolution = Evolution(SMALL, seed, population=1, parents=1, mutation=1.0)
        evolution.tell([Trial(parent, 0, 0, 0.5, 0.0, 10, 0)])
        firsts += evolution.ask(1)
    near = [architecture for architecture in SMALL if far(architecture, parent) == 1]
    deviation = math.sqrt(rounds / len(near) * (1 - 1 / len(near)))
    assert set(firsts) == set(near)
    assert all(abs(firsts.count(a) - rounds / len(near)) < 4.5 * deviation for a in near)


def test_a_tight_budget_leaves_children_near_their_parents() -> None:
    evolution = Evolution(TIGHT, 0, population=50, parents=5)
    evolution.tell([score(architecture) for architecture in evolution.ask(50)])
    parents = [trial.architecture for trial in evolution._best]
    children = evolution.ask(20)
    assert all(child in TIGHT for child in children)
    words = [{parent.stages[stage] for parent in parents} for stage in range(3)]
    for child in children:
        mixed = all(word in stage for word, stage in zip(child.stages, words, strict=True))
        assert mixed or min(far(child, parent) for parent in parents) <= 2


def test_the_population_comes_first() -> None:
    """Until it is told of so many, evolution draws uniformly: no near relatives of the first."""
    evolution = Evolution(SIX, 0, population=30)
    asked = [a for _ in range(6) for a in search(evolution, 5)]
    assert np.mean([min(far(a, b) for b in asked if b != a) for a in asked]) > 3


def test_evolution_beats_random_on_interacting_cells() -> None:
    interactions = Interactions(TIGHT)
    gains = []
    for seed in range(5):
        scores = interactions.draw(seed)
        evolution, uniform = (
            best_so_far(searcher, scores, trials=300, batch=50)[-1]
            for searcher in (Evolution(TIGHT, seed), RandomSearch(TIGHT, seed))
        )
        gains.append(evolution - uniform)
    assert np.mean(gains) > 0.15  # standard deviations of the score; 0.42 on average over 20 seeds
