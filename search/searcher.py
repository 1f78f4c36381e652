"""What a searcher is: it is asked for architectures and told their scores."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from psvit.arch import Architecture
from psvit.search.trial import Trial
from psvit.supernet.space import Subspace


class Searcher(Protocol):
    """Proposes architectures within a budget. Pure: no files, no ranks, no torch.

    What it answers is a function of its seed and of what it was asked and told, so that a search resumes exactly by
    asking and telling again (``search/loop.py``). Its first ``k`` answers to ``ask(n)`` are its answer to ``ask(k)``.
    """

    def ask(self, n: int) -> list[Architecture]:
        """``n`` architectures that were never asked or told before; fewer only when no more are within the budget."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take in the scores of architectures."""


class Unseen:
    """The architectures of a subspace that a searcher has not taken yet."""

    def __init__(self, subspace: Subspace) -> None:
        self.subspace = subspace
        self.taken: set[Architecture] = set()
        self._numbers: list[int] = []  # of those taken, sorted

    def __contains__(self, architecture: Architecture) -> bool:
        return architecture not in self.taken and architecture in self.subspace

    def take(self, architecture: Architecture) -> None:
        """Remove an architecture, if it is there still."""
        if architecture not in self.taken:
            self.taken.add(architecture)
            insort(self._numbers, self.subspace.rank(architecture))

    def draw(self, rng: np.random.Generator) -> Architecture | None:
        """One of them, uniformly, without removing it; None when there is none left."""
        return self.subspace.draw_unseen(rng, self._numbers)

    def take_up_to(self, n: int, draw: Callable[[], Architecture | None]) -> list[Architecture]:
        """Remove ``n`` architectures that ``draw`` gives one after the other; fewer once it gives None."""
        taken: list[Architecture] = []
        while len(taken) < n and (architecture := draw()) is not None:
            self.take(architecture)
            taken.append(architecture)
        return taken
