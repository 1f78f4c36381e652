"""How far from the best that the supernet knows do searches end that score only some?

    python -m benchmarks.search_regret --history runs/default/exhaustive/history.csv [--flops 5M] [--seeds 10]
        [--rank-by top1] [--picture regret.png]

Reads the scores of an exhaustive search, and lets evolution, NSGA-II and random search ask for them. Regret is the
distance of the best found so far to the best within the budget, in loss or points of top-1 and in places.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from psvit.arch import Architecture
from psvit.figures import BLUE, GREEN, VERMILLION, save_figure
from psvit.search.evolution import Evolution
from psvit.search.nsga2 import Nsga2
from psvit.search.pick import read_scored
from psvit.search.random_search import RandomSearch
from psvit.search.searcher import Searcher
from psvit.search.trial import Trial
from psvit.supernet.space import Subspace
from psvit.units import Band

Floats = npt.NDArray[np.float64]
MAKERS: dict[str, Callable[[Subspace, int, str], Searcher]] = {
    "evolution": lambda allowed, seed, rank_by: Evolution(allowed, seed, rank_by=rank_by),
    "nsga2": lambda allowed, seed, rank_by: Nsga2(allowed, seed, rank_by=rank_by),
    "random": lambda allowed, seed, rank_by: RandomSearch(allowed, seed),
}
POPULATION = 50


def places_by_number(searcher: Searcher, place: dict[str, int], trial: dict[str, Trial], trials: int) -> Floats:
    """Place, from 0, of the best after each scored architecture."""
    found: list[int] = []
    while len(found) < trials:
        asked = searcher.ask(min(POPULATION, trials - len(found)))
        searcher.tell([trial[str(architecture)] for architecture in asked])
        found += [place[str(architecture)] for architecture in asked]
    return np.minimum.accumulate(np.array(found, dtype=float))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--flops", default="5M")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rank-by", choices=["loss", "top1"], default="loss")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()

    scored = read_scored(arguments.history.parent)
    allowed = scored.space.within(Band.parse(arguments.flops))
    by_loss = arguments.rank_by == "loss"
    keys = [*(("loss", "top1") if by_loss else ("top1", "loss")), "flops", "layers"]
    frame = scored.frame[scored.frame["flops"].le(allowed.flops.high)].sort_values(  # type: ignore[union-attr]
        keys, ascending=[key != "top1" for key in keys]
    )
    assert len(frame) == allowed.count, f"{len(frame)} of {allowed.count} within the budget were scored"
    place = {layers: number for number, layers in enumerate(frame["layers"])}
    score = -frame["loss"].to_numpy() if by_loss else 100 * frame["top1"].to_numpy()
    trial = {
        row.layers: Trial(Architecture.parse(row.layers), row.flops, row.params, row.top1, row.loss, row.num_images, 0)
        for row in frame.itertuples()
    }
    best = frame.iloc[0]
    print(
        f"{len(frame):,} architectures of {scored.space.label} within {arguments.flops}, {best['num_images']} images; "
        f"the best is {best['layers']}, top-1 {best['top1']:.4f}, loss {best['loss']:.4f}; "
        f"mean top-1 {frame['top1'].mean():.4f}, loss {frame['loss'].mean():.4f}"
    )
    regret_in = f"regret in {'loss' if by_loss else 'points'}"
    print(f"{'scored':>7}  {'searcher':<10} {regret_in:>17} {'place, mean':>12} {'worst':>6} {'best found':>11}")
    curves = {
        name: np.array(
            [
                places_by_number(make(allowed, seed, arguments.rank_by), place, trial, arguments.trials)
                for seed in range(arguments.seeds)
            ]
        )
        for name, make in MAKERS.items()
    }
    for number in (n for n in (50, 100, 200, 300, 500, 1000, 2000) if n <= arguments.trials):
        for name, places in curves.items():
            after = places[:, number - 1].astype(int)
            regret = score[0] - score[after]
            print(
                f"{number:>7}  {name:<10} {regret.mean():>17.4f} {after.mean() + 1:>12.1f} {after.max() + 1:>6} "
                f"{(after == 0).sum():>5} of {arguments.seeds}"
            )
    if arguments.picture:
        draw(curves, arguments.picture, f"{scored.space.label} within {arguments.flops}: {len(frame):,} architectures")


def draw(curves: dict[str, Floats], path: Path, title: str) -> None:
    """Place of the best found, by the number scored: the mean over seeds, and from the best seed to the worst."""
    figure = Figure(figsize=(7.5, 5), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    ax = figure.add_subplot()
    for (name, places), colour in zip(curves.items(), (BLUE, GREEN, VERMILLION), strict=True):
        numbers = np.arange(1, places.shape[1] + 1)
        ax.fill_between(numbers, places.min(axis=0) + 1, places.max(axis=0) + 1, color=colour, alpha=0.15, linewidth=0)
        ax.plot(numbers, places.mean(axis=0) + 1, color=colour, linewidth=2, label=f"{name}, {len(places)} seeds")
    ax.axhline(1, color="#555555", linestyle="--", linewidth=1.2, label="exhaustive search: the best")
    ax.set(
        xscale="log", yscale="log", xlabel="architectures scored", ylabel="place of the best found so far, among all"
    )
    ax.set_title(title, loc="left")
    ax.set_xlim(10, max(places.shape[1] for places in curves.values()))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    ax.grid(color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
