"""The images of a split, decoded and resized once, to be gone through many times."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from psvit.data.data import Data
from psvit.data.loading import Batch
from psvit.data.splits import Integers
from psvit.run.random import numpy_rng

KEEP_BYTES = 4 * 2**30  # more than that is kept in a file, not in memory


class Pixels:
    """The images of a split as uint8, in an order whose every beginning has the classes in their proportions.

    They are decoded when first asked for, and kept in memory, or in a nameless file where they are large.

    Args:
        split: of the images, such as ``search``.
        size: (height, width) that they are resized to.
        num_images: how many of them; the beginning of the order. None takes all.
        seed: of the order.
        folder: of the file that holds what is too large for the memory.
        keep_bytes: what is too large.
    """

    def __init__(
        self,
        data: Data,
        split: str,
        size: tuple[int, int],
        num_images: int | None,
        seed: int,
        folder: Path | None = None,
        *,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._data, self._split, self._size = data, split, size
        labels = data.labels(split)
        self.order = stratified_order(labels, seed)[:num_images]
        self.labels = labels[self.order]
        shape = (len(self.order), 3, *size)
        if np.prod(shape) <= keep_bytes:
            self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        else:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:  # the map keeps what no name leads to any more
                self._pixels = torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
        self._there = np.zeros(len(self.order), dtype=bool)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, spans: Sequence[range], device: torch.device) -> Iterator[Batch]:
        """Each span of images: float32 (b, 3, *size), normalised, and labels (b,), on the device.

        Raises:
            ValueError: an image cannot be read.
        """
        missing = [span for span in spans if not self._there[span.start : span.stop].all()]
        decoded = self._data.pixel_batches(
            self._split, self._size, (self.order[span.start : span.stop].tolist() for span in missing)
        )
        for span in spans:
            part = slice(span.start, span.stop)
            if not self._there[part].all():
                self._pixels[part] = next(decoded)[0]
                self._there[part] = True
            images = self._pixels[part].to(device, non_blocking=True)
            yield self._data.normalize(images), torch.from_numpy(self.labels[part]).to(device)


def stratified_order(labels: Integers, seed: int) -> Integers:
    """A random order of images (n,) of which every beginning has each class in its proportion, to about one image.

    The j-th of a class's n images, in an order of chance, stands at a place of chance between j/n and (j+1)/n of the
    whole.
    """
    rng = numpy_rng(seed, "image order")
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(places, kind="stable")
