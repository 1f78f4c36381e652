"""``psvit-search pick``: the best within any later budget, from what searches have scored already. No torch.

One supernet answers every budget: a score does not depend on the budget that it was found under. What several searches
of the same supernet, space, split and placements have scored is put together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from psvit.arch import BASIC, SHARING, Architecture
from psvit.archfile import ArchFile, save_arch
from psvit.run.folder import differences
from psvit.search.budget import Budget
from psvit.search.config import PickConfig
from psvit.search.fresh import FreshScore, fresh_score
from psvit.search.history import HistoryRecord
from psvit.search.latency import LatencyTable
from psvit.search.records import SearchRecord
from psvit.search.tables import FOLD_COLUMNS, HISTORY
from psvit.search.trial import score_order
from psvit.supernet.space import Additive, SearchSpace, Subspace
from psvit.units import Band, format_duration, format_quantity

_SAME = ("supernet_sha256", "space", "search_split", "placements")  # what makes scores comparable


def pick(config: PickConfig) -> Answer:
    """Print and give the best architectures within a budget, and how many of all within it were scored.

    Raises:
        ValueError: no search, searches of different supernets, or nothing within the budget that has a score.
    """
    if config.save is not None and not config.save.endswith(".json"):
        raise ValueError(f"save is {config.save}; it is an architecture file, such as arch.json")
    scored = read_scored(Path(config.run))
    answer = choose(scored, Budget.parse(config.budget, _find_table(config, scored)), config.rank_by)
    if config.save is not None:
        save_arch(Path(config.save), _arch_file(scored, answer))
    if config.json:
        print(json.dumps(_to_json(scored, answer, config.top), indent=2))
        return answer
    print("\n".join(_lines(scored, answer, config.top)))
    if config.save is not None:
        print(f"wrote {config.save}, the first of them")
    return answer


# ---------------------------------------------------------------------------------------------------- what was scored


@dataclass(frozen=True)
class Scored:
    """What searches of one supernet have scored.

    Attributes:
        searches: what each search was, by the name of its folder.
        folders: where each is.
        frame: one row per architecture, with the columns of ``history.csv`` and ``search``, the folder's name; where
            several searches scored it, the one that used the most images. Failed ones have no score.
    """

    searches: dict[str, HistoryRecord]
    folders: dict[str, Path]
    frame: pd.DataFrame

    @property
    def space(self) -> SearchSpace:
        """Of the supernet; all searches have it in common."""
        return next(iter(self.searches.values())).space

    @property
    def supernet_sha256(self) -> str:
        """Of the supernet's weights; all searches have it in common."""
        return next(iter(self.searches.values())).supernet_sha256


def read_scored(run: Path) -> Scored:
    """Read a search's run folder, or all searches below a project's folder.

    Raises:
        ValueError: there is none, a file is damaged, or the searches are not of the same supernet, space, split and
            placements.
    """
    if not run.is_dir():
        raise ValueError(f"there is no folder {run}; name the run folder of a search, or a project by --name")
    histories = [run / "history.csv"] if (run / "history.csv").is_file() else sorted(run.rglob("history.csv"))
    histories = [path for path in histories if path.with_suffix(".json").is_file()]
    if not histories:
        raise ValueError(f"{run} holds no search (history.csv and history.json); run psvit-search evolve first")
    names = [path.parent.name if path.parent == run else str(path.parent.relative_to(run)) for path in histories]
    searches = {
        name: HistoryRecord.load(path.with_suffix(".json")) for name, path in zip(names, histories, strict=True)
    }
    _require_same(run, searches)
    frames = [_read_history(path).assign(search=name) for name, path in zip(names, histories, strict=True)]
    together = pd.concat(frames, ignore_index=True)
    together["failed"] = together[["top1", "loss"]].isna().any(axis=1)
    # stable, so that of equal ones the first search's stays; a failed one only where it has no score at all
    together = together.sort_values(["failed", "num_images"], ascending=[True, False], kind="stable")
    folders = {name: path.parent for name, path in zip(names, histories, strict=True)}
    return Scored(searches, folders, together.drop_duplicates("layers"))


def _read_history(path: Path) -> pd.DataFrame:
    frame, result = HISTORY.read(path), path.with_name("result.json")
    if result.is_file():
        SearchRecord.load(result).check_history(path, len(frame))
    return frame


def _require_same(run: Path, searches: Mapping[str, HistoryRecord]) -> None:
    groups: dict[str, list[str]] = {}
    documents = {name: record.to_json() for name, record in searches.items()}
    same = {name: {key: document[key] for key in _SAME} for name, document in documents.items()}
    for name, values in same.items():
        groups.setdefault(json.dumps(values, sort_keys=True), []).append(name)
    if len(groups) > 1:
        (first, *_), (second, *_), *_ = groups.values()
        raise ValueError(
            f"the searches in {run} did not all score the same supernet in the same way: "
            f"{'; against '.join(', '.join(names) for names in groups.values())} "
            f"({'; '.join(differences(same[first], same[second]))}). Pick from one: psvit-search pick {run / first}"
        )


# ---------------------------------------------------------------------------------------------------- what is best


@dataclass(frozen=True)
class Answer:
    """What searches know about a budget.

    Attributes:
        ranked: what was scored within it, best first: by the number of images, then by score. Columns as in
            :class:`Scored`, and ``latency`` (nanoseconds) if the budget has one.
        architectures: how many there are within the budget, scored or not.
        failed: how many of them gave no score.
        num_images: the largest number that any architecture was scored on.
        fresh: what the first reaches on images that did not pick it.
        note: what the searches allowed, if some was not scored and none of them allowed all of this budget.
    """

    budget: Budget
    ranked: pd.DataFrame
    architectures: int
    failed: int
    num_images: int
    fresh: FreshScore
    note: str | None

    @property
    def complete(self) -> bool:
        """Whether every architecture within the budget was scored, on as many images as any."""
        return len(self.ranked) == self.architectures and not self.partly

    @property
    def partly(self) -> int:
        """How many were scored on fewer images than others."""
        return int((self.ranked["num_images"] < self.num_images).sum())

    def __str__(self) -> str:
        if self.complete:
            return f"all {self.architectures:,} architectures within this budget were scored"
        share = "all" if len(self.ranked) == self.architectures else f"{len(self.ranked):,} of"
        text = f"{share} {self.architectures:,} architectures within this budget were scored"
        text += f", {self.partly:,} of them on fewer images" if self.partly else ""
        return text + (f"; {self.failed:,} gave no score" if self.failed else "")


def choose(scored: Scored, budget: Budget, rank_by: str = "loss") -> Answer:
    """What is best within a budget, of all that was scored, by ``loss`` or ``top1``.

    Raises:
        ValueError: no architecture is within the budget, or none that is has a score; the message has the nearest.
    """
    asked = budget.feasible(scored.space)
    frame, bands = scored.frame, {"flops": budget.flops, "params": budget.params}
    if budget.table is not None:
        frame = frame.assign(latency=amounts(frame["layers"], budget.table.cost))
        bands["latency"] = budget.latency
    miss = sum((_miss(frame[key], band) for key, band in bands.items()), start=pd.Series(0.0, frame.index))
    with_score, inside = ~frame["failed"], miss == 0
    if not (with_score & inside).any():
        raise ValueError(_nothing(budget, asked, frame[with_score], miss[with_score]))
    order = {"num_images": False, **score_order(rank_by), "flops": True, "layers": True}  # as Trial.sort_key
    ranked = frame[with_score & inside].sort_values(list(order), ascending=list(order.values()), ignore_index=True)
    failed, num_images = int((inside & ~with_score).sum()), int(frame.loc[with_score, "num_images"].max())
    note = None if len(ranked) + failed == asked.count else _note(scored, asked)
    return Answer(
        budget=budget,
        ranked=ranked,
        architectures=asked.count,
        failed=failed,
        num_images=num_images,
        fresh=fresh_score(ranked, scored.folders, rank_by),
        note=note,
    )


def amounts(layers: pd.Series[str], cost: Additive) -> pd.Series[int]:
    """A cost of many architectures, from that of each stage: only 63 different ones have up to 6 layers."""
    total = pd.Series(cost.fixed, index=layers.index)
    architectures = [text.split("-") for text in layers]
    for stage, (basic, sharing) in enumerate(zip(cost.basic, cost.sharing, strict=True)):
        words = [architecture[stage] for architecture in architectures]
        of_word = {word: word.count(BASIC) * basic + word.count(SHARING) * sharing for word in set(words)}
        total += [of_word[word] for word in words]
    return total


def _miss(amount: pd.Series[int], band: Band) -> pd.Series[float]:
    """How far amounts lie outside a band, as a share of its end; 0 inside."""
    miss = pd.Series(0.0, index=amount.index)
    if band.low is not None:
        miss += (1 - amount / max(band.low, 1)).clip(lower=0)
    if band.high is not None:
        miss += (amount / max(band.high, 1) - 1).clip(lower=0)
    return miss


def _nothing(budget: Budget, asked: Subspace, others: pd.DataFrame, miss: pd.Series[float]) -> str:
    text = f"none of the {asked.count:,} architectures within {budget} has a score"
    if others.empty:
        return f"{text}, nor has any other; retrain the supernet"
    nearest = others.iloc[int(miss.argmin())]
    costs = [f"{nearest['flops']:,} FLOPs", f"{nearest['params']:,} parameters"]
    if budget.table is not None:
        costs.append(f"{format_duration(nearest['latency'])} latency")
    return (
        f"{text}; the nearest that has is {nearest['layers']} with {' and '.join(costs)}. Search within this budget "
        "first, by psvit-search evolve"
    )


def _note(scored: Scored, asked: Subspace) -> str | None:
    """What the searches allowed, unless one of them allowed all that is asked for."""
    allowed: dict[str, None] = {}
    for record in scored.searches.values():
        budget = record.budget
        ranges = [(asked.flops, budget.flops), (asked.params, budget.params)]
        if budget.table is not None:
            ranges.append((asked.reach(budget.table.cost), budget.latency))
        if all(end in band for reach, band in ranges if reach for end in (reach.low, reach.high) if end is not None):
            return None
        allowed[str(budget)] = None
    return f"no search allowed all of this budget; what they allowed is {'; '.join(allowed)}"


def _find_table(config: PickConfig, scored: Scored) -> LatencyTable | None:
    """The table that a budget of latency is meant by."""
    if config.budget.latency is None:
        return None
    run = Path(config.run)
    places = [Path(config.table)] if config.table else [run / "latency.json", run.parent / "latency.json"]
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"a budget of latency needs a table of latencies, and there is no {' or '.join(map(str, places))}; measure "
            "one by psvit-search latency, and give it as table=FILE"
        )
    table = LatencyTable.load(path)
    here = replace(table.conditions, network=scored.space.spec)
    if changed := table.conditions.differences(here):
        raise ValueError(f"{path} is of other networks than the searches: {'; '.join(changed)}; give theirs as table=")
    return table


# ---------------------------------------------------------------------------------------------------- what is shown


def _rows(answer: Answer, top: int) -> list[dict[str, Any]]:
    """The best, with the scores that they are ranked by."""
    best = answer.ranked.head(top).drop(columns=["number", "generation", "failed", *FOLD_COLUMNS])
    best = best.assign(place=range(1, len(best) + 1))
    return [{str(key): value for key, value in row.items()} for row in best.to_dict("records")]


def _to_json(scored: Scored, answer: Answer, top: int) -> dict[str, Any]:
    return {
        "space": scored.space.spec.name,
        "supernet_sha256": scored.supernet_sha256,
        "searches": list(scored.searches),
        "budget": answer.budget.to_json(),
        "architectures": answer.architectures,
        "scored": len(answer.ranked),
        "failed": answer.failed,
        "complete": answer.complete,
        "note": answer.note,
        "fresh": asdict(answer.fresh),
        "best": _rows(answer, top),
    }


def _lines(scored: Scored, answer: Answer, top: int) -> list[str]:
    lines = [f"{len(scored.frame):,} architectures of {scored.space.label}, scored by {', '.join(scored.searches)}"]
    if answer.budget.table is not None:
        lines.append(f"latency on {answer.budget.table.conditions}")
    lines += [f"the best within {answer.budget}, by scores of the images that picked them:", ""]
    columns = [["place"], ["layers"], ["FLOPs"], ["parameters"], ["top-1"], ["loss"], ["images"], ["search"]]
    for row in _rows(answer, top):
        cells = [str(row["place"]), row["layers"], format_quantity(row["flops"]), format_quantity(row["params"])]
        cells += [f"{row['top1']:.4f}", f"{row['loss']:.4f}"]
        for column, cell in zip(columns, [*cells, f"{row['num_images']:,}", row["search"]], strict=True):
            column.append(cell)
    if answer.budget.table is not None:
        columns.insert(4, ["latency", *map(format_duration, answer.ranked["latency"].head(top))])
    padded = []
    for column in columns:
        width = max(map(len, column))
        text = column[0] in ("layers", "search")
        padded.append([cell.ljust(width) if text else cell.rjust(width) for cell in column])
    lines += ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
    lines += ["", str(answer), str(answer.fresh)]
    return [*lines, f"note: {answer.note}"] if answer.note else lines


def _arch_file(scored: Scored, answer: Answer) -> ArchFile:
    """The best as an architecture file, which says where it comes from."""
    best = answer.ranked.iloc[0]
    record, architecture = scored.searches[best["search"]], Architecture.parse(best["layers"])
    number = int((~scored.frame["failed"]).sum())
    found = replace(record, budget=answer.budget)
    provenance = found.provenance(architecture, float(best["top1"]), float(best["loss"]), number)
    return ArchFile(scored.space.spec, architecture, provenance, record.trained_on)
