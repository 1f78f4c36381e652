"""The tables of a search and of a ranking: the columns of their CSV files. No torch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from psvit.run.files import write_text
from psvit.search.crossfit import FOLDS

_TYPES = {int: "int64", str: "str"}


@dataclass(frozen=True)
class Table:
    """A CSV file of ours, whose first line names its columns.

    Attributes:
        what: the file is called so in messages.
        columns: name -> int, float or str; a float may be NaN.
        remedy: what to do about a file that cannot be read.
    """

    what: str
    columns: Mapping[str, type]
    remedy: str = "run the same search again to rewrite it"

    @property
    def header(self) -> str:
        """The first line of the file."""
        return ",".join(self.columns)

    def read(self, path: Path) -> pd.DataFrame:
        """The whole lines of a file; a last one that was cut short, since the search runs or was killed, is left out.

        Raises:
            ValueError: the file is missing, or has other columns or a value of another type.
        """
        types = {name: _TYPES[kind] for name, kind in self.columns.items() if kind is not float}
        exactly = {name: float for name, kind in self.columns.items() if kind is float}  # to the last bit
        try:
            content = path.read_bytes()
            whole = io.BytesIO(content[: content.rfind(b"\n") + 1])
            frame = pd.read_csv(whole, dtype=types, converters=exactly)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0] or "empty"
            raise ValueError(f"{path} is no {self.what} ({reason}); {self.remedy}") from None
        if tuple(frame.columns) != tuple(self.columns):
            raise ValueError(f"{path} is no {self.what}: its first line must be {self.header}; {self.remedy}")
        return frame

    def write(self, path: Path, frame: pd.DataFrame) -> None:
        """Write the file, whole or not at all.

        Raises:
            ValueError: the disk is full or not writable.
        """
        assert tuple(frame.columns) == tuple(self.columns), f"{path.name} has columns of its own"
        write_text(path, frame.to_csv(index=False, na_rep="nan", lineterminator="\n"))


# of each fold of the images: how many are classified correctly, and the sum of their losses (search/crossfit.py)
FOLD_COLUMNS = tuple(f"{what}_fold{fold}" for what in ("correct", "loss") for fold in range(1, FOLDS + 1))
_COSTS: dict[str, type] = {"layers": str, "flops": int, "params": int}

# one row per trial, in the order in which they were scored: see psvit.search.history.Trial
HISTORY = Table(
    "search history",
    {
        "number": int,
        **_COSTS,
        "top1": float,
        "loss": float,
        "num_images": int,
        "generation": int,
        **dict.fromkeys(FOLD_COLUMNS, float),
    },
    remedy="use another name= or out=, or move this folder away",
)
# the rows of the history that nothing beats at no more cost: see psvit.search.front
FRONT = Table("Pareto front", HISTORY.columns)
# the best trials: what the search scored, and what images that did not choose say: see psvit.search.claims
TOP = Table(
    "table of the best",
    {
        "place": int,
        **_COSTS,
        "top1": float,
        "loss": float,
        "num_images": int,
        **dict.fromkeys(("fresh_top1", "fresh_low", "fresh_high", "fresh_loss"), float),
        "behind": float,
        "behind_low": float,
        "behind_high": float,
    },
)
# trainings of networks alone, one per row: see psvit.search.benchmark
STANDALONE = Table(
    "table of networks trained alone",
    {**_COSTS, "seed": int, "epochs": int, "top1": float, "loss": float},
    remedy="run the psvit-search rank that made it again to rewrite it",
)
# inherited scores beside the means of networks trained alone: see psvit.search.correlation
RANK = Table(
    "table of a ranking",
    {
        **_COSTS,
        **dict.fromkeys(("inherited_top1", "inherited_loss", "standalone_top1", "standalone_loss"), float),
        "seeds": int,
    },
    remedy="run the same psvit-search rank again to rewrite it",
)
