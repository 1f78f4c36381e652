"""Search: ask, score, record, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from psvit.arch import Architecture
from psvit.cost import Cost
from psvit.run.progress import Counter
from psvit.search.history import History
from psvit.search.searcher import Searcher
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace


class Scored(NamedTuple):
    """What is known of an architecture: see :class:`psvit.search.trial.Trial`."""

    top1: float
    loss: float
    folds: tuple[float, ...] = ()


TOGETHER = 512  # architectures that are scored together and recorded at a time, at most


def run_search(
    searcher: Searcher,
    score: Callable[[list[Architecture]], Sequence[Scored]],
    space: SearchSpace,
    history: History,
    num_images: int,
    trials: int,
    batch: int,
    chunk: int = TOGETHER,
) -> None:
    """Score ``trials`` architectures, or all within the budget if they are fewer, ``batch`` of them per generation.

    To resume where a history ends, the searcher is asked and told all over again, and what the history holds is not
    scored again: so a search that was killed ends like an unbroken one, and more trials continue a finished one.

    Args:
        score: gives the score of each architecture.
        num_images: how many images it scores them on.
        chunk: architectures that are scored together and recorded at a time; what a killed run loses at most.

    Raises:
        ValueError: the history holds other architectures than this searcher asks for.
    """
    done = generation = 0
    with Counter(trials, "search", "architectures") as bar:
        while done < trials and (asked := searcher.ask(min(batch, trials - done))):
            known = [trial.architecture for trial in history.trials[done : done + len(asked)]]
            if known != asked[: len(known)]:
                raise ValueError(
                    f"{history.path} does not hold what this search asks for in trials {done + 1} to "
                    f"{done + len(known)}: it was made by another search or version; use another name= or out="
                )
            bar.skip(len(known))
            for first in range(len(known), len(asked), chunk):
                part = asked[first : first + chunk]
                costs = [space.cost(architecture) for architecture in part]
                history.append(
                    [
                        _trial(architecture, cost, scored, num_images, generation)
                        for architecture, cost, scored in zip(part, costs, score(part), strict=True)
                    ]
                )
                bar.advance(len(part))
            searcher.tell(history.trials[done : done + len(asked)])
            done += len(asked)
            generation += 1


def _trial(architecture: Architecture, cost: Cost, scored: Scored, num_images: int, generation: int) -> Trial:
    top1, loss, folds = float(scored.top1), float(scored.loss), scored.folds
    return Trial(architecture, cost.flops, cost.params, top1, loss, num_images, generation, folds)
