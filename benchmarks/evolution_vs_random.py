"""Does evolution beat random search at an equal number of scored architectures?

    python benchmarks/evolution_vs_random.py [--seeds 20] [--flops 1.3G] [--space 1d_tiny_16]

The objective is synthetic, so that its optimum over all architectures within the budget is known. On the canonical
path, every choice (basic, sharing, identity) at every cell has a random worth, every pair of choices at two cells,
within a stage or across stages, has another, and FLOPs are worth something too; the three parts have equal variance
over the space. Printed is the regret: how many standard deviations of the score, over the architectures within the
budget, the best found lies below the optimum.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import numpy.typing as npt

from psvit.arch import BASIC, IDENTITY, SHARING, Architecture, CellPath
from psvit.run.random import numpy_rng
from psvit.search.config import SearchConfig
from psvit.search.evolution import Evolution
from psvit.search.random_search import RandomSearch
from psvit.search.searcher import Searcher
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace, Subspace
from psvit.units import Band
from psvit.zoo import space as named_space


class Interactions:
    """Synthetic scores of all members of a subspace."""

    def __init__(self, subspace: Subspace) -> None:
        space, letters = subspace.space, BASIC + SHARING + IDENTITY
        self.members = list(subspace)
        paths = [CellPath.canonical(member, space.cells) for member in self.members]
        choices = np.array([[letters.index(letter) for letter in "".join(path.stages)] for path in paths])
        self._one_hot = np.eye(len(letters))[choices].reshape(len(paths), -1)
        self._cost = _standard(np.log([space.cost(member).flops for member in self.members]))

    def draw(self, seed: int) -> dict[Architecture, float]:
        """A score for every member, of mean 0 and variance 1; higher is better."""
        rng = numpy_rng(seed, "interactions")
        width = self._one_hot.shape[1]
        single = self._one_hot @ rng.normal(size=width)
        pairs = ((self._one_hot @ np.triu(rng.normal(size=(width, width)), k=1)) * self._one_hot).sum(axis=1)
        scores = _standard(_standard(single) + _standard(pairs) + self._cost)
        return dict(zip(self.members, scores.tolist(), strict=True))


def _standard(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (values - values.mean()) / values.std()


def best_so_far(
    searcher: Searcher, score: dict[Architecture, float], trials: int, batch: int
) -> npt.NDArray[np.float64]:
    """The best score after each scored architecture, shape (trials,) or fewer when the budget is exhausted."""
    scores: list[float] = []
    while len(scores) < trials and (asked := searcher.ask(min(batch, trials - len(scores)))):
        told = [Trial(architecture, 0, 0, score[architecture], 0.0, 10, 0) for architecture in asked]
        searcher.tell(told)
        scores += [trial.top1 for trial in told]
    return np.maximum.accumulate(scores)


def main() -> None:
    """Print regrets, wins and a paired test."""
    parser = argparse.ArgumentParser(description="Evolution against random search on a synthetic objective.")
    parser.add_argument("--space", default="1d_tiny_16")
    parser.add_argument("--flops", default="1.3G")
    parser.add_argument("--seeds", type=int, default=20)
    defaults = SearchConfig()
    parser.add_argument("--population", type=int, default=defaults.population)
    parser.add_argument("--parents", type=int, default=defaults.parents)
    parser.add_argument("--mutation", type=float, default=defaults.mutation)
    args = parser.parse_args()

    subspace = SearchSpace(named_space(args.space)).feasible(Band.parse(args.flops))
    interactions = Interactions(subspace)
    counts = (300, 1000)
    regrets = np.empty((args.seeds, 2, len(counts)))
    for seed in range(args.seeds):
        score = interactions.draw(seed)
        searchers: tuple[Searcher, Searcher] = (
            Evolution(subspace, seed, args.population, args.parents, args.mutation),
            RandomSearch(subspace, seed),
        )
        for row, searcher in enumerate(searchers):
            best = best_so_far(searcher, score, max(counts), args.population)
            regrets[seed, row] = [max(score.values()) - best[min(count, len(best)) - 1] for count in counts]

    print(f"{args.space}, FLOPs {args.flops}: {subspace.count:,} architectures, {args.seeds} seeds")
    print(f"{'scored':>6}  {'searcher':9}  {'regret: mean':>12}  {'median':>6}  {'worst':>6}  {'optimum found':>13}")
    for column, count in enumerate(counts):
        for row, name in enumerate(("evolution", "random")):
            regret = regrets[:, row, column]
            found = f"{(regret < 1e-9).sum()} of {len(regret)}"
            mean, median, worst = regret.mean(), np.median(regret), regret.max()
            print(f"{count:>6}  {name:9}  {mean:>12.3f}  {median:>6.3f}  {worst:>6.3f}  {found:>13}")
        gain = regrets[:, 1, column] - regrets[:, 0, column]
        wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
        # sign test: the chance of at least so many wins if either searcher were as likely to win
        chance = sum(math.comb(wins + losses, k) for k in range(wins, wins + losses + 1)) / 2 ** (wins + losses)
        print(
            f"{count:>6}  evolution wins {wins}, loses {losses}; gain {gain.mean():.3f}, standard error "
            f"{gain.std(ddof=1) / math.sqrt(len(gain)):.3f}; sign test p = {chance:.1g}"
        )


if __name__ == "__main__":
    main()
