"""Every trial ever scored: append-only, resumable, exact."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psvit.arch import Architecture
from psvit.run.files import append_bytes, write_text
from psvit.run.folder import differences

COLUMNS = ("number", "layers", "flops", "params", "top1", "loss", "images", "generation")
_HEADER = ",".join(COLUMNS) + "\n"


@dataclass(frozen=True)
class Trial:
    """A scored architecture.

    Attributes:
        flops: multiply-adds an image.
        params: number of parameters.
        top1: share of the search split that it classifies correctly, 0 to 1; NaN when it could not be scored.
        loss: mean cross-entropy on the search split.
        images: how many images of the search split it was scored on.
        generation: the batch of the search that it was scored in, from 0.
    """

    architecture: Architecture
    flops: int
    params: int
    top1: float
    loss: float
    images: int
    generation: int

    @property
    def failed(self) -> bool:
        """Whether its score is no number."""
        return math.isnan(self.top1) or math.isnan(self.loss)

    @property
    def sort_key(self) -> tuple[bool, int, float, float, int, str]:
        """Sorts the best first: top-1, then loss, then FLOPs, then the layers as text; failed ones last.

        What was scored on more images comes before all others: a race scores on all only those that may be the best.
        No two architectures are equal by it, so the order in which they were scored never matters.
        """
        score = (0.0, 0.0) if self.failed else (-self.top1, self.loss)
        return (self.failed, -self.images, *score, self.flops, str(self.architecture))

    def row(self, number: int) -> dict[str, Any]:
        """Its row in the table of all trials, whose numbers start at 1."""
        costs = (self.flops, self.params)
        values = (number, str(self.architecture), *costs, self.top1, self.loss, self.images, self.generation)
        return dict(zip(COLUMNS, values, strict=True))


class History:
    """The trials of a search in ``history.csv``, and what was searched in ``history.json`` beside it.

    Args:
        path: the CSV file. What is there is read; a last line that was cut short when a run was killed does not
            count, and goes when the next trials are appended.
        identity: what is searched, as plain values: supernet, space, split, budget, seed, searcher. It is recorded
            with the first trials and must be the same when a search goes on. None to read a history only.

    Raises:
        ValueError: the file is no history, or is the history of another search.
    """

    def __init__(self, path: Path, identity: dict[str, Any] | None = None) -> None:
        self.path = path
        self.trials: list[Trial] = []
        self._end = 0  # bytes of the file that hold whole lines
        if path.exists():
            self._read()
        if identity is not None:
            identify(path.with_suffix(".json"), identity, begun=bool(self.trials))

    def __len__(self) -> int:
        return len(self.trials)

    def append(self, trials: Sequence[Trial]) -> None:
        """Add trials and flush them to the disk.

        Raises:
            ValueError: the disk is full or not writable.
        """
        rows = [trial.row(number) for number, trial in enumerate(trials, start=len(self) + 1)]
        lines = "".join(",".join(map(str, row.values())) + "\n" for row in rows).encode()  # str(float) is exact
        if not self._end:
            write_text(self.path, _HEADER)
            self._end = len(_HEADER)
        append_bytes(self.path, lines, self._end)
        self._end += len(lines)
        self.trials.extend(trials)

    def best(self) -> Trial | None:
        """The trial of greatest merit; None when none has a score."""
        return min((trial for trial in self.trials if not trial.failed), key=lambda trial: trial.sort_key, default=None)

    def frame(self) -> pd.DataFrame:
        """The table of ``history.csv``, one row a trial."""
        return pd.DataFrame([t.row(i) for i, t in enumerate(self.trials, start=1)], columns=list(COLUMNS))

    def _read(self) -> None:
        content = self.path.read_bytes()
        self._end = content.rfind(b"\n") + 1
        header, *lines = content[: self._end].decode(errors="replace").splitlines(keepends=True) or [""]
        if header != _HEADER:
            raise ValueError(f"{self.path} is no search history; use another name= or out=, or move it away")
        for number, line in enumerate(lines, start=1):
            try:
                index, layers, flops, params, top1, loss, images, generation = line.rstrip("\n").split(",")
                architecture, costs = Architecture.parse(layers), (int(flops), int(params))
                trial = Trial(architecture, *costs, float(top1), float(loss), int(images), int(generation))
                if int(index) != number:
                    raise ValueError(f"number {index} stands where {number} should")
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number + 1}: {error}; the file was changed: cut it before this line, or use "
                    "another name= or out="
                ) from error
            self.trials.append(trial)


def identify(record: Path, identity: dict[str, Any], begun: bool) -> None:
    """Write down what is searched, or refuse to go on with what another search has begun.

    Args:
        identity: plain values.
        begun: whether anything was scored already.

    Raises:
        ValueError: what was begun is of another search; the message names each difference.
    """
    identity = json.loads(json.dumps(identity))
    if not begun:
        write_text(record, json.dumps(identity, indent=2) + "\n")
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{record.parent} has scores, but {record.name} does not tell of what search; use another name= or out="
        ) from error
    if changes := differences(before, identity):
        raise ValueError(
            f"{record.parent} holds the scores of another search: {'; '.join(changes)}; use another name= or out= for "
            "this one, or the settings of before"
        )
