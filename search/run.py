"""``psvit-search evolve`` and ``random``: search a trained supernet within a budget, and write what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psvit
from psvit.arch import Architecture, CellPath
from psvit.archfile import ArchFile, save_arch
from psvit.cost import Band, format_quantity
from psvit.data.data import open_data
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.random import seed_of
from psvit.engine.run_folder import RunFolder
from psvit.engine.scoring import Score
from psvit.engine.signals import Stopped, StopSignals
from psvit.files import write_text
from search.budget import Budget
from search.config import SearchConfig, SearchRunConfig
from search.evaluator import Evaluator
from search.evolution import Evolution
from search.history import History, Trial
from search.loop import run_search
from search.pictures import draw_progress, draw_scores
from search.random_search import RandomSearch
from search.searcher import Searcher
from supernet.checkpoint import TrainedSupernet
from supernet.space import SearchSpace, Subspace

EQUAL_COST = 0.02  # architectures whose FLOPs differ by at most this share are called of equal cost


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        folder: the run folder.
        arch: the winner's arch.json.
        best: the winner.
        comparison: the winner among random architectures of equal cost, in a sentence.
    """

    folder: Path
    arch: Path
    best: Trial
    comparison: str


def search(config: SearchRunConfig) -> SearchResult:
    """Search, or go on where the run folder stands.

    Writes ``arch.json`` (the best), ``history.csv``, ``baseline_LAYERS.csv`` (random architectures of the winner's
    cost), ``result.json`` and pictures. With a larger ``search.trials`` a finished search goes on.

    Raises:
        ValueError: no supernet, a budget that nothing meets, or a folder that holds another search.
        Stopped: Ctrl-C or SIGTERM came; what was scored is kept.
    """
    if Processes.from_environment().world > 1:
        raise ValueError("a search runs in one process; start it without torchrun")
    trained = TrainedSupernet.open(Path(config.supernet))
    space, settings = trained.space, config.search
    budget = Budget.parse(settings.budget)
    allowed = budget.feasible(space)
    print(f"{allowed.count:,} of {space.architectures:,} architectures meet the budget: {budget}")
    if note := budget.note(space):
        print(f"note: {note}")

    data_config = trained.data
    data_config.root = config.data_root or data_config.root
    data_config.workers = config.workers
    data = open_data(data_config)
    if data.split_record() != trained.search_split:
        raise ValueError(
            f"the search split of {data_config.name} in {data_config.root} is not the one that {trained.path} was "
            "trained beside: images were added, removed or renamed; give the folder of that time as data_root="
        )
    identity = {
        "supernet_sha256": trained.sha256,
        "space": asdict(space.spec) | {"cells": space.cells},
        "search_split": trained.search_split,
        "placements": settings.placements,
        "seed": config.seed,
    }
    device = pick_device(config.device)
    with RunFolder(Path(config.out), asdict(config)) as run, StopSignals() as signals:
        evaluator = Evaluator(
            trained.load().to(device), space, data, device, settings.batch_size, settings.placements, config.seed
        )
        score = _stoppable(evaluator, signals, run.path)
        history = History(
            run.path / "history.csv", identity | {"budget": budget.to_json(), "searcher": settings.searcher}
        )
        searcher = make_searcher(settings, allowed, config.seed)
        run_search(searcher, score, space, history, data.size("search"), settings.trials, settings.population)
        best = history.best()
        if best is None:
            raise ValueError(f"none of {len(history)} architectures has a finite score; train the supernet anew")
        baseline = _score_baseline(run.path, best, history, score, space, settings, config.seed, identity)
        return _write_results(run.path, config, trained, budget, history, best, baseline)


def make_searcher(settings: SearchConfig, allowed: Subspace, seed: int) -> Searcher:
    """The searcher that the settings name."""
    if settings.searcher == "random":
        return RandomSearch(allowed, seed)
    return Evolution(allowed, seed, settings.population, settings.parents, settings.mutation)


def _stoppable(evaluator: Evaluator, signals: StopSignals, folder: Path) -> Callable[[list[Architecture]], list[Any]]:
    def score(architectures: list[Architecture]) -> list[Score]:
        if signals.requested:
            raise Stopped(f"stopped; what was scored is saved in {folder}, and the same command goes on")
        return evaluator(architectures)

    return score


def _score_baseline(
    folder: Path,
    best: Trial,
    history: History,
    score: Callable[[list[Architecture]], list[Any]],
    space: SearchSpace,
    settings: SearchConfig,
    seed: int,
    identity: dict[str, Any],
) -> History:
    """Random architectures of the winner's cost: what picking one blindly would have given."""
    equal = space.within(flops=Band(round(best.flops * (1 - EQUAL_COST)), round(best.flops * (1 + EQUAL_COST))))
    baseline = History(folder / f"baseline_{best.architecture}.csv", identity | {"equal_to": str(best.architecture)})
    searcher = RandomSearch(equal, seed_of(seed, "baseline"))
    searcher.tell([best])
    known = {trial.architecture: (trial.top1, trial.loss) for trial in history.trials}

    def score_unknown(architectures: list[Architecture]) -> list[tuple[float, float]]:
        unknown = [architecture for architecture in architectures if architecture not in known]
        known.update(zip(unknown, score(unknown) if unknown else [], strict=True))
        return [known[architecture] for architecture in architectures]

    run_search(searcher, score_unknown, space, baseline, best.images, settings.baseline, settings.population)
    return baseline


def compare(best: Trial, baseline: History) -> str:
    """The winner's place among random architectures of equal cost, in a sentence."""
    others = [trial for trial in baseline.trials if not trial.failed]
    if not others:
        return "no other architecture of equal cost was scored"
    place = 1 + sum(trial.merit < best.merit for trial in others)
    mean = sum(trial.top1 for trial in others) / len(others)
    return (
        f"place {place} among {len(others)} random architectures of equal cost (within {EQUAL_COST:.0%}), "
        f"whose mean top-1 is {mean:.4f} and best {max(trial.top1 for trial in others):.4f}"
    )


def _write_results(
    folder: Path,
    config: SearchRunConfig,
    trained: TrainedSupernet,
    budget: Budget,
    history: History,
    best: Trial,
    baseline: History,
) -> SearchResult:
    space, settings = trained.space, config.search
    comparison = compare(best, baseline)
    origin = {
        "score": {"top1": best.top1, "loss": best.loss},
        "path": str(CellPath.canonical(best.architecture, space.cells)),
        "search_split": trained.search_split,
        "budget": budget.to_json(),
        "seed": config.seed,
        "searcher": settings.searcher,
        "scored": len(history),
        "supernet_sha256": trained.sha256,
        "tool": f"psvit-search {psvit.__version__}",
    }
    arch = folder / "arch.json"
    save_arch(arch, ArchFile(space.spec, best.architecture, origin))
    result = origin | {"layers": str(best.architecture), "flops": best.flops, "params": best.params}
    result |= {"comparison": comparison}
    write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
    name = space.spec.name
    draw_scores(history.frame(), folder / "scores.png", budget.flops, str(best.architecture), name, baseline.frame())
    draw_progress({settings.searcher: history.frame()}, folder / "progress.png")
    draw_architecture(space.spec, best.architecture, folder / "architecture.png", f"{name}: best within {budget}")
    print(
        f"best of {len(history):,} scored: {best.architecture}, {format_quantity(best.flops)} FLOPs, "
        f"{format_quantity(best.params)} parameters, inherited top-1 {best.top1:.4f}, loss {best.loss:.4f}"
    )
    print(comparison)
    print(f"wrote {arch}, and history.csv, scores.png, progress.png and architecture.png beside it")
    return SearchResult(folder, arch, best, comparison)
