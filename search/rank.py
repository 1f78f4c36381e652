"""``psvit-search rank``: do inherited scores predict what networks reach that are trained alone?

Draws architectures, scores them with inherited weights and trains each alone, both on the images that the supernet was
trained and scored on; then compares the two orders. The drawing and the statistics are pure; torch is not loaded before
a task starts.
"""

from __future__ import annotations

import json
import platform
import warnings
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import psvit
from psvit.arch import Architecture
from psvit.engine.config import Recipe
from psvit.run.files import write_text
from psvit.run.folder import RunFolder
from psvit.run.random import numpy_rng
from psvit.search.budget import Budget
from psvit.search.config import RankConfig
from psvit.search.history import History, Trial
from psvit.search.plots import draw_rank
from psvit.search.trust import CONFIDENCE, EQUAL_COST
from psvit.supernet.space import SearchSpace, Subspace
from psvit.units import Band, format_quantity

_PAIRS = ("inherited_top1", "inherited_loss", "standalone_top1", "standalone_loss")
COLUMNS = ("layers", "flops", "params", *_PAIRS, "seed", "epochs")
RESAMPLES = 9_999
_MOST_WARMUP = 0.2  # of the epochs

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankResult:
    """What ``rank`` found: its run folder, the table of ``rank.csv`` and :func:`correlations` of it."""

    folder: Path
    frame: pd.DataFrame
    figures: dict[str, Any]


# ---------------------------------------------------------------------------------------------------- drawing


def draw_by_cost(space: SearchSpace, budget: Budget, number: int, seed: int) -> list[Architecture]:
    """Architectures within a budget, spread over its costs, cheapest first.

    All that the budget allows, in the order of their FLOPs, are cut into ``number`` bands of equally many (to one), and
    one is drawn uniformly from each. So every architecture is as likely as every other, all are different, and none is
    drawn and thrown away.

    Raises:
        ValueError: nothing meets the budget, or fewer than ``number`` architectures do.
    """
    allowed = budget.feasible(space)
    if allowed.count < number:
        raise ValueError(
            f"only {allowed.count:,} architectures meet {budget}, fewer than the {number} asked for: use a wider "
            f"budget or archs={allowed.count}"
        )
    assert allowed.flops is not None
    low, high = allowed.flops.low, allowed.flops.high
    assert low is not None
    assert high is not None
    amounts = range(low, high + 1)

    def between(least: int, most: int) -> Subspace:
        return replace(budget, flops=Band(least, most)).within(space)

    rng = numpy_rng(seed, "rank draw")
    drawn = []
    for band in range(number):
        first, last = band * allowed.count // number, (band + 1) * allowed.count // number
        place = first + int(rng.integers(last - first))
        # its FLOPs are the least at which more than `place` architectures cost no more
        flops = amounts[bisect_right(amounts, place, key=lambda amount: between(low, amount).count)]
        cheaper = between(low, flops - 1).count if flops > low else 0
        drawn.append(between(flops, flops).unrank(place - cheaper))
    return drawn


def rank_budget(config: RankConfig) -> Budget:
    """The budget that the settings ask for: as it is written, or the band of all that cost the same.

    Raises:
        ValueError: an amount that cannot be read, or a band that is upside down.
    """
    flops, params = Band.parse(config.flops), Band.parse(config.params)
    if config.cost == "equal" and flops.low is None and flops.high is not None:
        flops = Band(round(flops.high * (1 - EQUAL_COST)), round(flops.high * (1 + EQUAL_COST)))
    return Budget(flops, params)


# ---------------------------------------------------------------------------------------------------- statistics


def correlations(frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """How well inherited scores predict networks trained alone, each figure with a bootstrap 95 % interval.

    Architectures are drawn anew with replacement 9,999 times, for all figures the same ones. Resamples in which a
    figure is undefined, since all values are equal, do not count for its interval. The intervals are of other
    architectures of the same kind; they leave out what other seeds and other images would change.

    Args:
        frame: a row an architecture: ``layers``, ``flops``, and top-1 and loss on the same images, inherited and alone:
            ``inherited_top1``, ``inherited_loss``, ``standalone_top1``, ``standalone_loss``. Rows with a NaN are left
            out.
        seed: of the resamples.

    Returns:
        Plain values. ``tau`` is Kendall's tau-b and ``rho`` Spearman's, between the inherited and the stand-alone
        top-1 (``top1``), between the two losses (``loss``), and between the inherited loss, its sign turned, and the
        stand-alone top-1 (``loss_to_top1``). ``regret`` is the best stand-alone top-1 less that of ``picked``, the one
        with the best inherited score; ``random_regret`` is the best less the mean: what picking blindly costs. Each
        has ``value``, ``low`` and ``high``, None where undefined.
    """
    whole = frame.dropna(subset=list(_PAIRS))
    # best first by inherited score as in a search: top-1, then loss, then FLOPs, then layers
    whole = whole.sort_values(
        ["inherited_top1", "inherited_loss", "flops", "layers"], ascending=[False, True, True, True]
    )
    inherited, loss = whole["inherited_top1"].to_numpy(float), whole["inherited_loss"].to_numpy(float)
    standalone, standalone_loss = whole["standalone_top1"].to_numpy(float), whole["standalone_loss"].to_numpy(float)
    places = np.arange(len(whole), dtype=float)

    def measure(statistic: Callable[..., Floats], x: Floats, y: Floats) -> dict[str, float | None]:
        return _with_interval(statistic, x, y, seed)

    pairs = {"top1": (inherited, standalone), "loss": (loss, standalone_loss), "loss_to_top1": (-loss, standalone)}
    best = whole.sort_values("standalone_top1", ascending=False, kind="stable")
    return {
        "networks": len(whole),
        "left_out": len(frame) - len(whole),
        **{
            name: {"tau": measure(kendall_tau, *pair), "rho": measure(spearman_rho, *pair)}
            for name, pair in pairs.items()
        },
        "regret": measure(regret, places, standalone),
        "random_regret": measure(random_regret, places, standalone),
        "picked": str(whole["layers"].iloc[0]) if len(whole) else None,
        "best": str(best["layers"].iloc[0]) if len(whole) else None,
        "interval": {
            "method": "percentile bootstrap over architectures",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": seed,
        },
    }


def kendall_tau(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Kendall's tau-b along the last axis; NaN where all of x or of y are equal.

    As ``scipy.stats.kendalltau``, which takes one pair at a time: for thousands of resamples that is seconds.
    """
    signs = [np.sign(values[..., :, None] - values[..., None, :]) for values in (x, y)]
    agreement, of_x, of_y = ((a * b).sum((-2, -1)) for a, b in ((signs[0], signs[1]), (signs[0],) * 2, (signs[1],) * 2))
    with np.errstate(invalid="ignore"):
        return np.asarray(agreement / np.sqrt(of_x * of_y))


def spearman_rho(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Spearman's rho along the last axis, as ``scipy.stats.spearmanr``; NaN where all of x or of y are equal."""
    from scipy.stats import rankdata

    a, b = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (x, y))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def regret(places: Floats, standalone: Floats, axis: int = -1) -> Floats:
    """The best along the last axis less the one whose place, from 0, is the first."""
    picked = np.take_along_axis(standalone, places.argmin(axis=-1, keepdims=True), axis=-1)
    return np.asarray(standalone.max(axis=-1) - picked[..., 0])


def random_regret(places: Floats, standalone: Floats, axis: int = -1) -> Floats:
    """The best along the last axis less the mean: the expected regret of picking one at random."""
    return np.asarray(standalone.max(axis=-1) - standalone.mean(axis=-1))


def _with_interval(statistic: Callable[..., Floats], x: Floats, y: Floats, seed: int) -> dict[str, float | None]:
    """A figure and the ends of its interval."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    if len(x) < 2:
        return {"value": None, "low": None, "high": None}
    value = float(statistic(x, y))
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # resamples without a figure: dropped below
        found = bootstrap(
            (x, y),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, 2_000_000 // len(x) ** 2),
            method="percentile",
            random_state=numpy_rng(seed, "rank bootstrap"),
        )
    drawn = found.bootstrap_distribution
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


# ---------------------------------------------------------------------------------------------------- the task


def rank(config: RankConfig) -> RankResult:
    """Compare inherited scores with networks trained alone, or go on where the run folder stands.

    Writes ``rank.csv`` (a row an architecture), ``rank.json`` (all figures and how they were made), ``rank.png`` and,
    in ``networks/LAYERS``, each training. The search split is held out of the trainings; the test split is not read.

    Raises:
        ValueError: no supernet, a budget that nothing meets, a folder that holds another run, or a training that fails.
        Stopped: Ctrl-C or SIGTERM came; all trainings have saved what they did.
    """
    from psvit.engine.device import pick_device
    from psvit.engine.distributed import Processes
    from psvit.search.run import open_search_data
    from psvit.search.standalone import Standalone, inherited_scores, train_all
    from psvit.supernet.checkpoint import TrainedSupernet

    if Processes.from_environment().world > 1:
        raise ValueError("rank starts processes of its own (jobs=...); start it without torchrun")
    trained = TrainedSupernet.open(Path(config.supernet))
    trained.check_placements(config.placements)
    space, budget, seed = trained.space, rank_budget(config), config.seed
    drawn = draw_by_cost(space, budget, config.archs, seed)
    recipe = shorten_warmup(config.recipe)
    data = open_search_data(trained, config.data_root, config.workers)
    device = pick_device(config.device)
    identity = {
        "supernet_sha256": trained.sha256,
        "space": asdict(space.spec) | {"cells": space.cells},
        "search_split": trained.search_split,
        "placements": config.placements,
        "seed": seed,
        "budget": budget.to_json(),
        "archs": config.archs,
    }
    first, last = (format_quantity(space.cost(architecture).flops) for architecture in (drawn[0], drawn[-1]))
    print(
        f"{len(drawn)} of the {budget.feasible(space).count:,} architectures of {space.label} within the budget, "
        f"{budget}: {first} to {last} FLOPs\n"
        f"each is trained alone on {data.size('train'):,} images of {data.config.name} for {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, learning rate {recipe.lr:g}, warm-up {recipe.warmup_epochs:g} epochs",
        flush=True,
    )
    with RunFolder(Path(config.out), asdict(config)) as run:
        history = History(run.path / "inherited.csv", identity)
        if len(history) < len(drawn):  # all of them, so that their bits are those of an unbroken run
            scores = inherited_scores(trained, data, drawn, device, config.placements, seed)
            costs = [space.cost(each) for each in drawn]
            trials = [
                Trial(each, cost.flops, cost.params, score.top1, score.loss, data.size("search"), generation=0)
                for each, cost, score in zip(drawn, costs, scores, strict=True)
            ]
            history.append(trials[len(history) :])
        networks = run.path / "networks"
        tasks = [
            Standalone(networks / str(each), space.spec, each, data.config, recipe, seed, str(device)) for each in drawn
        ]
        standalone = train_all(tasks[::-1], config.jobs)[::-1]
        how = identity | {
            "supernet": str(trained.path),
            "images": data.size("search"),
            "trained_on": data.size("train"),
            "recipe": asdict(recipe),
            "device": str(device),
            "versions": {"psvit-search": psvit.__version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")},
        }
        return _write_results(run.path, history.trials, standalone, how, space.label)


def shorten_warmup(recipe: Recipe) -> Recipe:
    """The recipe with a warm-up of at most a fifth of its epochs: that of few epochs would else not come to its end."""
    return replace(recipe, warmup_epochs=min(recipe.warmup_epochs, _MOST_WARMUP * recipe.epochs))


def _write_results(
    folder: Path, inherited: Sequence[Trial], standalone: Sequence[tuple[float, float]], how: dict[str, Any], label: str
) -> RankResult:
    seed, epochs = how["seed"], how["recipe"]["epochs"]
    rows = [
        (str(trial.architecture), trial.flops, trial.params, trial.top1, trial.loss, *score, seed, epochs)
        for trial, score in zip(inherited, standalone, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    figures = correlations(frame, seed)
    write_text(folder / "rank.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "rank.json", json.dumps({**figures, "how": how}, indent=2) + "\n")
    draw_rank(frame, figures, folder / "rank.png", label)
    print(summary(figures))
    print(f"wrote {folder / 'rank.csv'}, and rank.json and rank.png beside it")
    return RankResult(folder, frame, figures)


def summary(figures: dict[str, Any]) -> str:
    """The figures of :func:`correlations` in a few lines."""
    lines = [
        f"{what}: Kendall's tau {_figure_text(figures[key]['tau'])}, Spearman's rho {_figure_text(figures[key]['rho'])}"
        for key, what in (
            ("top1", "inherited top-1 and top-1 alone"),
            ("loss", "inherited loss and loss alone"),
            ("loss_to_top1", "inherited loss and top-1 alone"),
        )
    ]
    if figures["networks"]:
        note = "" if figures["picked"] == figures["best"] else f"; the best is {figures['best']}"
        lines.append(
            f"regret of picking by inherited score: {_figure_text(figures['regret'], 4)} of top-1 "
            f"({figures['picked']}{note})"
        )
        lines.append(f"regret of picking one at random: {_figure_text(figures['random_regret'], 4)}")
    if figures["left_out"]:
        lines.append(f"{figures['left_out']} left out, without a score that is a number")
    return "\n".join(lines)


def _figure_text(figure: dict[str, float | None], digits: int = 2) -> str:
    if figure["value"] is None:
        return "undefined (all equal)"
    return f"{figure['value']:.{digits}f} ({CONFIDENCE:.0%}: {figure['low']:.{digits}f} to {figure['high']:.{digits}f})"
