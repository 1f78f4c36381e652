"""The JSON files that a search leaves, each as a frozen dataclass that writes and reads it. No torch.

=================  ==========================================  =====================================================
``history.json``   :class:`psvit.search.history.HistoryRecord`  what was searched; beside any table of scores
``result.json``    :class:`SearchRecord`                       the winner, and how it compares with chance
``race.json``      :class:`RaceRecord`                         what a race dropped, and what that saved
``rank.json``      :class:`RankRecord`                         whether inherited scores predict accuracies
``standalone.json``  :class:`StandaloneTable`                  what the trainings of ``standalone.csv`` are of
``searcher.json``  :class:`SearcherRecord`                     which searcher ``search=auto`` chose, and why
``final.json``     :class:`FinalRecord`                        a final: its rounds, its winner, and what it is worth
``latency.json``   :class:`psvit.search.latency.LatencyTable`  how long networks take on one device
=================  ==========================================  =====================================================

The tables beside them are in ``search/tables.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from psvit.data.record import DataRecord
from psvit.intervals import Estimate
from psvit.run.records import Record
from psvit.search.claims import Claims
from psvit.search.config import BudgetConfig
from psvit.search.correlation import Correlations
from psvit.search.history import HistoryRecord
from psvit.supernet.space import SearchSpace
from psvit.units import format_quantity

_AGAIN = "run the same search again to rewrite it"


@dataclass(frozen=True)
class SearchRecord(Record):
    """``result.json`` of a search.

    Attributes:
        layers: of the winner.
        flops, params: its costs.
        path: the supernet path that was scored.
        top1, loss: on the search split, with inherited weights.
        num_images: that it was scored on.
        scored: how many architectures the search scored.
        failed: how many of them have no score.
        claims: what images that did not choose the winner say of it.
        search: what was searched.
        tool: name and version of the program.
        preferred: layers in arch.json, the winner's or those of the cheapest that is tied with it; None in older files.
    """

    format: ClassVar[str] = "psvit-search-result"
    remedy: ClassVar[str] = _AGAIN

    layers: str
    flops: int
    params: int
    path: str
    top1: float
    loss: float
    num_images: int
    scored: int
    failed: int
    claims: Claims
    search: HistoryRecord
    tool: str
    preferred: str | None = None

    def check_history(self, history: Path, rows: int) -> None:
        """Refuse a history that has lost rows at its end since the search finished: nothing in it tells.

        Raises:
            ValueError: it has fewer than were scored; more are of a search that goes on.
        """
        if rows < self.scored:
            raise ValueError(
                f"{history} has {rows:,} of the {self.scored:,} architectures that were scored; run the same search "
                "again, which scores the others"
            )


@dataclass(frozen=True)
class Round:
    """A round of a race.

    Attributes:
        num_images: that every architecture in it was scored on.
        total_images: that these have been scored on by the end of it.
        architectures: how many took part.
        kept: how many of them may still be among the best.
    """

    num_images: int
    total_images: int
    architectures: int
    kept: int


@dataclass(frozen=True)
class RaceRecord(Record):
    """``race.json``: what a race did.

    Attributes:
        confidence: probability, at least, that none of the true best was dropped.
        keep: how many best it raced for.
        rounds: first to last.
        flops: multiply-adds that the race took.
        full_flops: multiply-adds of scoring all architectures on all images.
        image_share: share of the image scores of scoring all on all.
    """

    format: ClassVar[str] = "psvit-race"
    remedy: ClassVar[str] = _AGAIN

    confidence: float
    keep: int
    rounds: tuple[Round, ...]
    flops: int
    full_flops: int
    image_share: float

    def __post_init__(self) -> None:
        if self.full_flops < 1:
            raise ValueError(f"full_flops is {self.full_flops}; it must be at least 1")

    @property
    def saved(self) -> float:
        """Share of the multiply-adds of scoring all on all that the race did without."""
        return 1 - self.flops / self.full_flops


@dataclass(frozen=True)
class StandaloneTable(Record):
    """``standalone.json``: what the trainings in the ``standalone.csv`` beside it are of.

    Attributes:
        space: of the networks.
        data: that they were trained on.
        split: whose images they were scored on, ``search`` or ``test``.
        recipe: how each was trained.
    """

    format: ClassVar[str] = "psvit-standalone-table"
    remedy: ClassVar[str] = "it lies beside every standalone.csv that psvit-search rank writes; copy both"

    space: SearchSpace
    data: DataRecord
    split: str
    recipe: dict[str, Any]

    def differs(self, space: SearchSpace, data: DataRecord) -> str:
        """What keeps the table from being compared with a supernet; nothing if nothing does."""
        if replace(space.spec, name="") != replace(self.space.spec, name="") or space.cells != self.space.cells:
            return f"its networks are of another space, {self.space.label}"
        apart = self.split == "test"  # networks that were scored there need no search split in common
        here, there = (
            replace(
                record,
                dataset="",
                splits={} if apart else {name: record.splits[name] for name in ("train", "search")},
                listed={"train": record.listed["train"]},
            )
            for record in (self.data, data)
        )
        return "; ".join(here.changes(there))


@dataclass(frozen=True)
class RankRecord(Record):
    """``rank.json``: how well inherited scores predict networks trained alone, and how both were made.

    Attributes:
        correlations: what was found.
        inherited: how the inherited scores were made.
        supernet: where the supernet was then.
        against: table whose trainings were taken; None where they were made.
        num_train_images: images that the supernet was trained on, and each network unless it is of such a table.
        recipe: how each was trained, with the same exception.
        device: where.
        versions: of psvit-search, Python and the packages.
    """

    format: ClassVar[str] = "psvit-rank"
    remedy: ClassVar[str] = "run the same psvit-search rank again to rewrite it"

    correlations: Correlations
    inherited: HistoryRecord
    supernet: str
    against: str | None
    num_train_images: int
    recipe: dict[str, Any]
    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class SearcherRecord(Record):
    """``searcher.json``: what ``search=auto`` chose.

    Attributes:
        budget: that it chose for.
        searcher: its name.
        why: in a sentence.
    """

    format: ClassVar[str] = "psvit-searcher"
    remedy: ClassVar[str] = "delete it, and run the same psvit-search run again to choose again"

    budget: BudgetConfig
    searcher: str
    why: str


@dataclass(frozen=True)
class FinalNetwork:
    """A network that a final has trained.

    Attributes:
        layers: of the network.
        flops, params: its costs.
        loss, top1: on the images that judge its round; of the control, on those that report.
        kept: whether it goes on.
    """

    layers: str
    flops: int
    params: int
    loss: float
    top1: float
    kept: bool


@dataclass(frozen=True)
class FinalRound:
    """A round of a final.

    Attributes:
        epochs: of each training.
        num_images: that judge it.
        networks: best first.
    """

    epochs: int
    num_images: int
    networks: tuple[FinalNetwork, ...]


@dataclass(frozen=True)
class FinalRecord(Record):
    """``final.json``: a final, by successive halving.

    Attributes:
        layers, flops, params: of its winner.
        searched: layers of the search's winner.
        tied: how many could not be told from that one, itself included; the best of them entered.
        rounds: first to last.
        planned: how many there would have been, had ``max_minutes`` not ended it.
        control: random architectures of the winner's cost, trained as long as it.
        num_images: that report: they ranked nobody who entered, the search's own winner apart, and dropped nobody.
        loss, top1: the winner's own on these.
        gain_loss, gain_top1: how much better than the mean of the control it is there, paired image by image: loss
            lower, top-1 higher; None without a control.
        networks: trainings of the final.
        images: that they have seen.
        seconds: that they took, one after the other.
        init: weights that they started from, ``scratch`` or ``inherit``.
        search: what was searched.
        tool: name and version of the program.
    """

    format: ClassVar[str] = "psvit-final"
    remedy: ClassVar[str] = "run the same psvit-search finals again to rewrite it"

    layers: str
    flops: int
    params: int
    searched: str
    tied: int
    rounds: tuple[FinalRound, ...]
    planned: int
    control: tuple[FinalNetwork, ...]
    num_images: int
    loss: Estimate
    top1: Estimate
    gain_loss: Estimate | None
    gain_top1: Estimate | None
    networks: int
    images: int
    seconds: float
    init: str
    search: HistoryRecord
    tool: str

    @property
    def lines(self) -> list[str]:
        """One sentence each: who won, what that changed, what it is worth, and what it cost."""
        worth = f"on {self.num_images:,} images that dropped nobody: loss {self.loss}, top-1 {self.top1}"
        lines = [
            f"winner of the final: {self.layers}, {format_quantity(self.flops)} FLOPs, "
            f"{format_quantity(self.params)} parameters",
            self._changed(),
        ]
        if len(self.rounds) < self.planned:
            lines.append(
                f"max_minutes ended it behind round {len(self.rounds)} of {self.planned}: the trainings that decided "
                f"had {self.rounds[-1].epochs} epochs"
            )
        lines.append(worth)
        if self.gain_loss is not None:
            several = f"the mean of {len(self.control)} random architectures" if len(self.control) > 1 else "one"
            lines.append(
                f"next to {several} of equal cost, trained as long: lower in loss by {self.gain_loss}, higher in "
                f"top-1 by {self.gain_top1}"
            )
        return [
            *lines,
            f"it cost {self.networks} trainings, {format_quantity(self.images)} images seen, "
            f"{self.seconds / 60:,.1f} minutes of training",
        ]

    def _changed(self) -> str:
        if self.layers == self.searched:
            return "it is the search's winner: the final changed nothing"
        for number, played in enumerate(self.rounds, start=1):
            places = {each.layers: place for place, each in enumerate(played.networks, start=1)}
            if not played.networks[places[self.searched] - 1].kept:
                first, last = places[self.searched], len(places)
                return f"the search's winner, {self.searched}, went out in round {number}, place {first} of {last}"
        raise AssertionError("one of them went out")
