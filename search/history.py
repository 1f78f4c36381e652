"""Every trial ever scored: append-only, resumable, exact."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psvit.arch import Architecture
from psvit.engine.run_folder import differences
from psvit.files import write_text

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
    def merit(self) -> tuple[bool, float, float, int, str]:
        """Sorts the best first: top-1, then loss, then FLOPs, then the layers as text; failed ones last.

        No two architectures are equal by it, so the order in which they were scored never matters.
        """
        score = (0.0, 0.0) if self.failed else (-self.top1, self.loss)
        return (self.failed, *score, self.flops, str(self.architecture))

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
            self._identify(json.loads(json.dumps(identity)))

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
        try:
            with open(self.path, "r+b") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ValueError(
                f"cannot write {self.path}: {error.strerror}; the {len(self)} trials before are kept. Free some space "
                "and start again to go on"
            ) from error
        self._end += len(lines)
        self.trials.extend(trials)

    def best(self) -> Trial | None:
        """The trial of greatest merit; None when none has a score."""
        return min((trial for trial in self.trials if not trial.failed), key=lambda trial: trial.merit, default=None)

    def pareto(self) -> list[Trial]:
        """The trials of which no other has as good a top-1 at as few FLOPs, by rising FLOPs and top-1."""
        front: list[Trial] = []
        for trial in sorted((t for t in self.trials if not t.failed), key=lambda t: (t.flops, t.merit)):
            if not front or trial.top1 > front[-1].top1:
                front.append(trial)
        return front

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

    def _identify(self, identity: dict[str, Any]) -> None:
        record = self.path.with_suffix(".json")
        if not self.trials:
            write_text(record, json.dumps(identity, indent=2) + "\n")
            return
        try:
            before = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} has trials, but {record.name} beside it does not tell of what search; use another name= "
                "or out="
            ) from error
        if changes := differences(before, identity):
            raise ValueError(
                f"{self.path} is the history of another search: {'; '.join(changes)}; use another name= or out= for "
                "this one, or the settings of before"
            )
