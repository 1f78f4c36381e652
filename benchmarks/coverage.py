"""How often the 95 % intervals of a search's claims hold the truth, in simulations whose truth is known.

    python -m benchmarks.coverage [--repeats 400] [--num-images 143 575 2000 10000]

Images differ in difficulty, architectures a little in skill and in what they are good at; an image is classified
correctly where the margin of its logits is above 0, and its loss falls with the margin. So top-1 is about 0.92 and the
architectures lie within a point or two of each other, as on the digits. A search chooses the best of 200 by loss, and
compares it with 50 drawn at random (with replacement, as from a population without end).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from psvit.intervals import Estimate, wilson
from psvit.search.crossfit import (
    FoldSums,
    assign_folds,
    cross_fitted_difference,
    cross_fitted_gain,
    cross_fitted_score,
)

ARCHITECTURES, OTHERS, TOP, FACTORS = 200, 50, 20, 8
EASE, DIFFICULTY, SKILL, TASTE, NOISE = 3.0, 2.0, 0.05, 0.5, 0.3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Architectures whose top-1 on all images that there could be is known.

    Attributes:
        skill: (A,) shift of each one's margins.
        taste: (A, FACTORS) what kinds of images each is good at.
    """

    skill: Floats
    taste: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator) -> World:
        taste = rng.normal(0, TASTE / np.sqrt(FACTORS), (ARCHITECTURES, FACTORS))
        return cls(rng.normal(0, SKILL, ARCHITECTURES), taste)

    @property
    def top1(self) -> Floats:
        """(A,) the truth: margins are normal, with this mean and variance over images."""
        variance = DIFFICULTY**2 + (self.taste**2).sum(axis=1) + NOISE**2
        return np.asarray(norm.cdf((EASE + self.skill) / np.sqrt(variance)))

    def score(self, images: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Outcomes on some images: correct and loss, (A, images) each."""
        ease = rng.normal(EASE, DIFFICULTY, images)
        kinds = rng.standard_normal((FACTORS, images))
        margins = ease + self.skill[:, None] + self.taste @ kinds + rng.normal(0, NOISE, (ARCHITECTURES, images))
        return margins > 0, np.logaddexp(0, -margins).astype(np.float32)


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether the truth lies in the interval."""
    return estimate.low <= truth <= estimate.high


def simulate(images: int, seed: int) -> dict[str, bool | float]:
    """One search: which of its intervals hold the truth, and what the winner's own score on its own images says."""
    rng = np.random.default_rng([images, seed])
    world = World.draw(rng)
    correct, loss = world.score(images, rng)
    folds = assign_folds(np.arange(images) % 10, seed)
    sums = FoldSums.of(correct, loss, folds)
    best, chosen = sums.order("loss")[:TOP], sums.fold_orders("loss", TOP)
    truth, others = world.top1, rng.choice(ARCHITECTURES, OTHERS)
    winner, mean = best[0], float(truth.mean())
    gain = cross_fitted_gain(correct, chosen[:, 0], folds, correct[others].astype(float))
    # what used to be printed: the winner on the very images that chose it
    naive = correct[winner].mean() - correct[others].mean()
    half = 1.96 * correct[others].mean(axis=1).std(ddof=1) / np.sqrt(OTHERS)
    low, high = wilson(correct[winner].mean(), images)
    behind = behind_intervals(correct, chosen, folds)
    return {
        "gain": holds(gain, truth[winner] - mean),
        "own score": holds(cross_fitted_score(correct, chosen[:, 0], folds), truth[winner]),
        "behind": float(np.mean([holds(e, truth[winner] - truth[a]) for e, a in zip(behind, best[1:], strict=True)])),
        "gain, same images": abs(naive - (truth[winner] - mean)) <= half,
        "own score, same images": bool(low <= truth[winner] <= high),
    }


def behind_intervals(correct: NDArray[np.bool_], chosen: NDArray[np.int64], folds: NDArray[np.int8]) -> list[Estimate]:
    """How much the second to the last of the best are behind the first, by places."""
    return [cross_fitted_difference(correct, chosen[:, 0], chosen[:, place], folds) for place in range(1, TOP)]


def coverage(images: int, repeats: int) -> dict[str, float]:
    """Share of ``repeats`` searches whose intervals hold the truth."""
    runs = [simulate(images, seed) for seed in range(repeats)]
    return {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--num-images", type=int, nargs="+", default=[143, 575, 2000, 10000])
    asked = parser.parse_args()
    print(f"share of {asked.repeats} simulated searches whose 95 % interval holds the truth")
    for images in asked.num_images:
        shares = coverage(images, asked.repeats)
        print(f"{images:>7,} images  " + "  ".join(f"{key} {share:.1%}" for key, share in shares.items()), flush=True)


if __name__ == "__main__":
    main()
