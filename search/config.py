"""Settings of ``psvit-search evolve`` and ``random``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.engine.config import RunConfig

SEARCHERS = ("evolution", "random")


@dataclass
class BudgetConfig:
    """What is allowed: ``1.3G`` is at most 1.3e9, ``1.2G..1.3G`` a band, None anything."""

    flops: str | None = None
    params: str | None = None


@dataclass
class SearchConfig:
    """How to search.

    Attributes:
        searcher: ``evolution`` or ``random``.
        trials: architectures to score.
        population: architectures a generation (and, for random search, a batch).
        parents: best architectures so far that a generation descends from.
        mutation: share of children made by mutation; the others by crossover.
        placements: score on this many random placements of the layers in the cells and average; 0 scores the
            canonical path alone.
        batch_size: images a forward pass.
        baseline: random architectures of the winner's cost (within 2 %) that it is compared with.
    """

    budget: BudgetConfig = field(default_factory=BudgetConfig)
    searcher: str = "evolution"
    trials: int = 1000
    population: int = 50
    parents: int = 10
    mutation: float = 0.5
    placements: int = 0
    batch_size: int = 256
    baseline: int = 50

    def __post_init__(self) -> None:
        if self.searcher not in SEARCHERS:
            raise ValueError(f"search.searcher is {self.searcher!r}; use one of {', '.join(SEARCHERS)}")
        for key in ("trials", "population", "parents", "batch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"search.{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("placements", "baseline"):
            if getattr(self, key) < 0:
                raise ValueError(f"search.{key} is {getattr(self, key)}; use 0 or more")
        if not 0 <= self.mutation <= 1:
            raise ValueError(f"search.mutation is {self.mutation}; it is a share between 0 and 1")


@dataclass
class SearchRunConfig(RunConfig):
    """Settings of one search.

    Attributes:
        supernet: run folder of ``train-supernet``; its space, data and splits are used.
        data_root: where its images lie now, if they moved.
        workers: loader processes.
    """

    supernet: str = "???"
    data_root: str | None = None
    workers: int = 0
    search: SearchConfig = field(default_factory=SearchConfig)
