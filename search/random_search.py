"""Random search: uniform over the architectures within the budget, without repeats."""

from __future__ import annotations

from collections.abc import Sequence

from psvit.arch import Architecture
from psvit.run.random import numpy_rng
from psvit.search.searcher import Unseen
from psvit.search.trial import Trial
from psvit.supernet.space import Subspace


class RandomSearch:
    """Draws uniformly from the architectures of ``subspace`` that it has not drawn; scores do not matter to it."""

    def __init__(self, subspace: Subspace, seed: int) -> None:
        self.seed = seed
        self.unseen = Unseen(subspace)

    def ask(self, n: int) -> list[Architecture]:
        """The next ``n`` draws; fewer when the subspace is exhausted."""
        return self.unseen.take_up_to(n, self._draw)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take note that these need no scoring."""
        for trial in trials:
            self.unseen.take(trial.architecture)

    def _draw(self) -> Architecture | None:
        return self.unseen.draw(numpy_rng(self.seed, "random", len(self.unseen.taken)))
