"""``psvit-search rank``: do inherited scores predict what networks reach that are trained alone?

Draws architectures, scores them with inherited weights and trains each alone, both on the images that the supernet was
trained and scored on; then compares the two orders (``search/correlation.py``). The drawing is pure; torch is not
loaded before a task starts.
"""

from __future__ import annotations

import platform
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import psvit
from psvit.arch import Architecture
from psvit.engine.config import Recipe
from psvit.run.folder import RunFolder
from psvit.run.random import numpy_rng
from psvit.search.budget import Budget
from psvit.search.claims import EQUAL_COST
from psvit.search.config import RankConfig
from psvit.search.correlation import Correlations, correlations
from psvit.search.history import History, HistoryRecord
from psvit.search.plots import draw_rank
from psvit.search.records import RankRecord
from psvit.search.tables import RANK
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace, Subspace
from psvit.units import Band, format_quantity

if TYPE_CHECKING:
    import torch

    from psvit.data.data import Data
    from psvit.engine.scoring import Score
    from psvit.supernet.checkpoint import TrainedSupernet

_MOST_WARMUP = 0.2  # of the epochs


@dataclass(frozen=True)
class RankResult:
    """What ``rank`` found: its run folder, the table of ``rank.csv`` and the correlations in it."""

    folder: Path
    frame: pd.DataFrame
    figures: Correlations


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


# ---------------------------------------------------------------------------------------------------- the task


def rank(config: RankConfig) -> RankResult:
    """Compare inherited scores with networks trained alone, or resume where the run folder stands.

    Writes ``rank.csv`` (one row per architecture), ``rank.json`` (all figures and how they were made), ``rank.png``
    and, in ``networks/LAYERS``, each training. The search split is held out of the trainings; the test split is not
    read.

    Raises:
        ValueError: no supernet, a budget that nothing meets, a folder that holds another run, or a training that fails.
        Stopped: Ctrl-C or SIGTERM came; all trainings have saved what they did.
    """
    from psvit.engine.device import pick_device
    from psvit.engine.distributed import Processes
    from psvit.supernet.checkpoint import TrainedSupernet

    if Processes.from_environment().world > 1:
        raise ValueError("rank starts processes of its own (jobs=...); start it without torchrun")
    trained = TrainedSupernet.open(Path(config.supernet))
    trained.check_placements(config.placements)
    budget = rank_budget(config)
    drawn = draw_by_cost(trained.space, budget, config.archs, config.seed)
    data = trained.open_data(config.data_root, config.workers)
    device = pick_device(config.device)
    record = HistoryRecord(
        rank_by="loss",
        supernet_sha256=trained.sha256(),
        space=trained.space,
        search_split=trained.search_split,
        num_images=data.size("search"),
        placements=config.placements,
        seed=config.seed,
        searcher="rank",
        budget=budget,
    )
    settings, config = asdict(config), replace(config, recipe=shorten_warmup(config.recipe))
    print(_announcement(config, record, drawn, data), flush=True)
    with RunFolder(Path(config.out), settings) as run:
        inherited = _score_inherited(run.path, trained, data, drawn, device, record)
        standalone = _train_standalone(run.path, config, trained, data, drawn, device)
        frame = _join(inherited, standalone, config)
        figures = correlations(frame, config.seed)
        RANK.write(run.path / "rank.csv", frame)
        RankRecord(
            correlations=figures,
            inherited=record,
            supernet=str(trained.path),
            num_train_images=data.size("train"),
            recipe=asdict(config.recipe),
            device=str(device),
            versions={"psvit-search": psvit.__version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")},
        ).save(run.path / "rank.json")
        draw_rank(frame, figures, run.path / "rank.png", trained.space.label)
        print(figures)
        print(f"wrote {run.path / 'rank.csv'}, and rank.json and rank.png beside it")
        return RankResult(run.path, frame, figures)


def shorten_warmup(recipe: Recipe) -> Recipe:
    """The recipe with a warm-up of at most a fifth of its epochs: that of few epochs would else not come to its end."""
    return replace(recipe, warmup_epochs=min(recipe.warmup_epochs, _MOST_WARMUP * recipe.epochs))


def _announcement(config: RankConfig, record: HistoryRecord, drawn: Sequence[Architecture], data: Data) -> str:
    """What is about to be compared, and how each network is trained."""
    space, budget, recipe = record.space, record.budget, config.recipe
    first, last = (format_quantity(space.cost(architecture).flops) for architecture in (drawn[0], drawn[-1]))
    return (
        f"{len(drawn)} of the {budget.feasible(space).count:,} architectures of {space.label} within the budget, "
        f"{budget}: {first} to {last} FLOPs\n"
        f"each is trained alone on {data.size('train'):,} images of {data.config.name} for {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, learning rate {recipe.lr:g}, warm-up {recipe.warmup_epochs:g} epochs"
    )


def _score_inherited(
    folder: Path,
    trained: TrainedSupernet,
    data: Data,
    drawn: Sequence[Architecture],
    device: torch.device,
    record: HistoryRecord,
) -> list[Trial]:
    """The inherited score of each, kept in ``inherited.csv``."""
    from psvit.search.standalone import inherited_scores

    history = History(folder / "inherited.csv", record)
    if len(history) < len(drawn):  # all of them, so that their bits are those of an unbroken run
        scores = inherited_scores(trained, data, drawn, device, record.placements, record.seed)
        costs = [record.space.cost(each) for each in drawn]
        trials = [
            Trial(each, cost.flops, cost.params, score.top1, score.loss, record.num_images, generation=0)
            for each, cost, score in zip(drawn, costs, scores, strict=True)
        ]
        history.append(trials[len(history) :])
    return history.trials


def _train_standalone(
    folder: Path,
    config: RankConfig,
    trained: TrainedSupernet,
    data: Data,
    drawn: Sequence[Architecture],
    device: torch.device,
) -> list[Score]:
    """The score of each when it is trained alone, in ``networks/LAYERS``."""
    from psvit.search.standalone import Standalone, train_all

    networks, spec = folder / "networks", trained.space.spec
    tasks = [
        Standalone(networks / str(each), spec, each, data.config, config.recipe, config.seed, str(device))
        for each in drawn
    ]
    return train_all(tasks[::-1], config.jobs)[::-1]  # the most expensive first


def _join(inherited: Sequence[Trial], standalone: Sequence[Score], config: RankConfig) -> pd.DataFrame:
    """The table of ``rank.csv``."""
    ends = (config.seed, config.recipe.epochs)
    rows = [
        (str(trial.architecture), trial.flops, trial.params, trial.top1, trial.loss, *score, *ends)
        for trial, score in zip(inherited, standalone, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(RANK.columns))
