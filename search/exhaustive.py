"""Exhaustive search: every architecture within the budget, in the order in which their paths begin alike."""

from __future__ import annotations

from collections.abc import Sequence

from psvit.arch import Architecture
from psvit.search.trial import Trial
from psvit.supernet.space import Subspace


class Exhaustive:
    """Asks for all architectures of ``subspace``; neighbours in its order share most of their layers."""

    def __init__(self, subspace: Subspace) -> None:
        self._left = sorted(subspace, reverse=True)  # the next one is the last
        self._taken: set[Architecture] = set()

    def ask(self, n: int) -> list[Architecture]:
        """The next ``n``; fewer when none are left."""
        asked: list[Architecture] = []
        while self._left and len(asked) < n:
            architecture = self._left.pop()
            if architecture not in self._taken:
                asked.append(architecture)
        self._taken.update(asked)
        return asked

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take note that these need no scoring."""
        self._taken.update(trial.architecture for trial in trials)
