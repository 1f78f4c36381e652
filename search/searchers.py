"""The registry of searchers: what each is called, what it does, and how it is made. No torch.

A searcher's name is its subcommand, a choice of ``search=NAME``, the value of ``search.searcher`` and the first word of
its run folder. Whoever needs the list, the command, its help, the settings' check or a report, reads it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psvit.search.budget import Budget
    from psvit.search.config import SearchConfig
    from psvit.search.searcher import Searcher
    from psvit.supernet.space import Subspace

Make = Callable[["SearchConfig", "Subspace", int, "Budget"], "Searcher"]


@dataclass(frozen=True)
class SearcherKind:
    """A way to search.

    Attributes:
        name: one word.
        summary: what it does, in a line.
        about: the same in some sentences, for its help.
        make: gives a searcher of the settings, the architectures within the budget, a seed and the budget.
        adaptive: whether what it asks for follows from the scores.
        settings: the settings of :class:`psvit.search.config.SearchConfig` that it reads besides those of all.
        examples: what for -> command.
    """

    name: str
    summary: str
    about: str
    make: Make
    adaptive: bool = False
    settings: tuple[str, ...] = ()
    examples: dict[str, str] = field(default_factory=dict)


def _exhaustive(settings: SearchConfig, allowed: Subspace, seed: int, budget: Budget) -> Searcher:
    from psvit.search.exhaustive import Exhaustive

    return Exhaustive(allowed)


def _evolve(settings: SearchConfig, allowed: Subspace, seed: int, budget: Budget) -> Searcher:
    from psvit.search.evolution import Evolution

    return Evolution(allowed, seed, settings.population, settings.parents, settings.mutation, settings.rank_by)


def _nsga2(settings: SearchConfig, allowed: Subspace, seed: int, budget: Budget) -> Searcher:
    from psvit.search.nsga2 import Nsga2

    cost = budget.table.predict if budget.table else None  # what the budget is about
    return Nsga2(allowed, seed, settings.population, settings.mutation, cost, settings.rank_by)


def _random(settings: SearchConfig, allowed: Subspace, seed: int, budget: Budget) -> Searcher:
    from psvit.search.random_search import RandomSearch

    return RandomSearch(allowed, seed)


SEARCHERS = {
    kind.name: kind
    for kind in (
        SearcherKind(
            name="exhaustive",
            summary="find the best architecture within a budget by scoring all of them",
            about="Scores every architecture within a budget with the weights it inherits from a trained supernet; "
            "layers that architectures have in common are computed once. With search.race=true all are first scored "
            "on a few images, and those that can no longer be among the best are dropped.",
            make=_exhaustive,
            settings=("race", "race_keep", "confidence"),
            examples={
                "after train-supernet": "psvit-search exhaustive --flops 5M",
                "on 8 GPUs, racing": "torchrun --no-python --nproc-per-node 8 psvit-search exhaustive --flops 1.3G "
                "--name in1k search.race=true search.rank_by=top1 workers=8",
            },
        ),
        SearcherKind(
            name="evolve",
            summary="find a good architecture by evolution, where there are too many to score all",
            about="Scores architectures with the weights they inherit from a trained supernet, on images held out of "
            "its training, and breeds from the best.",
            make=_evolve,
            adaptive=True,
            settings=("trials", "population", "parents", "mutation"),
            examples={
                "after train-supernet": "psvit-search evolve --flops 5M",
                "at most 2 ms per forward pass on this machine": "psvit-search evolve --latency 2ms",
                "three searches, with seeds 1, 2 and 3": "psvit-search evolve --flops 5M -m seed=1,2,3",
            },
        ),
        SearcherKind(
            name="nsga2",
            summary="evolve the Pareto front of score against cost, for many budgets at once",
            about="Evolves architectures that no other one beats in both score and FLOPs (with --latency: score and "
            "latency), so that one search serves every budget below its own; psvit-search pick then answers each of "
            "them.",
            make=_nsga2,
            adaptive=True,
            settings=("trials", "population", "mutation"),
            examples={"a whole space": "psvit-search nsga2", "up to 5 M FLOPs": "psvit-search nsga2 --flops 5M"},
        ),
        SearcherKind(
            name="random",
            summary="score random architectures, the baseline of every search",
            about="Scores architectures drawn uniformly from all that the budget allows, with the weights they "
            "inherit from a trained supernet.",
            make=_random,
            settings=("trials",),
            examples={"after train-supernet": "psvit-search random --flops 4M..5M"},
        ),
    )
}

AUTO = "auto"  # the word for psvit-search run to choose between exhaustive and evolve
