"""``search=auto``: exhaustive search where that is fast enough, else evolution."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.search.budget import Budget
from psvit.search.config import SearchConfig, SearchRunConfig
from psvit.search.evaluator import Evaluator, make_evaluator
from psvit.search.exhaustive import Exhaustive
from psvit.search.loop import TOGETHER
from psvit.search.records import SearcherRecord
from psvit.search.searchers import AUTO
from psvit.search.timing import latency_table
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.space import Subspace

_MOST = 2**20  # architectures; more are not listed
_SAMPLE = 64  # architectures that are timed


@dataclass(frozen=True)
class Choice:
    """A searcher, and why."""

    searcher: str
    why: str


def settle(config: SearchRunConfig, project: Path) -> SearchConfig:
    """How to search, with the searcher that ``search=auto`` comes to; any other searcher is kept as it is.

    The choice is recorded in ``searcher.json`` of the project's folder, so that a run resumes with the same searcher.

    Raises:
        ValueError: what a search would refuse.
    """
    search = config.search
    if search.searcher != AUTO:
        return search
    path, table, budget = project / "searcher.json", project / "latency.json", search.budget
    chosen = SearcherRecord.load(path) if path.exists() else None
    if chosen is None or chosen.budget != budget:
        choice = choose(config, search.auto_minutes, project)
        chosen = SearcherRecord(budget, choice.searcher, choice.why)
        chosen.save(path)
    print(f"search=auto: {chosen.why}: {chosen.searcher}")
    latency = search.latency
    if budget.latency and latency.table is None and table.exists():  # what the choice was made by
        latency = replace(latency, table=str(table))
    return replace(search, searcher=chosen.searcher, latency=latency)


def choose(config: SearchRunConfig, minutes: float, project: Path) -> Choice:
    """Exhaustive search if it is predicted to take at most so many minutes here, else evolution.

    A table of latencies, if one is needed and none is given, is measured and kept in the project's folder.

    Raises:
        ValueError: what a search would refuse.
    """
    trained = TrainedSupernet.open(Path(config.supernet))
    device = pick_device(config.device)
    settings = config.search
    table = None
    if settings.budget.latency:
        table = latency_table(settings.latency, trained.space, device, project)
    allowed = Budget.parse(settings.budget, table).feasible(trained.space)
    many = f"{allowed.count:,} architectures are within the budget"
    if allowed.count > _MOST:
        return Choice("evolve", f"{many}, too many to score them all")
    data = trained.open_data(config.data_root, config.workers)
    predicted = predict_seconds(make_evaluator(config, trained, data, device, Processes()), allowed) / 60
    if predicted <= minutes:
        return Choice("exhaustive", f"{many}; scoring them all is predicted to take {predicted:.1f} minutes")
    return Choice(
        "evolve",
        f"{many}; scoring them all is predicted to take {predicted:.1f} minutes, more than auto_minutes={minutes:g}",
    )


def predict_seconds(evaluator: Evaluator, allowed: Subspace) -> float:
    """How long scoring all architectures will take, by the multiply-adds and the time of a few on one batch."""
    architectures = Exhaustive(allowed).ask(allowed.count)
    middle = max(0, len(architectures) // 2 - _SAMPLE // 2)
    sample = architectures[middle : middle + _SAMPLE]
    images = range(min(evaluator.batch_size, evaluator.num_images))
    evaluator.outcomes(sample[:4], images)  # decodes the images, and compiles
    began = time.perf_counter()
    evaluator.outcomes(sample, images)
    seconds = time.perf_counter() - began
    chunks = [architectures[first : first + TOGETHER] for first in range(0, len(architectures), TOGETHER)]
    work = sum(evaluator.flops(chunk) for chunk in chunks) * evaluator.num_images
    return seconds * work / (evaluator.flops(sample) * len(images))
