"""``psvit-search rank``: do inherited scores predict what networks reach that are trained alone?

Takes architectures (``search/candidates.py``), scores them with inherited weights and trains each alone with several
seeds, both on the images that the supernet was trained and scored on; then compares the two orders
(``search/correlation.py``). The trainings of another ranking, or of a table, serve again (``against``). Torch is not
loaded before a task starts.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import psvit
from psvit.arch import Architecture
from psvit.engine.config import Recipe
from psvit.run.folder import RunFolder
from psvit.search.candidates import candidates, check_number, rank_budget
from psvit.search.config import RankConfig
from psvit.search.correlation import Correlations, correlations, network_means
from psvit.search.history import History, HistoryRecord
from psvit.search.plots import draw_rank
from psvit.search.records import RankRecord, StandaloneTable
from psvit.search.tables import RANK, STANDALONE
from psvit.search.trial import Trial
from psvit.units import format_quantity

if TYPE_CHECKING:
    import torch

    from psvit.data.data import Data
    from psvit.supernet.checkpoint import TrainedSupernet

_MOST_WARMUP = 0.2  # of the epochs


@dataclass(frozen=True)
class RankResult:
    """What ``rank`` found: its run folder, the tables of ``rank.csv`` and ``standalone.csv``, and the correlations."""

    folder: Path
    frame: pd.DataFrame
    standalone: pd.DataFrame
    figures: Correlations


def rank(config: RankConfig) -> RankResult:
    """Compare inherited scores with networks trained alone, or resume where the run folder stands.

    Writes ``standalone.csv`` (one row per training; ``standalone.json`` says of what), ``rank.csv`` (one row per
    architecture), ``rank.json`` (all figures and how they were made), ``rank.png`` and, in ``networks/LAYERS-seedN``,
    each training. The search split is held out of the trainings; the test split is not read.

    Raises:
        ValueError: no supernet, a budget that nothing meets, a table of other networks or images, a folder that holds
            another run, or a training that fails.
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
    data = trained.open_data(config.data_root, config.workers)
    known = read_against(Path(config.against), config, trained) if config.against else None
    ranked = candidates(config, trained.space) if known is None else _listed(known, config, trained)
    device = pick_device(config.device)
    record = HistoryRecord(
        rank_by=config.rank_by,
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
    print(_announcement(config, record, ranked, data), flush=True)
    with RunFolder(Path(config.out), settings) as run:
        inherited = _score_inherited(run.path, trained, data, ranked, device, record)
        standalone = _train_standalone(run.path, config, trained, data, ranked, device) if known is None else known
        frame = _join(inherited, standalone)
        figures = correlations(frame, standalone, config.seed, config.rank_by)
        RANK.write(run.path / "rank.csv", frame)
        RankRecord(
            correlations=figures,
            inherited=record,
            supernet=str(trained.path),
            against=config.against,
            num_train_images=data.size("train"),
            recipe=asdict(config.recipe),
            device=str(device),
            versions={"psvit-search": psvit.__version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")},
        ).save(run.path / "rank.json")
        draw_rank(frame, figures, run.path / "rank.png", trained.space.label)
        print(figures)
        print(f"wrote {run.path / 'rank.csv'}, and rank.json and rank.png beside it")
        return RankResult(run.path, frame, standalone, figures)


def shorten_warmup(recipe: Recipe) -> Recipe:
    """The recipe with a warm-up of at most a fifth of its epochs: that of few epochs would else not come to its end."""
    return replace(recipe, warmup_epochs=min(recipe.warmup_epochs, _MOST_WARMUP * recipe.epochs))


def read_against(path: Path, config: RankConfig, trained: TrainedSupernet) -> pd.DataFrame:
    """The trainings of a table that the budget allows, if they are of the supernet's networks and images.

    Raises:
        ValueError: no such table, or one of other networks or images.
    """
    frame, of = STANDALONE.read(path), StandaloneTable.load(path.with_suffix(".json"))
    if differs := of.differs(trained.space, trained.record):
        raise ValueError(f"{path} is no table for {trained.path}: {differs}")
    within = rank_budget(config).feasible(trained.space)
    return frame[[Architecture.parse(layers) in within for layers in frame["layers"]]].reset_index(drop=True)


def _listed(table: pd.DataFrame, config: RankConfig, trained: TrainedSupernet) -> list[Architecture]:
    """The architectures of a table, cheapest first."""
    layers = table.drop_duplicates("layers").sort_values(["flops", "layers"])["layers"]
    architectures = check_number([Architecture.parse(each) for each in layers])
    for architecture in architectures:
        trained.space.check(architecture)
    return architectures


def _announcement(config: RankConfig, record: HistoryRecord, ranked: Sequence[Architecture], data: Data) -> str:
    """What is about to be compared, and how each network is trained."""
    space, budget, recipe = record.space, record.budget, config.recipe
    first, last = (format_quantity(space.cost(architecture).flops) for architecture in (ranked[0], ranked[-1]))
    what = (
        f"{len(ranked)} of the {budget.feasible(space).count:,} architectures of {space.label} within the budget, "
        f"{budget}: {first} to {last} FLOPs"
    )
    if config.against:
        return f"{what}\ntheir trainings are those of {config.against}"
    return (
        f"{what}\neach is trained alone with {config.seeds} seeds on {data.size('train'):,} images of "
        f"{data.config.name} for {recipe.epochs} epochs, batch {recipe.batch_size}, learning rate {recipe.lr:g}, "
        f"warm-up {recipe.warmup_epochs:g} epochs"
    )


def _score_inherited(
    folder: Path,
    trained: TrainedSupernet,
    data: Data,
    ranked: Sequence[Architecture],
    device: torch.device,
    record: HistoryRecord,
) -> list[Trial]:
    """The inherited score of each, kept in ``inherited.csv``."""
    from psvit.search.standalone import inherited_scores

    history = History(folder / "inherited.csv", record)
    if len(history) < len(ranked):  # all of them, so that their bits are those of an unbroken run
        scores = inherited_scores(trained, data, ranked, device, record.placements, record.seed)
        costs = [record.space.cost(each) for each in ranked]
        trials = [
            Trial(each, cost.flops, cost.params, score.top1, score.loss, record.num_images, generation=0)
            for each, cost, score in zip(ranked, costs, scores, strict=True)
        ]
        history.append(trials[len(history) :])
    return history.trials


def _train_standalone(
    folder: Path,
    config: RankConfig,
    trained: TrainedSupernet,
    data: Data,
    ranked: Sequence[Architecture],
    device: torch.device,
) -> pd.DataFrame:
    """Train each alone with each seed, in ``networks/LAYERS-seedN``: the table that ``standalone.csv`` holds then."""
    from psvit.search.standalone import Standalone, train_all

    networks, space = folder / "networks", trained.space
    tasks = [
        Standalone(networks / f"{each}-seed{seed}", space.spec, each, data.config, config.recipe, seed, str(device))
        for each in ranked
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    scores = train_all(tasks[::-1], config.jobs)[::-1]  # the most expensive first
    rows = [
        (str(task.architecture), *astuple(space.cost(task.architecture)), task.seed, task.recipe.epochs, *score)
        for task, score in zip(tasks, scores, strict=True)
    ]
    table = pd.DataFrame(rows, columns=list(STANDALONE.columns))
    STANDALONE.write(folder / "standalone.csv", table)
    StandaloneTable(space, trained.record, "search", asdict(config.recipe)).save(folder / "standalone.json")
    return table


def _join(inherited: Sequence[Trial], standalone: pd.DataFrame) -> pd.DataFrame:
    """The table of ``rank.csv``: inherited scores, and the means of the networks' seeds."""
    top1, loss = (network_means(standalone, score) for score in ("top1", "loss"))
    counts = standalone.groupby("layers").size()
    rows = [
        (layers, trial.flops, trial.params, trial.top1, trial.loss, top1[layers], loss[layers], counts[layers])
        for trial in inherited
        for layers in [str(trial.architecture)]
    ]
    return pd.DataFrame(rows, columns=list(RANK.columns))
