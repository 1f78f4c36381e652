"""``metrics.csv``: one row an epoch, the same in a resumed run as in an unbroken one; TensorBoard beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from psvit.run.files import write_text

# columns that tell of the machine and of time, and so differ between two runs of one command
TIMED = ("images_per_second", "data_wait", "utilisation", "memory_mib")

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Metrics:
    """Appends rows of numbers to ``folder/metrics.csv``, and to TensorBoard's files where ``tensorboard`` is installed.

    The file is written anew with each row, whole or not at all, from rows that the checkpoint holds as well.

    Args:
        folder: the run folder.
        rows: of the complete epochs of the checkpoint that the run resumes from; each new one is appended to them.
        columns: what the rows will begin with.

    Raises:
        ValueError: the rows have other columns.
    """

    def __init__(self, folder: Path, rows: list[dict[str, float]], columns: Sequence[str] = ()) -> None:
        self.path, self._rows = folder / "metrics.csv", rows
        if rows and list(rows[0])[: len(columns)] != list(columns):
            self._refuse(columns)
        if rows or self.path.exists():
            self._write()
        self._tensorboard = _tensorboard(folder, after=int(rows[-1]["step"]) if rows else 0)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, row: dict[str, float]) -> None:
        """Append a row, which has ``epoch`` and ``step`` and the same keys each time.

        Raises:
            ValueError: the disk is full or not writable, or the row has other keys.
        """
        if self._rows and list(row) != list(self._rows[0]):
            self._refuse(list(row))
        self._rows.append(row)
        self._write()
        if self._tensorboard is not None:
            for name in row.keys() - {"epoch", "step"}:
                self._tensorboard.add_scalar(name, row[name], int(row["step"]))
            self._tensorboard.flush()

    def _write(self) -> None:
        lines = [list(self._rows[0]), *(row.values() for row in self._rows)] if self._rows else []
        write_text(self.path, "".join(",".join(map(str, line)) + "\n" for line in lines))

    def _refuse(self, columns: Sequence[str]) -> NoReturn:
        raise ValueError(
            f"{self.path} has the columns {', '.join(self._rows[0])}, but this version writes {', '.join(columns)}; "
            "use name=... or out=... for a new run"
        )


def _tensorboard(folder: Path, after: int) -> SummaryWriter | None:
    """A writer that hides what an earlier start wrote for steps later than ``after``; None without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)
