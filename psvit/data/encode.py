"""One image as a packed cache holds it: decoded, made smaller once, and encoded again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.data.images import Images


class Record(NamedTuple):
    """An image as a cache holds it; ``aspect`` is that of the picture it was made from."""

    content: bytes
    length: int
    crc32: int
    height: int
    width: int
    aspect: float


class Unreadable(NamedTuple):
    """An image that cannot be read, and why."""

    reason: str


@dataclass(frozen=True)
class Encoder:
    """What becomes of a picture.

    A JPEG keeps its aspect ratio, with ``size`` pixels on the shorter side; smaller pictures stay as they are. Colours
    are kept at full resolution (4:4:4): of a picture that is small already, 4:2:0 would drop three quarters of the
    colour values to save some 30 % of the bytes. ``raw`` squeezes, and where needed enlarges, every picture to
    ``size`` x ``size``.
    """

    store: str
    size: int
    quality: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture of this size gets."""
        if self.store == "raw":
            return self.size, self.size
        shorter = min(height, width)
        if shorter <= self.size:
            return height, width
        return round(height * self.size / shorter), round(width * self.size / shorter)

    def need(self, height: int, width: int) -> tuple[int, int]:
        """At which size a JPEG may be decoded: twice the final one, so that resizing does what can be seen."""
        rows, columns = self.shape(height, width)
        return 2 * rows, 2 * columns

    def __call__(self, picture: Tensor, aspect: float | None = None) -> Record:
        """A uint8 picture (3, height, width) as a record; ``aspect`` where it was squeezed before."""
        height, width = picture.shape[1:]
        rows, columns = self.shape(height, width)
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        if (rows, columns) != (height, width):
            image = image.resize((columns, rows), Image.Resampling.BICUBIC)
        if self.store == "raw":
            content = np.asarray(image).transpose(2, 0, 1).tobytes()
        else:
            file = BytesIO()
            image.save(file, "JPEG", quality=self.quality, subsampling="4:4:4")
            content = file.getvalue()
        return Record(content, len(content), zlib.crc32(content), rows, columns, aspect or width / height)


class RecordChunk(NamedTuple):
    """Records without their bytes, and these, one behind the other.

    A tensor travels in shared memory. Bytes would go through a pipe, and a worker whose main process was killed would
    wait for ever to write into it.
    """

    records: list[Record | Unreadable]
    content: Tensor

    @classmethod
    def of(cls, records: Sequence[Record | Unreadable]) -> RecordChunk:
        content = bytearray().join(record.content for record in records if isinstance(record, Record))
        bare = [record._replace(content=b"") if isinstance(record, Record) else record for record in records]
        return cls(bare, torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8))

    def whole(self) -> Iterator[Record | Unreadable]:
        content, start = self.content.numpy().tobytes(), 0
        for record in self.records:
            if isinstance(record, Record):
                yield record._replace(content=content[start : start + record.length])
                start += record.length
            else:
                yield record


@dataclass(frozen=True)
class EncodedImages(TorchDataset[RecordChunk | ValueError]):
    """The images of some collections as records, by collection and numbers."""

    parts: Mapping[str, Images]
    encoder: Encoder

    def __getitem__(self, key: tuple[str, range]) -> RecordChunk:
        split, numbers = key
        return RecordChunk.of([self.record(self.parts[split], number) for number in numbers])

    def record(self, images: Images, number: int) -> Record | Unreadable:
        try:
            picture = images.read(number, self.encoder.need)
        except ValueError as error:
            return Unreadable(str(error))
        return self.encoder(picture, None if images.aspects is None else float(images.aspects[number]))
