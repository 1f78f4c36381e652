"""``psvit-search evolve``, ``random``, ``nsga2`` and ``exhaustive``: search a trained supernet within a budget."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import psvit
from psvit.arch import Architecture, CellPath
from psvit.archfile import ArchFile, save_arch
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.run.folder import RunFolder
from psvit.run.random import seed_of
from psvit.run.signals import Stopped, StopSignals
from psvit.search.budget import Budget
from psvit.search.claims import EQUAL_COST, Claims, ImageShares, Reporter
from psvit.search.config import SearchRunConfig
from psvit.search.crossfit import FoldSums
from psvit.search.evaluator import Evaluator, Outcomes, make_evaluator
from psvit.search.exhaustive import Exhaustive
from psvit.search.front import pareto_front
from psvit.search.history import History, HistoryRecord
from psvit.search.loop import TOGETHER, Scored, run_search
from psvit.search.plots import draw_progress, draw_scores
from psvit.search.racing import race
from psvit.search.random_search import RandomSearch
from psvit.search.records import SearchRecord
from psvit.search.report import report
from psvit.search.searchers import AUTO, SEARCHERS
from psvit.search.tables import FRONT, HISTORY, TOP
from psvit.search.timing import latency_table
from psvit.search.trial import Trial
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.units import format_quantity

_NAMED = 10  # architectures without a score that are named


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        folder: the run folder.
        arch: the arch.json.
        best: the winner.
        claims: what images that did not choose it say of it.
        preferred: what arch.json holds: the winner, or the cheapest that is tied with it (``search.prefer``).
    """

    folder: Path
    arch: Path
    best: Trial
    claims: Claims
    preferred: Trial

    def history(self) -> pd.DataFrame:
        """All that was scored, an architecture a row."""
        return HISTORY.read(self.folder / "history.csv")

    def top(self) -> pd.DataFrame:
        """The best 20, and how sure their order is."""
        return TOP.read(self.folder / "top.csv")

    def front(self) -> pd.DataFrame:
        """What nothing beats at equal or lower cost."""
        return FRONT.read(self.folder / "front.csv")

    def _repr_html_(self) -> str:
        """For notebooks: what may be said of the winner, and the best 20."""
        said = "".join(f"<p>{html.escape(line)}</p>" for line in self.claims.lines)
        return f"<p><b>{self.best.architecture}</b></p>{said}{self.top().to_html(index=False)}"


def search(config: SearchRunConfig) -> SearchResult | None:
    """Search, or resume where the run folder stands.

    Writes ``arch.json`` (the best), ``history.csv``, ``top.csv`` (the best 20, how sure their order is), ``front.csv``
    (what nothing beats at equal or lower cost), ``baseline_LAYERS.csv`` (random architectures of the winner's cost),
    ``result.json``, pictures and ``report.html``. With a larger ``search.trials`` a finished search continues.

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
    data = trained.open_data(config.data_root, config.workers)
    with StopSignals() as signals, processes.group(device, asdict(config)):
        evaluator = make_evaluator(config, trained, data, device, processes)
        adaptive = SEARCHERS[config.search.searcher].adaptive or config.search.race
        shares = ImageShares.of(evaluator.num_images, adaptive)  # refused before anything is made
        if not processes.main:
            evaluator.follow()
            return None
        with evaluator, RunFolder(Path(config.out), asdict(config)) as run:
            return _Search(config, trained, evaluator, shares, signals, run.path, device)()


class _Search:
    """A search in its run folder, in the main process: score, compare with chance, conclude."""

    def __init__(
        self,
        config: SearchRunConfig,
        trained: TrainedSupernet,
        evaluator: Evaluator,
        shares: ImageShares,
        signals: StopSignals,
        folder: Path,
        device: torch.device,
    ) -> None:
        settings, space = config.search, trained.space
        table = latency_table(settings.latency, space, device, folder) if settings.budget.latency else None
        budget = Budget.parse(settings.budget, table)
        self.settings, self.folder, self.space = settings, folder, space
        self.evaluator, self.signals = evaluator, signals
        self.allowed = budget.feasible(space)
        self.shares, self.folds = shares, shares.assign_folds(evaluator.labels, trained.data.split_seed)
        self.record = HistoryRecord(
            supernet_sha256=trained.sha256(),
            space=space,
            search_split=trained.search_split,
            num_images=len(self.shares.search),
            placements=settings.placements,
            seed=config.seed,
            rank_by=settings.rank_by,
            searcher=settings.searcher,
            budget=budget,
            trained_on=trained.trained_on,
        )
        self.failed = 0

    def __call__(self) -> SearchResult:
        budget = self.record.budget
        print(f"{self.allowed.count:,} of {self.space.architectures:,} architectures meet the budget: {budget}")
        if note := budget.note(self.space):
            print(f"note: {note}")
        history = History(self.folder / "history.csv", self.record)
        if self.settings.race:
            self._race(history)
        else:
            self._ask_and_tell(history)
        best = history.best(self.settings.rank_by)
        if best is None:
            raise ValueError(f"none of {len(history)} architectures has a finite score; retrain the supernet")
        baseline = self._score_baseline(history, best)
        return self._conclude(history, best, baseline)

    # ------------------------------------------------------------------------------------------------ scoring

    def _ask_and_tell(self, history: History) -> None:
        """Score what the searcher asks for."""
        settings, exhaustive = self.settings, self.settings.searcher == "exhaustive"
        run_search(
            SEARCHERS[settings.searcher].make(settings, self.allowed, self.record.seed, self.record.budget),
            self._score,
            self.space,
            history,
            len(self.shares.search),
            self.allowed.count if exhaustive else settings.trials,
            TOGETHER if exhaustive else settings.population,
        )

    def _race(self, history: History) -> None:
        """Race all; what becomes of each is recorded when the race is over."""
        architectures = Exhaustive(self.allowed).ask(self.allowed.count)
        raced = race(
            self._outcomes,
            self.evaluator.flops,
            architectures,
            len(self.shares.search),
            self.settings.race_keep,
            self.settings.confidence,
            self.folder,
            self.record,
        )
        raced.record.save(self.folder / "race.json")
        columns = (raced.top1, raced.loss, raced.num_images, raced.round)
        trials = [
            Trial(architecture, *astuple(self.space.cost(architecture)), *scored)
            for architecture, *scored in zip(architectures, *(column.tolist() for column in columns), strict=True)
        ]
        if missing := trials[len(history) :]:  # a run that was killed while it wrote them has left the first few
            history.append(missing)

    def _score_baseline(self, history: History, best: Trial) -> History:
        """Random architectures of the winner's cost, within the budget: what picking one blindly would have given."""
        record = replace(
            self.record,
            searcher="random",
            budget=self.record.budget.around(best.flops, EQUAL_COST),
            equal_to=str(best.architecture),
        )
        searcher = RandomSearch(record.budget.within(self.space), seed_of(record.seed, "baseline"))
        searcher.tell([best])
        known = {
            trial.architecture: Scored(trial.top1, trial.loss, trial.folds)
            for trial in history.trials
            if trial.num_images == best.num_images
        }

        def score_unknown(architectures: list[Architecture]) -> list[Scored]:
            unknown = [architecture for architecture in architectures if architecture not in known]
            known.update(zip(unknown, self._score(unknown) if unknown else [], strict=True))
            return [known[architecture] for architecture in architectures]

        baseline = History(self.folder / f"baseline_{best.architecture}.csv", record)
        number, batch = self.settings.baseline, self.settings.population
        run_search(searcher, score_unknown, self.space, baseline, best.num_images, number, batch)
        return baseline

    def _score(self, architectures: Sequence[Architecture]) -> list[Scored]:
        """Each on all images that the search may see, and on each fold of them."""
        images = self.shares.search
        outcomes = self._outcomes(architectures, images)
        sums = FoldSums.of(outcomes.correct, outcomes.loss, self.folds[images.start : images.stop])
        folds = np.hstack([sums.correct, sums.loss]).tolist()
        return [Scored(*score, tuple(row)) for score, row in zip(outcomes.scores(), folds, strict=True)]

    def _outcomes(self, architectures: Sequence[Architecture], images: range) -> Outcomes:
        """Score, unless the run is asked to stop; architectures whose logits are not finite are named."""
        if self.signals.requested:
            raise Stopped(f"stopped; what was scored is saved in {self.folder}; run the same command again to resume")
        outcomes = self.evaluator.outcomes(architectures, images)
        for architecture, score in zip(architectures, outcomes.scores(), strict=True):
            if math.isnan(score.loss):
                self.failed += 1
                if self.failed <= _NAMED:
                    print(f"note: {architecture} has no score: its logits are not finite")
        return outcomes

    # ------------------------------------------------------------------------------------------------ results

    def _conclude(self, history: History, best: Trial, baseline: History) -> SearchResult:
        """Write, draw and say what was found, and how sure that is."""
        frame = history.frame()
        rivals = [trial for trial in history.trials if trial.num_images == best.num_images]
        reporter = Reporter(rivals, self._outcomes, self.shares, self.folds, self.settings.rank_by)
        claims, top = reporter(baseline.trials)
        TOP.write(self.folder / "top.csv", top)
        FRONT.write(self.folder / "front.csv", pareto_front(frame, ("flops", "params"), self.settings.rank_by))
        preferred = self._write_winner(history, best, claims)
        self._draw(frame, best, baseline)
        arch, page = self.folder / "arch.json", report(self.folder)
        print(
            f"best of {len(history):,} by {self.settings.rank_by}: {best.architecture}, {format_quantity(best.flops)} "
            f"FLOPs, {format_quantity(best.params)} parameters"
        )
        print(claims)
        if preferred is not best:
            cost = format_quantity(preferred.flops)
            print(f"search.prefer=cheapest: arch.json is {preferred.architecture}, {cost} FLOPs")
        print(f"wrote {arch}, and {page.name}, history.csv, top.csv, front.csv and pictures beside it")
        return SearchResult(self.folder, arch, best, claims, preferred)

    def _write_winner(self, history: History, best: Trial, claims: Claims) -> Trial:
        """``arch.json``, of the best or of the cheapest that is tied with it, the other one beside it; ``result.json``.

        Returns:
            The one in ``arch.json``.
        """
        cheapest = best
        if claims.cheapest is not None:
            cheapest = next(trial for trial in history.trials if str(trial.architecture) == claims.cheapest)
        files = {"best": ("cheapest", best, cheapest), "cheapest": ("best", cheapest, best)}
        other_name, preferred, other = files[self.settings.prefer]
        for name in ("best", "cheapest"):
            (self.folder / f"{name}.json").unlink(missing_ok=True)  # of the other preference
        self._save_arch("arch.json", preferred, len(history))
        if other is not preferred:
            self._save_arch(f"{other_name}.json", other, len(history))
        SearchRecord(
            layers=str(best.architecture),
            flops=best.flops,
            params=best.params,
            path=str(CellPath.canonical(best.architecture, self.space.cells)),
            top1=best.top1,
            loss=best.loss,
            num_images=best.num_images,
            scored=len(history),
            failed=sum(trial.failed for trial in history.trials),
            claims=claims,
            search=self.record,
            tool=f"psvit-search {psvit.__version__}",
            preferred=str(preferred.architecture),
        ).save(self.folder / "result.json")
        return preferred

    def _save_arch(self, name: str, trial: Trial, scored: int) -> None:
        provenance = self.record.provenance(trial.architecture, trial.top1, trial.loss, scored)
        arch = ArchFile(self.space.spec, trial.architecture, provenance, self.record.trained_on)
        save_arch(self.folder / name, arch)

    def _draw(self, frame: pd.DataFrame, best: Trial, baseline: History) -> None:
        """The pictures: scores against cost, progress by trials, and the winner."""
        folder, spec, budget, searcher = self.folder, self.space.spec, self.record.budget, self.settings.searcher
        exhaustive, winner, rank_by = searcher == "exhaustive", str(best.architecture), self.settings.rank_by
        colours = "last round of the race" if self.settings.race else None if exhaustive else "generation"
        draw_scores(
            frame,
            folder / "scores.png",
            budget.flops,
            winner,
            spec.name,
            baseline.frame(),
            colours,
            self.settings.rank_by,
        )
        if not exhaustive:
            draw_progress({searcher: frame}, folder / "progress.png", rank_by)
        draw_architecture(spec, best.architecture, folder / "architecture.png", f"{spec.name}: best within {budget}")
