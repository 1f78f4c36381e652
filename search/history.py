"""Every trial ever scored, and what was searched: append-only, resumable, exact. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

import psvit
from psvit.arch import Architecture, CellPath
from psvit.preprocessing import TrainedOn
from psvit.run.files import append_bytes, read_appended, write_text
from psvit.run.folder import differences
from psvit.run.records import Record
from psvit.search.budget import Budget
from psvit.search.tables import FOLD_COLUMNS, HISTORY
from psvit.search.trial import Trial
from psvit.supernet.space import SearchSpace


@dataclass(frozen=True)
class HistoryRecord(Record):
    """``history.json``: what was searched, beside what was scored (``history.csv``).

    Attributes:
        supernet_sha256: of the supernet's weights.
        space: of the supernet.
        search_split: the images that were held out of its training.
        num_images: how many of them an architecture is scored on.
        placements: random placements that a score is the mean over; 0 is the canonical path alone.
        seed: of the search.
        rank_by: what the best is best by, ``loss`` or ``top1``.
        searcher: its name; ``rank`` where :mod:`psvit.search.rank` drew the architectures.
        budget: what was allowed.
        trained_on: what the supernet was: names of its classes and preprocessing of its images.
        equal_to: layers of the winner that these random architectures of equal cost are compared with; else None.
    """

    format: ClassVar[str] = "psvit-history"
    remedy: ClassVar[str] = HISTORY.remedy

    supernet_sha256: str
    space: SearchSpace
    search_split: dict[str, Any]
    num_images: int
    placements: int
    seed: int
    rank_by: str
    searcher: str
    budget: Budget
    trained_on: TrainedOn | None = None
    equal_to: str | None = None

    def provenance(self, architecture: Architecture, top1: float, loss: float, scored: int) -> dict[str, Any]:
        """Where an architecture of this search came from, for its arch.json.

        Args:
            top1, loss: its score.
            scored: how many architectures were.
        """
        return {
            "score": {"top1": top1, "loss": loss},
            "path": str(CellPath.canonical(architecture, self.space.cells)),
            "search_split": self.search_split,
            "budget": self.budget.to_json(),
            "seed": self.seed,
            "searcher": self.searcher,
            "scored": scored,
            "supernet_sha256": self.supernet_sha256,
            "tool": f"psvit-search {psvit.__version__}",
        }


class History:
    """The trials of a search in ``history.csv``, and what was searched in ``history.json`` beside it.

    Args:
        path: the CSV file. What is there is read; a last line that was cut short when a run was killed does not
            count, and goes when the next trials are appended.
        record: what is searched. It is written with the first trials and must be the same when a search resumes. None
            to read a history only.

    Raises:
        ValueError: the file is no history, or is the history of another search.
    """

    def __init__(self, path: Path, record: HistoryRecord | None = None) -> None:
        self.path = path
        self.trials: list[Trial] = []
        self._end = 0  # bytes of the file that hold whole lines
        if path.exists():
            self._read()
        if record is not None:
            identify(path.with_suffix(".json"), record, begun=bool(self.trials))

    def __len__(self) -> int:
        return len(self.trials)

    def append(self, trials: Sequence[Trial]) -> None:
        """Add trials and flush them to the disk.

        Raises:
            ValueError: the disk is full or not writable.
        """
        rows = {number: trial.row(number) for number, trial in enumerate(trials, start=len(self) + 1)}
        # str(float) is exact
        sealed = (HISTORY.seal(number, ",".join(map(str, row.values()))) for number, row in rows.items())
        lines = "".join(f"{line}\n" for line in sealed).encode()
        if not self._end:
            write_text(self.path, f"{HISTORY.header}\n")
            self._end = len(HISTORY.header) + 1
        append_bytes(self.path, lines, self._end)
        self._end += len(lines)
        self.trials.extend(trials)

    def best(self, rank_by: str) -> Trial | None:
        """The trial with the best score, by ``loss`` or ``top1``; None when none has a score."""
        scored = (trial for trial in self.trials if not trial.failed)
        return min(scored, key=lambda trial: trial.sort_key(rank_by), default=None)

    def frame(self) -> pd.DataFrame:
        """The table of ``history.csv``, one row per trial."""
        return pd.DataFrame([t.row(i) for i, t in enumerate(self.trials, start=1)], columns=list(HISTORY.columns))

    def _read(self) -> None:
        content = read_appended(self.path)
        self._end = content.rfind(b"\n") + 1
        header, *lines = content[: self._end].decode(errors="replace").splitlines(keepends=True) or [""]
        if header != f"{HISTORY.header}\n":
            raise ValueError(
                f"{self.path} is no {HISTORY.what}: its first line must be {HISTORY.header}; {HISTORY.remedy}"
            )
        for number, line in enumerate(lines, start=1):
            try:
                values = HISTORY.unseal(number, line.rstrip("\n"))
                index, layers, flops, params, top1, loss, num_images, generation, *folds = values.split(",")
                if len(folds) != len(FOLD_COLUMNS):
                    raise ValueError(f"it has {8 + len(folds)} values, not {len(HISTORY.columns)}")
                architecture, costs = Architecture.parse(layers), (int(flops), int(params))
                sums = () if folds[-1] == "nan" else tuple(map(float, folds))
                trial = Trial(architecture, *costs, float(top1), float(loss), int(num_images), int(generation), sums)
                if int(index) != number:
                    raise ValueError(f"number {index} stands where {number} should")
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number + 1}: {error}; the file was changed: cut it before this line, or use "
                    "another name= or out="
                ) from error
            self.trials.append(trial)


def identify(path: Path, record: HistoryRecord, begun: bool) -> None:
    """Write down what is searched, or refuse to go on with what another search has begun.

    Args:
        path: the file of the record.
        begun: whether anything was scored already.

    Raises:
        ValueError: what was begun is of another search; the message names each difference.
    """
    if not begun:
        record.save(path)
        return
    before = HistoryRecord.load(path)
    if changes := differences(before.to_json(), record.to_json()):
        raise ValueError(
            f"{path.parent} holds the scores of another search: {'; '.join(changes)}; use another name= or out= for "
            "this one, or the settings of before"
        )
