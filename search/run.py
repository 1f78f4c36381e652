"""``psvit-search evolve``, ``random``, ``nsga2`` and ``exhaustive``: search a trained supernet within a budget."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch

import psvit
from psvit.arch import Architecture, CellPath
from psvit.archfile import ArchFile, save_arch
from psvit.data.data import Data, open_data
from psvit.data.pixels import Pixels
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.scoring import Score
from psvit.run.files import write_text
from psvit.run.folder import RunFolder
from psvit.run.random import seed_of
from psvit.run.signals import Stopped, StopSignals
from psvit.search.budget import Budget
from psvit.search.config import SearchRunConfig
from psvit.search.evaluator import Evaluator, Outcomes
from psvit.search.exhaustive import Exhaustive
from psvit.search.front import pareto_front
from psvit.search.history import History, Trial
from psvit.search.loop import TOGETHER, run_search
from psvit.search.measure import latency_table
from psvit.search.plots import draw_progress, draw_scores
from psvit.search.racing import race
from psvit.search.random_search import RandomSearch
from psvit.search.report import report
from psvit.search.searchers import AUTO, SEARCHERS
from psvit.search.trust import EQUAL_COST, gain_over_random, top_table
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.units import Band, format_quantity, parse_quantity

_TOP = 20  # best architectures whose scores are compared closely
_NAMED = 10  # architectures without a score that are named


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


def search(config: SearchRunConfig) -> SearchResult | None:
    """Search, or go on where the run folder stands.

    Writes ``arch.json`` (the best), ``history.csv``, ``top.csv`` (the best 20, how sure their order is), ``front.csv``
    (what nothing beats at equal or lower cost), ``baseline_LAYERS.csv`` (random architectures of the winner's cost),
    ``result.json``, pictures and ``report.html``. With a larger ``search.trials`` a finished search goes on.

    Returns:
        What was found; None in a process that is not the main one.

    Raises:
        ValueError: no supernet, a budget that nothing meets, or a folder that holds another search.
        Stopped: Ctrl-C or SIGTERM came; what was scored is kept.
    """
    trained = TrainedSupernet.open(Path(config.supernet))
    processes = Processes.from_environment()
    device = pick_device(config.device, processes.local_rank)
    if config.search.searcher == AUTO:
        raise ValueError("search=auto is for psvit-search run; use exhaustive or evolve")
    if not config.search.budget.latency:
        Budget.parse(config.search.budget).feasible(trained.space)  # refused before anything is made
    data = open_search_data(trained, config.data_root, config.workers)
    with StopSignals() as signals, processes.group(device, asdict(config)):
        evaluator = make_evaluator(config, trained, data, device, processes)
        if not processes.main:
            evaluator.follow()
            return None
        with evaluator, RunFolder(Path(config.out), asdict(config)) as run:
            return _Search(config, trained, evaluator, signals, run.path, device)()


def open_search_data(trained: TrainedSupernet, root: str | None, workers: int) -> Data:
    """The data that a supernet was trained on, with the search split that was held out then.

    Args:
        root: where the images lie now, if they moved.

    Raises:
        ValueError: the images, and so the split, are not those of the training.
    """
    config = trained.data
    config.root = root or config.root
    config.workers = workers
    data = open_data(config)
    if data.split_record() != trained.search_split:
        raise ValueError(
            f"the search split of {config.name} in {config.root} is not the one that {trained.path} was trained "
            "beside: images were added, removed or renamed; give the folder of that time as data_root="
        )
    return data


def make_evaluator(
    config: SearchRunConfig, trained: TrainedSupernet, data: Data, device: torch.device, processes: Processes
) -> Evaluator:
    """The evaluator of a search.

    Raises:
        ValueError: fewer images are asked for than there are classes, or placements that the supernet does not know.
    """
    settings, spec = config.search, trained.space.spec
    trained.check_placements(settings.placements)
    if settings.images is not None and settings.images < spec.classes:
        raise ValueError(
            f"search.images is {settings.images}; {spec.classes} classes need {spec.classes} images at least"
        )
    return Evaluator(
        trained.load().to(device),
        trained.space,
        Pixels(data, "search", spec.image_size, settings.images, trained.data.split_seed, Path(config.out)),
        device,
        batch_size=settings.batch_size,
        memory=None if settings.memory is None else parse_quantity(settings.memory),
        placements=settings.placements,
        seed=config.seed,
        precision=settings.precision,
        compiled=device.type == "cuda" if settings.compile is None else settings.compile,
        processes=processes,
    )


class _Search:
    """A search in its run folder, in the main process."""

    def __init__(
        self,
        config: SearchRunConfig,
        trained: TrainedSupernet,
        evaluator: Evaluator,
        signals: StopSignals,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.config, self.settings, self.folder = config, config.search, folder
        self.trained, self.space = trained, trained.space
        self.evaluator, self.signals = evaluator, signals
        table = (
            latency_table(self.settings.latency, self.space, device, folder) if self.settings.budget.latency else None
        )
        self.budget = Budget.parse(self.settings.budget, table)
        self.allowed = self.budget.feasible(self.space)
        self.identity: dict[str, Any] = {
            "supernet_sha256": trained.sha256,
            "space": asdict(self.space.spec) | {"cells": self.space.cells},
            "search_split": trained.search_split,
            "images": evaluator.images,
            "placements": self.settings.placements,
            "seed": config.seed,
        }
        self.failed = 0

    def __call__(self) -> SearchResult:
        print(f"{self.allowed.count:,} of {self.space.architectures:,} architectures meet the budget: {self.budget}")
        if note := self.budget.note(self.space):
            print(f"note: {note}")
        history = History(
            self.folder / "history.csv",
            self.identity | {"budget": self.budget.to_json(), "searcher": self.settings.searcher},
        )
        if self.settings.race:
            self._race(history)
        else:
            self._ask_and_tell(history)
        best = history.best()
        if best is None:
            raise ValueError(f"none of {len(history)} architectures has a finite score; train the supernet anew")
        return self._conclude(history, best, self._score_baseline(history, best))

    # ------------------------------------------------------------------------------------------------ scoring

    def outcomes(self, architectures: Sequence[Architecture], images: range) -> Outcomes:
        """Score, unless the run is asked to stop; architectures whose logits are not finite are named."""
        if self.signals.requested:
            raise Stopped(f"stopped; what was scored is saved in {self.folder}, and the same command goes on")
        outcomes = self.evaluator.outcomes(architectures, images)
        for architecture, score in zip(architectures, outcomes.scores(), strict=True):
            if math.isnan(score.loss):
                self.failed += 1
                if self.failed <= _NAMED:
                    print(f"note: {architecture} has no score: its logits are not finite")
        return outcomes

    def score(self, architectures: Sequence[Architecture]) -> list[Score]:
        """Top-1 and loss of each on all images."""
        return self.outcomes(architectures, range(self.evaluator.images)).scores()

    def _ask_and_tell(self, history: History) -> None:
        exhaustive = self.settings.searcher == "exhaustive"
        run_search(
            SEARCHERS[self.settings.searcher].make(self.settings, self.allowed, self.config.seed, self.budget),
            self.score,
            self.space,
            history,
            self.evaluator.images,
            self.allowed.count if exhaustive else self.settings.trials,
            TOGETHER if exhaustive else self.settings.population,
        )

    def _race(self, history: History) -> None:
        """Race all; what becomes of each is recorded when the race is over."""
        architectures = Exhaustive(self.allowed).ask(self.allowed.count)
        raced = race(
            self.outcomes,
            self.evaluator.flops,
            architectures,
            self.evaluator.images,
            self.settings.race_keep,
            self.settings.confidence,
            self.folder,
            self.identity | {"budget": self.budget.to_json()},
        )
        write_text(self.folder / "race.json", json.dumps(raced.report, indent=2) + "\n")
        if len(history):
            return
        columns = (raced.top1, raced.loss, raced.images, raced.round)
        history.append(
            [
                Trial(architecture, *astuple(self.space.cost(architecture)), *scored)
                for architecture, *scored in zip(architectures, *(column.tolist() for column in columns), strict=True)
            ]
        )

    def _score_baseline(self, history: History, best: Trial) -> History:
        """Random architectures of the winner's cost: what picking one blindly would have given."""
        lowest, highest = (round(best.flops * (1 + sign * EQUAL_COST)) for sign in (-1, 1))
        baseline = History(
            self.folder / f"baseline_{best.architecture}.csv", self.identity | {"equal_to": str(best.architecture)}
        )
        searcher = RandomSearch(self.space.within(flops=Band(lowest, highest)), seed_of(self.config.seed, "baseline"))
        searcher.tell([best])
        known = {t.architecture: Score(t.top1, t.loss) for t in history.trials if t.images == best.images}

        def score_unknown(architectures: list[Architecture]) -> list[Score]:
            unknown = [architecture for architecture in architectures if architecture not in known]
            known.update(zip(unknown, self.score(unknown) if unknown else [], strict=True))
            return [known[architecture] for architecture in architectures]

        settings = self.settings
        run_search(searcher, score_unknown, self.space, baseline, best.images, settings.baseline, settings.population)
        return baseline

    # ------------------------------------------------------------------------------------------------ results

    def _conclude(self, history: History, best: Trial, baseline: History) -> SearchResult:
        """Write and say what was found, and how sure that is."""
        folder, spec, budget = self.folder, self.space.spec, self.budget
        frame = history.frame()
        gain = gain_over_random(best, baseline.trials)
        top = sorted(
            (trial for trial in history.trials if trial.images == best.images), key=lambda trial: trial.sort_key
        )
        top = [trial for trial in top[:_TOP] if not trial.failed]
        outcomes = self.outcomes([trial.architecture for trial in top], range(self.evaluator.images))
        table = top_table(top, outcomes.correct, outcomes.loss, self.config.seed)
        write_text(folder / "top.csv", table.to_csv(index=False))
        write_text(folder / "front.csv", pareto_front(frame, ("flops", "params")).to_csv(index=False))

        provenance = {
            "score": {"top1": best.top1, "loss": best.loss},
            "path": str(CellPath.canonical(best.architecture, self.space.cells)),
            "search_split": self.trained.search_split,
            "budget": budget.to_json(),
            "seed": self.config.seed,
            "searcher": self.settings.searcher,
            "scored": len(history),
            "supernet_sha256": self.trained.sha256,
            "tool": f"psvit-search {psvit.__version__}",
        }
        arch = folder / "arch.json"
        save_arch(arch, ArchFile(spec, best.architecture, provenance))
        result = provenance | {"layers": str(best.architecture), "flops": best.flops, "params": best.params}
        result |= {"images": best.images, "failed": int(frame["loss"].isna().sum())}
        result |= {"comparison": str(gain), "gain": asdict(gain)}
        write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")

        exhaustive = self.settings.searcher == "exhaustive"
        colours = None if exhaustive else "generation"
        if self.settings.race:
            colours = "last round of the race"
        winner, others = str(best.architecture), baseline.frame()
        draw_scores(frame, folder / "scores.png", budget.flops, winner, spec.name, others, colours)
        if not exhaustive:
            draw_progress({self.settings.searcher: frame}, folder / "progress.png")
        draw_architecture(spec, best.architecture, folder / "architecture.png", f"{spec.name}: best within {budget}")
        page = report(folder)
        print(
            f"best of {len(history):,} scored: {best.architecture}, {format_quantity(best.flops)} FLOPs, "
            f"{format_quantity(best.params)} parameters, inherited top-1 {best.top1:.4f}, loss {best.loss:.4f}"
        )
        print(gain)
        print(f"wrote {arch}, and {page.name}, history.csv, top.csv, front.csv and pictures beside it")
        return SearchResult(folder, arch, best, str(gain))
