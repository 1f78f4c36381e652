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

    Args:
        folder: the run folder.
        epochs: complete epochs of the checkpoint that the run goes on from. Rows of later epochs, and a row that was
            cut short, are dropped, since they are about to be written again.
        columns: what the rows will begin with.

    Raises:
        ValueError: the file has other columns.
    """

    def __init__(self, folder: Path, epochs: int, columns: Sequence[str] = ()) -> None:
        self.path = folder / "metrics.csv"
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        self._columns = lines[0].strip().split(",") if lines else []
        if lines and self._columns[: len(columns)] != list(columns):
            self._refuse(columns)
        rows = [dict(zip(self._columns, line.strip().split(","), strict=True)) for line in lines[1:]]
        kept = [line for line, row in zip(lines[1:], rows, strict=True) if int(row["epoch"]) <= epochs]
        write_text(self.path, "".join(lines[:1] + kept))
        self._tensorboard = _tensorboard(folder, after=int(rows[len(kept) - 1]["step"]) if kept else 0)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, row: dict[str, float]) -> None:
        """Append a row, which has ``epoch`` and ``step`` and the same keys each time, and flush it.

        Raises:
            ValueError: the disk is full or not writable, or the file has other columns.
        """
        lines = "" if self._columns else ",".join(row) + "\n"
        self._columns = self._columns or list(row)
        if list(row) != self._columns:
            self._refuse(list(row))
        lines += ",".join(str(value) for value in row.values()) + "\n"
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror}; free some space and start again") from error
        if self._tensorboard is not None:
            for name in row.keys() - {"epoch", "step"}:
                self._tensorboard.add_scalar(name, row[name], int(row["step"]))
            self._tensorboard.flush()

    def _refuse(self, columns: Sequence[str]) -> NoReturn:
        raise ValueError(
            f"{self.path} has the columns {', '.join(self._columns)}, but this version writes {', '.join(columns)}; "
            "use name=... or out=... for a new run"
        )


def _tensorboard(folder: Path, after: int) -> SummaryWriter | None:
    """A writer that hides what an earlier start wrote for steps later than ``after``; None without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)
