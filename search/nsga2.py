"""NSGA-II (Deb et al. 2002): many budgets at once, by evolving the front of score against cost. No torch.

A generation's survivors are chosen from it and its parents, front by front; within a front, those that stand alone
come first. Two survivors drawn at random compete to be a parent. Scores enter by their place, top-1 first and the
loss where top-1 is equal, so that the front does not depend on their scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from psvit.arch import Architecture
from psvit.cost import network_cost
from psvit.run.random import numpy_rng
from psvit.search.evolution import Stages, crossover, neighbours
from psvit.search.searcher import Unseen
from psvit.search.trial import Trial
from psvit.supernet.space import Subspace

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Nsga2:
    """NSGA-II over the architectures of ``subspace``.

    It goes by generations of ``population`` trials, in the order in which it is told them, whatever the batches are.

    Args:
        population: trials of a generation, and survivors that the next one descends from. The first is drawn uniformly.
        mutation: share of children made by an edit; the others by crossover.
        cost: what should be small; FLOPs when None.
        rank_by: ``loss`` or ``top1``.
    """

    def __init__(
        self,
        subspace: Subspace,
        seed: int,
        population: int = 50,
        mutation: float = 0.5,
        cost: Callable[[Architecture], int] | None = None,
        rank_by: str = "loss",
    ) -> None:
        self.seed = seed
        self.population = population
        self.mutation = mutation
        self.rank_by = rank_by
        self.cost = cost or (lambda architecture: network_cost(subspace.space.spec, architecture).flops)
        self.unseen = Unseen(subspace)
        self._survivors: list[Trial] = []  # best first
        self._generation: list[Trial] = []  # as far as it was told

    def ask(self, n: int) -> list[Architecture]:
        """``n`` children of the survivors; fewer when the subspace is exhausted."""
        rng = numpy_rng(self.seed, "nsga2", len(self.unseen.taken))
        return self.unseen.take_up_to(n, lambda: self._child(rng))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let the survivors be chosen anew whenever a generation is complete."""
        for trial in trials:
            self.unseen.take(trial.architecture)
            self._generation.append(trial)
            if len(self._generation) == self.population:
                rivals = [trial for trial in self._survivors + self._generation if not trial.failed]
                self._survivors = [rivals[i] for i in survivors(self._objectives(rivals), self.population)]
                self._generation = []

    def _objectives(self, trials: Sequence[Trial]) -> Floats:
        """Place by score, from 0, and cost, shape (trials, 2); both should be small."""
        scores = np.array([trial.score_key(self.rank_by) for trial in trials]).reshape(-1, 2)
        places = np.unique(scores, axis=0, return_inverse=True)[1].ravel()
        return np.column_stack([places, [self.cost(trial.architecture) for trial in trials]]).astype(float)

    def _child(self, rng: np.random.Generator) -> Architecture | None:
        """An unseen child by crossover of two parents or by an edit of one, else anything unseen; None when all is."""
        if not self._survivors:
            return self.unseen.draw(rng)
        mother, father = (self._survivors[tournament(rng, len(self._survivors))].architecture.stages for _ in range(2))
        cells = self.unseen.subspace.space.cells
        ways: list[Iterator[Stages]] = [crossover(mother, father), neighbours(mother, cells)]
        if rng.random() < self.mutation:
            ways.reverse()
        for way in ways:
            children = [child for child in map(Architecture, dict.fromkeys(way)) if child in self.unseen]
            if children:
                return children[rng.integers(len(children))]
        return self.unseen.draw(rng)


def survivors(objectives: Floats, count: int) -> list[int]:
    """The rows that survive, best first: by front, and by crowding distance within a front.

    Args:
        objectives: shape (n, objectives), all to be small.
        count: how many survive at most.
    """
    chosen: list[int] = []
    for front in non_dominated_sort(objectives):
        if len(chosen) >= count:
            break
        chosen += front[np.argsort(-crowding_distance(objectives[front]), kind="stable")].tolist()
    return chosen[:count]


def non_dominated_sort(objectives: Floats) -> list[Integers]:
    """The rows by fronts: a front holds what only earlier fronts dominate (Deb et al. 2002, section III-A).

    A row dominates another one if it is nowhere larger and somewhere smaller.
    """
    this, other = objectives[:, None], objectives[None, :]
    dominates = np.all(this <= other, axis=2) & np.any(this < other, axis=2)
    dominators = dominates.sum(axis=0)  # of each row, among those in no front yet
    fronts = []
    while len(front := np.flatnonzero(dominators == 0)):
        fronts.append(front)
        dominators -= dominates[front].sum(axis=0)
        dominators[front] = -1
    return fronts


def crowding_distance(front: Floats) -> Floats:
    """How far apart each row's two neighbours are, over all objectives (Deb et al. 2002, section III-B), shape (n,).

    Each objective counts as a share of its range; the ends of the front are infinitely far.
    """
    distance = np.zeros(len(front))
    for values in front.T:
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]]
        if span:
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
        distance[order[[0, -1]]] = np.inf
    return distance


def tournament(rng: np.random.Generator, count: int) -> int:
    """The better one of two draws from ``count`` survivors, which stand best first."""
    return int(rng.integers(count, size=2).min())
