"""``psvit-search report``: a search as one HTML page that opens without network and runs nothing. No torch.

What the search has written is read and shown; what is not there yet is said to be missing, so that an unfinished run
has a page, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import nsmallest
from pathlib import Path
from typing import Any

import psvit
from psvit.arch import LAYER_NAMES, NetworkSpec
from psvit.cost import network_cost
from psvit.inspect import parts
from psvit.page import picture_address, write_page
from psvit.run.files import sha256
from psvit.run.folder import recorded_command
from psvit.run.records import read_object
from psvit.search.claims import TOP_ROWS, Claims
from psvit.search.config import ReportConfig
from psvit.search.history import History, HistoryRecord
from psvit.search.latency import LatencyTable
from psvit.search.records import FinalRecord, RaceRecord, RankRecord, SearchRecord
from psvit.search.tables import FRONT, TOP
from psvit.search.trial import Trial
from psvit.units import format_duration

_FRONT_ROWS, _FAILED_ROWS = 30, 20  # that are shown of the front and of what failed


def report_search(config: ReportConfig) -> Path:
    """Write the page of the search that the settings name, and say where it is.

    Raises:
        ValueError: no search is there, there are several, or one of its files is damaged.
    """
    page = report(_find(config))
    print(f"wrote {page}")
    return page


def report(folder: Path) -> Path:
    """Write ``report.html`` into the run folder of a search, from the files there.

    Raises:
        ValueError: nothing has been scored there, or a file is damaged.
    """
    if not (folder / "history.csv").is_file():
        raise ValueError(f"{folder} holds no search: there is no history.csv; name the run folder of a search")
    page = folder / "report.html"
    write_page(page, Path(__file__).with_name("report.html.j2"), _facts(folder))
    return page


def _find(config: ReportConfig) -> Path:
    """The run folder that is named, or else the only search of the project."""
    project = Path(config.runs) / config.name
    folder = Path(config.run) if config.run is not None else project
    if (folder / "history.csv").is_file():
        return folder
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the run folder of a search")
    searches = sorted(path.parent for path in folder.rglob("history.csv"))
    if not searches:
        raise ValueError(f"{folder} holds no search: there is no history.csv; run psvit-search evolve first")
    if config.run is None and len(searches) == 1:
        return searches[0]
    names = ", ".join(map(str, searches))
    raise ValueError(f"{folder} is no search by itself; write psvit-search report RUN with one of {names}")


@dataclass(frozen=True)
class _Run:
    """What the run folder of a search holds; None stands for what is not there, or not yet."""

    folder: Path
    trials: list[Trial]
    record: HistoryRecord | None
    result: SearchRecord | None
    config: str | None

    @classmethod
    def read(cls, folder: Path) -> _Run:
        """The files of a folder that has a ``history.csv`` at least.

        Raises:
            ValueError: one is damaged.
        """
        record, path = folder / "history.json", folder / "history.csv"
        trials = History(path).trials
        result = SearchRecord.load(folder / "result.json") if (folder / "result.json").exists() else None
        if result is not None:
            result.check_history(path, len(trials))
        return cls(
            folder,
            trials,
            HistoryRecord.load(record) if record.exists() else None,
            result,
            _text(folder / "config.yaml"),
        )

    @cached_property
    def scored(self) -> list[Trial]:
        """The trials that have a score."""
        return [trial for trial in self.trials if not trial.failed]

    @cached_property
    def num_images(self) -> int:
        """The largest number of images that a trial was scored on; 0 without any."""
        return max((trial.num_images for trial in self.scored), default=0)

    @cached_property
    def best(self) -> list[Trial]:
        """The best that were scored on so many images, best first."""
        whole = [trial for trial in self.scored if trial.num_images == self.num_images]
        return nsmallest(TOP_ROWS, whole, key=lambda trial: trial.sort_key(self.rank_by))

    @property
    def rank_by(self) -> str:
        """What the best is best by."""
        return self.record.rank_by if self.record else "loss"

    @property
    def winner(self) -> Trial | None:
        """The best of all."""
        return self.best[0] if self.best else None


def _facts(folder: Path) -> dict[str, Any]:
    """All that the template shows, section by section."""
    run = _Run.read(folder)
    top = _top(run)
    return {
        "folder": folder.resolve().name,
        "tool": f"psvit-search {psvit.__version__}",
        "pictures": {name: picture_address(folder / f"{name}.png") for name in ("scores", "progress", "architecture")},
        **_budget_and_space(run),
        **_winner(run),
        **_front(run),
        "top": top,
        "race": RaceRecord.load(folder / "race.json") if (folder / "race.json").exists() else None,
        "ranks": _ranks(run),
        "final": FinalRecord.load(folder / "final/final.json") if (folder / "final/final.json").exists() else None,
        **_repeat(run),
    }


def _budget_and_space(run: _Run) -> dict[str, Any]:
    """What was allowed, and how much of it was scored."""
    record, failed = run.record, [trial for trial in run.trials if trial.failed]
    return {
        "space": record and record.space,
        "budget": record and record.budget,
        "within": record and record.budget.within(record.space).count,
        "latency": _latency(run),
        "searcher": record and record.searcher,
        "placements": record and record.placements,
        "scored": len(run.scored),
        "num_images": run.num_images,
        "partly": sum(trial.num_images < run.num_images for trial in run.scored),
        "failed": failed[:_FAILED_ROWS],
        "failures": len(failed),
    }


def _latency(run: _Run) -> dict[str, str] | None:
    """What a budget of latency means, and the winner's; None where there is no such budget."""
    if run.record is None or run.record.budget.table is None:
        return None
    table, measured = run.record.budget.table, run.folder / "latency.json"
    return {
        "winner": "" if run.winner is None else format_duration(table.predict(run.winner.architecture)),
        "conditions": str(table.conditions),
        "trust": LatencyTable.load(measured).trust if measured.is_file() else "",
    }


def _winner(run: _Run) -> dict[str, Any]:
    """The best so far: its score, its parts, and what may be claimed of it."""
    winner, result = run.winner, run.result
    finished = {"finished": result is not None}
    if winner is None:
        return finished | {"winner": None, "outdated": False, "stages": [], "claims": None}
    return finished | {
        "winner": winner,
        "outdated": result is not None and result.layers != str(winner.architecture),
        "stages": _stages(run.record.space.spec, winner) if run.record else [],
        "claims": _claims(run, winner),
        "rank_by": run.rank_by,
    }


def _stages(spec: NetworkSpec, winner: Trial) -> list[dict[str, Any]]:
    """Rows of the table of the winner's parts, from stem to head."""
    total = network_cost(spec, winner.architecture).flops
    return [
        {
            "name": part.name,
            "layers": part.layers or "",
            "words": ", ".join(LAYER_NAMES[letter] for letter in part.layers or ""),
            "tokens": part.tokens,
            "grid": part.grid if spec.kind == "2d" else None,
            "width": part.width,
            "heads": part.heads,
            "flops": part.cost.flops,
            "params": part.cost.params,
            "share": part.cost.flops / total,
        }
        for part in parts(spec, winner.architecture)
    ]


def _claims(run: _Run, winner: Trial) -> Claims | None:
    """What images that did not choose the winner say of it; None until the search has ended with this one."""
    current = run.result is not None and run.result.layers == str(winner.architecture)
    return run.result.claims if current and run.result else None


def _front(run: _Run) -> dict[str, Any]:
    """The Pareto front, as far as it is shown."""
    path = run.folder / "front.csv"
    front = FRONT.read(path) if path.is_file() else None
    return {
        "front": None if front is None else front.head(_FRONT_ROWS).to_dict("records"),
        "front_size": 0 if front is None else len(front),
    }


def _top(run: _Run) -> list[dict[str, Any]]:
    """Rows of ``top.csv``; of a run without it, the best trials as the history has them."""
    path = run.folder / "top.csv"
    if path.is_file():
        best = TOP.read(path).head(TOP_ROWS)
        return [{str(key): value for key, value in row.items()} for row in best.to_dict("records")]
    return [trial.row(place) | {"place": place} for place, trial in enumerate(run.best, start=1)]


def _ranks(run: _Run) -> list[dict[str, Any]]:
    """What ``psvit-search rank`` has found out about the same supernet, in the folders beside this one.

    A file of another run that cannot be read is no reason to have no page: it is shown as a fault.
    """
    ranks: list[dict[str, Any]] = []
    for path in sorted(run.folder.resolve().parent.glob("rank*/rank.json")):
        try:
            rank = RankRecord.load(path)
        except ValueError as error:
            ranks.append({"name": path.parent.name, "fault": str(error)})
            continue
        if run.record and rank.inherited.supernet_sha256 == run.record.supernet_sha256:
            networks, lines = rank.correlations.networks, str(rank.correlations).splitlines()
            picture = picture_address(path.with_name("rank.png"))
            found = {"networks": networks, "lines": lines, "picture": picture}
            ranks.append({"name": path.parent.name, "fault": None, **found})
    return ranks


def _repeat(run: _Run) -> dict[str, Any]:
    """What it takes to repeat the search, and the files that hold its result, pictures apart."""
    record, folder = run.record, run.folder
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".json", ".yaml")]
    return {
        "command": recorded_command(folder),
        "config": run.config,
        "versions": _versions(folder / "versions.json"),
        "supernet": record and record.supernet_sha256,
        "split": record.search_split if record else {},
        "seed": record and record.seed,
        "files": [(path.name, sha256(path)) for path in files],
    }


def _versions(path: Path) -> dict[str, Any]:
    """What ``versions.json`` names; nothing where it is not."""
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; run the same search again to rewrite it") from None


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
