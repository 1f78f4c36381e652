"""The tables of a search and of a ranking: the columns of their CSV files. No torch."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from psvit.run.files import read_appended, write_text
from psvit.run.records import shown
from psvit.search.crossfit import FOLDS

_TYPES = {int: "int64", str: "str"}
_SEAL = "crc32"


@dataclass(frozen=True)
class Table:
    """A CSV file of ours, whose first line names its columns.

    Attributes:
        what: the file is called so in messages.
        columns: name -> int, float or str; a float may be NaN.
        remedy: what to do about a file that cannot be read.
        grows: whether rows are appended while a search runs, so that the last line may be cut short. Any other table is
            written whole.
        sealed: whether each line ends with the CRC32 of its row's place and all that stands before it, in hexadecimal
            digits: a value that was changed, by a disk or in an editor, or a row that was lost, would else be believed.
            The place is the row's number, from 1, and where the table does not grow, of how many (``2/31``), so that
            rows that were lost at its end are missed, too.
    """

    what: str
    columns: Mapping[str, type]
    remedy: str = "run the same search again to rewrite it"
    grows: bool = False
    sealed: bool = False

    @property
    def header(self) -> str:
        """The first line of the file."""
        return ",".join([*self.columns, *([_SEAL] if self.sealed else [])])

    def _place(self, row: int, rows: int | None) -> str:
        assert self.grows == (rows is None), "a table that does not grow knows how many rows it has"
        return f"{row}" if rows is None else f"{row}/{rows}"

    def seal(self, row: int, values: str, rows: int | None = None) -> str:
        """The values of a row, from 1, as they stand in the file; ``rows`` is how many a table has that is whole."""
        return f"{values},{_crc32(self._place(row, rows), values)}" if self.sealed else values

    def unseal(self, row: int, line: str, rows: int | None = None) -> str:
        """The values of a row, from 1, by its line in the file; ``rows`` as in :meth:`seal`.

        Raises:
            ValueError: they are not those that were written.
        """
        if not self.sealed:
            return line
        values, _, found = line.rpartition(",")
        if found != (expected := _crc32(self._place(row, rows), values)):
            raise ValueError(f"its checksum {shown(found)} is not {expected}, that of its values in this place")
        return values

    def _unsealed(self, lines: Sequence[str]) -> Iterator[str]:
        rows = None if self.grows else len(lines)
        for row, line in enumerate(lines, start=1):
            try:
                yield self.unseal(row, line, rows)
            except ValueError as error:
                raise ValueError(f"line {row + 1}: {error}") from None

    def read(self, path: Path) -> pd.DataFrame:
        """The rows of a file; of one that grows without a last line that was cut short, as while the search runs or
        where it was killed.

        Raises:
            ValueError: the file is missing or cut short, or has other columns or a value of another type.
        """
        types = {name: _TYPES[kind] for name, kind in self.columns.items() if kind is not float}
        exactly = {name: float for name, kind in self.columns.items() if kind is float}  # to the last bit
        try:
            content = read_appended(path) if self.grows else path.read_bytes()
            if content and not self.grows and not content.endswith(b"\n"):
                raise ValueError("its last line is cut short")
            header, *lines = content[: content.rfind(b"\n") + 1].decode().splitlines() or [""]
            if header == self.header:
                if self.sealed and not self.grows and not lines:
                    raise ValueError("its rows are missing")
                lines = [",".join(self.columns), *self._unsealed(lines)]
                frame = pd.read_csv(io.StringIO("\n".join(lines)), dtype=types, converters=exactly)
            elif not header:
                raise ValueError("empty")
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{path} is no {self.what} ({reason}); {self.remedy}") from None
        if header != self.header:
            raise ValueError(f"{path} is no {self.what}: its first line must be {self.header}; {self.remedy}")
        return frame

    def write(self, path: Path, frame: pd.DataFrame) -> None:
        """Write the file, whole or not at all.

        Raises:
            ValueError: the disk is full or not writable.
        """
        assert tuple(frame.columns) == tuple(self.columns), f"{path.name} has columns of its own"
        lines = frame.to_csv(index=False, header=False, na_rep="nan", lineterminator="\n").splitlines()
        rows = None if self.grows else len(lines)
        sealed = [self.seal(row, line, rows) for row, line in enumerate(lines, start=1)]
        write_text(path, "".join(f"{line}\n" for line in [self.header, *sealed]))


def _crc32(place: str, values: str) -> str:
    return f"{zlib.crc32(f'{place},{values}'.encode()):08x}"


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
    grows=True,
    sealed=True,
)
# the rows of the history that nothing beats at no more cost: see psvit.search.front
FRONT = Table("Pareto front", HISTORY.columns, sealed=True)
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
    sealed=True,
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
