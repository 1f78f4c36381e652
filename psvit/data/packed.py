"""The images of a packed cache (``store.py``), as the dataset that it was made from."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psvit.data.decode import Need, decode_image, plain_jpeg
from psvit.data.images import Dataset, Images
from psvit.data.shards import ShardFiles
from psvit.data.splits import Integers
from psvit.data.store import Table, check_shards, read_index, read_table, shard_name, unpack_names


def open_packed(root: Path) -> Dataset:
    """The dataset that a cache was made from, as the cache has it.

    Raises:
        ValueError: there is no cache, it is of a later version, or a file of it is missing, cut off or too long.
    """
    index = read_index(root)
    check_shards(root, index)

    def part(split: str) -> Images:
        table = read_table(root, split, index.tables[split])
        shards = ShardFiles([root / shard_name(split, number) for number in range(len(index.shards[split]))])
        return PackedImages(shards, table, raw=index.settings["store"] == "raw")

    return Dataset(
        index.class_names,
        part("train"),
        (lambda: part("test")) if "test" in index.tables else None,
        index.image_size,
        index.mean,
        index.std,
        index.photographs,
    )


@dataclass(frozen=True)
class PackedImages:
    """The images of a split of a cache; every image is compared with its CRC32 when it is read."""

    files: ShardFiles
    table: Table
    raw: bool

    @property
    def labels(self) -> Integers:
        return self.table.labels

    @cached_property
    def names(self) -> Sequence[str]:
        return unpack_names(self.table.names)

    @cached_property
    def size(self) -> tuple[int, int] | None:
        shapes = self.table.shapes
        return (int(shapes[0, 0]), int(shapes[0, 1])) if (shapes == shapes[0]).all() else None

    @property
    def aspects(self) -> NDArray[np.float32] | None:
        return self.table.aspects if self.raw else None

    def stamps(self) -> Integers:
        return self.table.crc32.astype(np.int64)

    def read(self, index: int, need: Need | None = None) -> Tensor:
        content = self._content(index)
        if self.raw:
            height, width = self.table.shapes[index].tolist()
            return torch.from_numpy(content).view(3, height, width)
        return decode_image(BytesIO(content.data), f"{index} of {self._shard(index)}", need)

    def encoded(self, index: int) -> bytes | None:
        if self.raw:
            return None
        try:
            return plain_jpeg(self._content(index).tobytes())
        except ValueError:
            return None

    def _shard(self, index: int) -> Path:
        return self.files.paths[self.table.shard[index]]

    def _content(self, index: int) -> NDArray[np.uint8]:
        table = self.table
        try:
            content = self.files.read(int(table.shard[index]), int(table.offset[index]), int(table.length[index]))
            if zlib.crc32(content.data) == table.crc32[index]:
                return content
            fault = f"{self._shard(index)} is damaged"
        except ValueError as error:
            fault = str(error)
        root = self._shard(index).parent
        raise ValueError(
            f"{fault}, at image {self.names[index]}; psvit-search prepare-data --save {root} --verify lists all "
            "damaged files and how to repair them"
        )
