"""Evolution: the best architectures so far are varied and recombined, within the budget by construction.

Each generation lists what its parents can become by one edit, by two edits and by crossover, keeps what is within the
budget and was never asked, and draws its children from these lists. A budget as tight as one per cent leaves few
single edits, so the lists step in for each other, and in the end a uniform draw of anything unseen does: a generation
is always full as long as the budget has unseen architectures, and no architecture is asked twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product

import numpy as np

from psvit.arch import BASIC, SHARING, Architecture
from psvit.run.random import numpy_rng
from psvit.search.searcher import Unseen
from psvit.search.trial import Trial
from psvit.supernet.space import Subspace

Stages = tuple[str, ...]


class Evolution:
    """Evolutionary search over the architectures of ``subspace``.

    Args:
        population: architectures that are drawn uniformly before evolution begins.
        parents: best architectures of all so far (elitism) that a generation descends from.
        mutation: share of children made by mutation; the others by crossover.
        rank_by: ``loss`` or ``top1``.
    """

    def __init__(
        self,
        subspace: Subspace,
        seed: int,
        population: int = 50,
        parents: int = 10,
        mutation: float = 0.5,
        rank_by: str = "loss",
    ) -> None:
        self.seed = seed
        self.population = population
        self.parents = parents
        self.mutation = mutation
        self.rank_by = rank_by
        self.unseen = Unseen(subspace)
        self._told = 0
        self._best: list[Trial] = []

    def ask(self, n: int) -> list[Architecture]:
        """``n`` children of the best; fewer when the subspace is exhausted."""
        rng = numpy_rng(self.seed, "evolution", len(self.unseen.taken))
        parents = [trial.architecture.stages for trial in self._best] if self._told >= self.population else []
        cells = self.unseen.subspace.space.cells
        edits = _Pool((child for parent in parents for child in neighbours(parent, cells)), self.unseen)
        double_edits = _Pool(
            (child for parent in parents for way in neighbours(parent, cells) for child in neighbours(way, cells)),
            self.unseen,
        )
        crosses = _Pool((child for pair in combinations(parents, 2) for child in crossover(*pair)), self.unseen)

        def draw_child() -> Architecture | None:
            mutate = rng.random() < self.mutation
            sources = (edits, double_edits, crosses) if mutate else (crosses, edits, double_edits)
            children = (source.draw(rng) for source in (*sources, self.unseen))
            return next((child for child in children if child is not None), None)

        return self.unseen.take_up_to(n, draw_child)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let the best so far be the parents of the next generation."""
        for trial in trials:
            self.unseen.take(trial.architecture)
        self._told += len(trials)
        scored = [trial for trial in trials if not trial.failed]
        ranked = sorted(self._best + scored, key=lambda trial: trial.sort_key(self.rank_by))
        self._best = ranked[: self.parents]


class _Pool:
    """Possible children, of which those unseen are listed when the first is drawn, and drawn without replacement."""

    def __init__(self, candidates: Iterable[Stages], unseen: Unseen) -> None:
        self._candidates = candidates
        self._unseen = unseen
        self._left: list[Architecture] | None = None

    def draw(self, rng: np.random.Generator) -> Architecture | None:
        if self._left is None:
            architectures = map(Architecture, dict.fromkeys(self._candidates))  # in an order that seeds reproduce
            self._left = [architecture for architecture in architectures if architecture in self._unseen]
        while self._left:
            last, drawn = len(self._left) - 1, int(rng.integers(len(self._left)))
            self._left[drawn], self._left[last] = self._left[last], self._left[drawn]
            child = self._left.pop()
            if child not in self._unseen.taken:  # from another pool meanwhile
                return child
        return None


def crossover(mother: Stages, father: Stages) -> Iterator[Stages]:
    """Every way to take each stage from one of two parents, the parents included."""
    return product(*zip(mother, father, strict=True))


def neighbours(stages: Stages, cells: int) -> Iterator[Stages]:
    """Every architecture one edit away: a layer added, removed, or turned from basic to sharing or back."""
    for number, word in enumerate(stages):
        for edited in edits(word, cells):
            yield (*stages[:number], edited, *stages[number + 1 :])


def edits(word: str, cells: int) -> list[str]:
    """Every legal stage one edit away from this one; some may come up twice."""
    edited = []
    for i in range(len(word)):
        edited += [word[:i] + letter + word[i + 1 :] for letter in (BASIC, SHARING, "") if letter != word[i]]
    if len(word) < cells:
        edited += [word[:i] + letter + word[i:] for i in range(len(word) + 1) for letter in (BASIC, SHARING)]
    return [word for word in edited if word.startswith(BASIC)]
