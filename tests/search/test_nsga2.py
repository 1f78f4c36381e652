"""NSGA-II: its parts against brute force and values worked out by hand, and what the whole finds."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from benchmarks.evolution_vs_random import Interactions
from psvit.arch import Architecture
from psvit.search.nsga2 import Nsga2, crowding_distance, non_dominated_sort, survivors, tournament
from psvit.search.random_search import RandomSearch
from psvit.search.searcher import Searcher
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES

SIX = SearchSpace(SPACES["2d_mini_4"]).within()
LAYERS = ["BSBS-BBS-BSSB", "BB-BSSS-BSB", "BSSB-BBBB-BB", "B-B-B", "BBB-BBB-BBB"]


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_fronts_equal_brute_force(columns: int) -> None:
    rng = np.random.default_rng(columns)
    for _ in range(20):
        objectives = rng.integers(0, 8, (40, columns)).astype(float)
        left, expected = set(range(40)), []
        while left:
            front = {i for i in left if not any(dominates(objectives[j], objectives[i]) for j in left)}
            expected.append(sorted(front))
            left -= front
        assert [front.tolist() for front in non_dominated_sort(objectives)] == expected


def test_crowding_distance_of_a_front_worked_out_by_hand() -> None:
    front = np.array([[4.0, 2.0], [0.0, 10.0], [10.0, 0.0], [1.0, 6.0]])
    # along the front: (0, 10), (1, 6), (4, 2), (10, 0); ranges 10 and 10
    second = (4 - 0) / 10 + (10 - 2) / 10
    third = (10 - 1) / 10 + (6 - 0) / 10
    np.testing.assert_allclose(crowding_distance(front), [third, math.inf, math.inf, second])


@pytest.mark.parametrize(
    ("front", "distances"),
    [([[3, 4]], [math.inf]), ([[1, 2], [2, 1]], [math.inf] * 2), ([[5, 5]] * 3, [math.inf, 0, math.inf])],
)
def test_crowding_distance_of_degenerate_fronts(front: list[list[int]], distances: list[float]) -> None:
    assert crowding_distance(np.array(front, dtype=float)).tolist() == distances


def test_survivors_come_by_front_and_then_by_crowding() -> None:
    front = [[0, 10], [1, 6], [4, 2], [10, 0]]
    behind = [[11, 11], [1, 11]]  # the second one is dominated by the front alone
    objectives = np.array([*behind, *front], dtype=float)
    assert survivors(objectives, 4) == [2, 5, 4, 3]
    assert survivors(objectives, 3) == [2, 5, 4]  # the most crowded one goes
    assert survivors(objectives, 5) == [2, 5, 4, 3, 1]
    assert survivors(objectives, 50) == [2, 5, 4, 3, 1, 0]
    assert survivors(np.empty((0, 2)), 3) == []


def test_tournament_is_won_by_the_better_of_two() -> None:
    rng, rounds, count = np.random.default_rng(0), 20_000, 4
    wins = np.bincount([tournament(rng, count) for _ in range(rounds)], minlength=count) / rounds
    # place i wins when neither draw is better and not both are worse
    expected = [((count - i) ** 2 - (count - i - 1) ** 2) / count**2 for i in range(count)]
    np.testing.assert_allclose(wins, expected, atol=0.015)


def told(layers: list[str], scores: list[tuple[float, float]]) -> list[Trial]:
    return [Trial(Architecture.parse(a), 0, 0, *score, 10, 0) for a, score in zip(layers, scores, strict=True)]


def far(child: Architecture, parent: Architecture) -> int:
    """How many stages differ."""
    return sum(a != b for a, b in zip(child.stages, parent.stages, strict=True))


def test_survivors_are_those_of_what_is_ranked_by() -> None:
    trials = told(LAYERS[1:3], [(0.9, 0.3), (0.8, 0.2)])  # the first one is the cheaper
    for rank_by, survive in (("top1", {LAYERS[1]}), ("loss", {LAYERS[1], LAYERS[2]})):
        searcher = Nsga2(SIX, 0, population=2, rank_by=rank_by)
        objectives = searcher._objectives(trials)
        front = {LAYERS[1 + i] for i in non_dominated_sort(objectives)[0].tolist()}
        assert front == survive


def test_survivors_are_the_front_of_score_and_cost() -> None:
    """By top-1 and loss, against the cost that is asked for; failed ones never survive."""
    trials = told(LAYERS, [(0.5, 0.3), (0.9, 0.2), (0.9, 0.1), (0.1, 0.9), (math.nan, 0.0)])
    flops = [SIX.space.cost(trial.architecture).flops for trial in trials]
    assert flops[3] < flops[1] < flops[0] < flops[2]
    searcher = Nsga2(SIX, 0, population=5)
    searcher.tell(trials)
    first, second = searcher._survivors[:3], searcher._survivors[3:]
    assert {str(trial.architecture) for trial in first} == {LAYERS[1], LAYERS[2], LAYERS[3]}
    assert [str(trial.architecture) for trial in second] == [LAYERS[0]]

    searcher = Nsga2(SIX, 0, population=5, cost=lambda architecture: -sum(architecture.depths))  # deep is cheap
    searcher.tell(trials)
    assert {str(trial.architecture) for trial in searcher._survivors[:2]} == {LAYERS[0], LAYERS[2]}  # deepest, best
    with_equal_top1 = told(LAYERS[1:3], [(0.9, 0.1), (0.9, 0.1)])
    searcher = Nsga2(SIX, 0, population=2)
    searcher.tell(with_equal_top1)
    assert str(searcher._survivors[0].architecture) == LAYERS[1]  # of equal scores the cheaper one


def test_a_generation_is_so_many_trials_in_whatever_batches() -> None:
    trials = [Trial(a, 0, 0, i % 7 / 10, i / 50, 10, 0) for i, a in enumerate(RandomSearch(SIX, 0).ask(45))]
    by_ones, at_once, uneven = (Nsga2(SIX, 0, population=10) for _ in range(3))
    at_once.tell(trials)
    for trial in trials:
        by_ones.tell([trial])
    for first, last in ((0, 3), (3, 28), (28, 45)):
        uneven.tell(trials[first:last])
    assert by_ones.ask(20) == at_once.ask(20) == uneven.ask(20)
    assert len(at_once._generation) == 5  # not complete: its trials are no parents yet


@pytest.mark.parametrize("mutation", [0.0, 1.0])
def test_children_come_from_survivors(mutation: float) -> None:
    searcher = Nsga2(SIX, 0, population=5, mutation=mutation)
    searcher.tell(told(LAYERS, [(0.5, 0.3), (0.9, 0.2), (0.95, 0.1), (0.1, 0.9), (0.2, 0.1)]))
    parents = [Architecture.parse(layers) for layers in LAYERS]
    mixes = set(product(*zip(*(parent.stages for parent in parents), strict=True)))
    children = searcher.ask(12)
    mixed = [child for child in children if child.stages in mixes]
    edited = [child for child in children if min(far(child, parent) for parent in parents) == 1]
    if mutation:
        assert len(edited) == 12
        assert len(mixed) < 3
    else:
        assert set(mixed) | set(edited) == set(children)  # edited where both parents are the same
        assert len(mixed) > 6


def hypervolume(points: list[tuple[float, float]], reference: tuple[float, float]) -> float:
    """The area of (cost, score) that points dominate, up to a cost and down to a score that none is worse than."""
    area, best = 0.0, reference[1]
    for cost, score in sorted(points):
        if score > best:
            area += (reference[0] - cost) * (score - best)
            best = score
    return area


def test_hypervolume_of_a_staircase() -> None:
    assert hypervolume([(1, 1), (2, 3), (3, 2), (2, 1)], (4, 0)) == 3 * 1 + 2 * 2


def test_its_front_beats_that_of_random_search() -> None:
    subspace = SearchSpace(SPACES["1d_tiny_16"]).within(Band.parse("0.9G"))
    interactions = Interactions(subspace)
    cost = {member: subspace.space.cost(member).flops for member in interactions.members}
    wins = 0
    for seed in range(5):
        scores = interactions.draw(seed)
        reference = (max(cost.values()), min(scores.values()))

        def found(searcher: Searcher, scores=scores, reference=reference) -> float:
            asked: list[Architecture] = []
            for _ in range(12):
                batch = searcher.ask(50)
                searcher.tell([Trial(a, 0, 0, scores[a], 0.0, 10, 0) for a in batch])
                asked += batch
            assert len(set(asked)) == 600
            return hypervolume([(cost[a], scores[a]) for a in asked], reference)

        wins += found(Nsga2(subspace, seed)) > found(RandomSearch(subspace, seed))
    assert wins >= 4  # 5 of 5 when this was written
