"""Collections of labelled images, as they lie in memory or in a folder, and the dataset that is made of them.

Every image is a uint8 tensor (3, height, width) in RGB. Nothing is split, resized or augmented here. The images of a
packed cache are in ``packed.py``, those of tar shards in ``webdataset.py``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from psvit.data.decode import Need, plain_jpeg, read_image
from psvit.data.splits import Integers

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STAT_THREADS, _STAT_CHUNK = 16, 1024


class Images(Protocol):
    """Labelled images of one collection, numbered from 0 in an order that does not depend on the machine.

    Attributes:
        labels: (n,) int64.
        names: what identifies each image, whatever machine it lies on: its path below the folder, or its number.
        size: (height, width) where all images have the same, else None.
        aspects: (n,) width / height that each picture had before it was squeezed to ``size``; None where none was.
    """

    @property
    def labels(self) -> Integers: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def aspects(self) -> NDArray[np.float32] | None: ...

    def stamps(self) -> Integers:
        """(n,) what tells a changed image without decoding it: the size of its file in bytes, or a checksum."""

    def read(self, index: int, need: Need | None = None) -> Tensor:
        """The image as uint8 (3, height, width).

        Args:
            need: allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time, as long as it
                gets no smaller than this asks for. What else the collection holds is read as it is.

        Raises:
            ValueError: its file cannot be read; the message names it.
        """

    def encoded(self, index: int) -> bytes | None:
        """The bytes of an image that any JPEG decoder turns into the pixels of :meth:`read`, up to its rounding.

        None for what only :meth:`read` gets right, or knows what is wrong with: other formats, files that are turned
        by EXIF, cut off or missing, and JPEGs of other colours than YCbCr and grey.
        """


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory: ``pixels`` is uint8 (n, 3, height, width)."""

    pixels: Tensor
    labels: Integers

    @property
    def names(self) -> Sequence[str]:
        return [str(index) for index in range(len(self.labels))]

    @property
    def size(self) -> tuple[int, int] | None:
        return self.pixels.shape[2], self.pixels.shape[3]

    @property
    def aspects(self) -> NDArray[np.float32] | None:
        return None

    def stamps(self) -> Integers:
        return np.array([zlib.crc32(image.contiguous().numpy().data) for image in self.pixels], np.int64)

    def read(self, index: int, need: Need | None = None) -> Tensor:
        return self.pixels[index]

    def encoded(self, index: int) -> bytes | None:
        return None


@dataclass(frozen=True)
class FolderImages:
    """Image files, ``names`` below ``root``."""

    root: Path
    names: Sequence[str]
    labels: Integers
    size: tuple[int, int] | None = None
    aspects: NDArray[np.float32] | None = None

    def stamps(self) -> Integers:
        return file_sizes(self.root, self.names)

    def read(self, index: int, need: Need | None = None) -> Tensor:
        return read_image(self.root / self.names[index], need)

    def encoded(self, index: int) -> bytes | None:
        try:
            return plain_jpeg((self.root / self.names[index]).read_bytes())
        except OSError:
            return None


@dataclass(frozen=True)
class Dataset:
    """A dataset as it lies on the disk, before its search split is held out.

    Attributes:
        train: the images to learn from; all images where the dataset has no test split of its own.
        open_test: opens the dataset's own test split; None where it has none.
        image_size: (height, width) that it is usually trained at; None where that is the network's choice.
        mean, std: of its RGB values in 0..1.
        photographs: whether its images are pictures whose margin may be cut off to look at the middle.
    """

    class_names: tuple[str, ...]
    train: Images
    open_test: Callable[[], Images] | None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    photographs: bool = False


def file_sizes(root: Path, names: Sequence[str]) -> Integers:
    """(n,) bytes of files below a folder, -1 of what is not there.

    Several threads ask for them: a disk on the network takes its time to answer.
    """

    def chunk(start: int) -> list[int]:
        return [_file_size(root / name) for name in names[start : start + _STAT_CHUNK]]

    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        sizes = [size for part in pool.map(chunk, range(0, len(names), _STAT_CHUNK)) for size in part]
    return np.array(sizes, np.int64)


def _file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
