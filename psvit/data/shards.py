"""Large files that are read at any place, by any number of processes and threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPEN_FILES = 128  # that a process keeps open; a large cache has more shards than a process may open files


class ShardFiles:
    """Files that are read at any place, by any number of processes and threads; each process opens its own.

    Raises:
        ValueError: of ``read``; a file cannot be read, or ends before the place that is asked for.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._open: dict[int, _Descriptor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_open": {}}  # what goes to another process opens files of its own

    def read(self, number: int, offset: int, length: int) -> NDArray[np.uint8]:
        """``length`` bytes of a file, from ``offset`` on, in memory of their own."""
        content = np.empty(length, np.uint8)
        try:
            file = self._file(number)
            got = os.preadv(file.descriptor, [content.data], offset)  # moves no position that others share
        except OSError as error:
            raise ValueError(f"cannot read {self.paths[number]}: {error.strerror}") from error
        if got != length:
            raise ValueError(f"{self.paths[number]} is cut off at byte {offset + got}")
        return content

    def _file(self, number: int) -> _Descriptor:
        file = self._open.get(number)
        if file is None:
            file = _Descriptor(self.paths[number])
            self._open[number] = file
            if len(self._open) > OPEN_FILES:
                # closed when no thread reads from it any more; another thread may have dropped the same one
                self._open.pop(list(self._open)[0], None)  # noqa: RUF015  (next(iter()) is not safe with threads)
        return file


class _Descriptor:
    """An open file, closed when nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
