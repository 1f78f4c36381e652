"""Batches of training images: read by loader workers, augmented where the network is.

A worker reads some images, cuts them to size (or takes them whole, where all have one size) and sends them as uint8,
with all that is random about each already drawn. For a GPU run the rest happens on the GPU: decoding, if it can,
augmentation, mixing. For a CPU run the workers augment as well, since they are what runs in parallel there. What comes
out does not depend on the number of workers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.data.config import DataConfig
from psvit.data.images import Images
from psvit.data.loading import Batch, Decode, ahead_on_gpu, load
from psvit.data.plan import ALL, Part, Plan, Share
from psvit.data.splits import Integers
from psvit.data.transforms import Size, TrainTransform, mix
from psvit.run.random import numpy_rng, seed_of

CPU = torch.device("cpu")
CHUNK_BYTES = 2**23  # of uint8 pixels that a worker sends at once: 55 images of 224 px
REPLACEMENTS = 100  # broken images in a row after which there is no point in trying another one


class Key(NamedTuple):
    """What a worker is asked for: a chunk of a micro-batch.

    Attributes:
        last: whether it is the micro-batch's last chunk.
        mix_seed: of the micro-batch.
    """

    part: Part
    last: bool
    mix_seed: int


class CorruptImage(NamedTuple):
    """A training image that cannot be read, and the line that says why."""

    name: str
    reason: str


class Chunk(NamedTuple):
    """What a worker sends: n images of a micro-batch.

    Attributes:
        pixels: uint8 (m, 3, h, w), cut to size or whole, of the images that are not in ``jpegs``, in order; or of all
            of them, augmented: float32 (n, 3, *size).
        draws: (n, K), as the transform's.
        labels: int64 (n,).
        aspects: (n,) width / height of the pictures before they were squeezed into one size; None where none was.
        jpegs: uint8, the JPEG files of the other images one after the other; None where there are none. A tensor for
            each would cost a file descriptor each.
        lengths: (n) bytes of each image's JPEG, 0 if it is among ``pixels``.
        corrupt: images that others stand in for.
    """

    key: Key
    pixels: Tensor
    draws: Tensor
    labels: Tensor
    aspects: Tensor | None
    jpegs: Tensor | None
    lengths: list[int]
    corrupt: list[CorruptImage]


def chunk_keys(plan: Plan, steps: range, share: Share, image_size: Size) -> Iterator[Key]:
    """The chunks of a process's micro-batches. The main process draws these: a permutation per epoch, no more.

    A chunk is large enough that sending it costs little, and small enough for the memory that all chunks under way
    take, and for the wait for a run's first batch, which all workers load together.
    """
    most = max(16, CHUNK_BYTES // (3 * image_size[0] * image_size[1]))
    for step in steps:
        for micro in range(share.accumulate):
            images, versions, epoch = plan.part(step, micro, share)
            mix_seed = seed_of(plan.seed, "mix", step, micro, share.rank)
            for start in range(0, len(images), most):
                end = start + most
                yield Key(Part(images[start:end], versions[start:end], epoch), end >= len(images), mix_seed)


@dataclass(frozen=True)
class Source(TorchDataset[Chunk | ValueError]):
    """Chunks by key. A broken image's error is returned, as torch would wrap a raised one in a traceback.

    Attributes:
        indices: (n,) the images of the split, one of which replaces a broken one.
        skip: whether broken images are replaced.
        encoded: whether JPEGs are sent as the files they are; then they cannot be augmented here.
        augment: whether chunks are augmented here.
    """

    images: Images
    indices: Integers
    transform: TrainTransform
    seed: int
    skip: bool = False
    encoded: bool = False
    augment: bool = True

    def __getitem__(self, key: Key) -> Chunk | ValueError:
        try:
            return self._chunk(key)
        except ValueError as error:
            return ValueError(str(error))

    def _chunk(self, key: Key) -> Chunk:
        draws = self.transform.draws(self._seeds(key.part))
        numbers, pixels, jpegs, corrupt = list(key.part.images), [], [], []
        for place, draw in enumerate(draws):
            jpeg = self.images.encoded(numbers[place]) if self.encoded else None
            jpegs.append(jpeg or b"")
            if jpeg is None:
                image, numbers[place], worse = self.read(numbers[place], draw)
                pixels.append(image)
                corrupt += worse
        chunk = Chunk(
            key,
            torch.stack(pixels) if pixels else torch.empty(0, 3, *self.transform.size, dtype=torch.uint8),
            draws,
            torch.from_numpy(self.images.labels[numbers]),
            None if self.images.aspects is None else torch.from_numpy(self.images.aspects[numbers]),
            torch.frombuffer(bytearray().join(jpegs), dtype=torch.uint8) if any(jpegs) else None,
            [len(jpeg) for jpeg in jpegs],
            corrupt,
        )
        return chunk._replace(pixels=self.augmented([chunk])) if self.augment else chunk

    def _seeds(self, part: Part) -> list[int]:
        """Of the randomness of each image; which version of it is meant has a say only where there are several."""
        several = self.transform.augment.repeats > 1
        return [
            seed_of(self.seed, "augment", part.epoch, image, *([version] if several else []))
            for image, version in zip(part.images, part.versions, strict=True)
        ]

    @property
    def whole(self) -> bool:
        """Whether images, which then have one size, are sent as they are, to be cropped when they are augmented."""
        return self.transform.warps(self.images.size)

    def augmented(self, chunks: list[Chunk]) -> Tensor:
        """Their pixels, none of them missing, as the network sees them: float32 (n, 3, *size), on their device."""
        aspects = [chunk.aspects for chunk in chunks if chunk.aspects is not None]
        return self.transform.augment_batch(
            torch.cat([chunk.pixels for chunk in chunks]),
            torch.cat([chunk.draws for chunk in chunks]),
            torch.cat(aspects) if aspects else None,
            whole=self.whole,
        )

    def read(self, image: int, draw: Tensor) -> tuple[Tensor, int, list[CorruptImage]]:
        """An image as uint8 (3, h, w), or another one in its place if it is broken and to be skipped.

        Which one is a function of the seed and the image; it is augmented as the image would have been.

        Returns:
            The pixels, the number of the image that they are of, and the broken ones that were tried before.

        Raises:
            ValueError: it is broken and not to be skipped, or so are too many others.
        """
        corrupt: list[CorruptImage] = []
        for candidate in chain([image], self._others(image)):
            try:
                return self._cut(candidate, draw), candidate, corrupt
            except ValueError as error:
                if not self.skip:
                    raise
                corrupt.append(CorruptImage(self.images.names[candidate], str(error)))
        raise ValueError(f"{len(corrupt)} training images in a row are corrupt, the last: {corrupt[-1].reason}")

    def _others(self, image: int) -> Iterator[int]:
        rng = numpy_rng(self.seed, "in place of", image)
        for _ in range(REPLACEMENTS):
            yield int(self.indices[rng.integers(len(self.indices))])

    def _cut(self, image: int, draw: Tensor) -> Tensor:
        if self.whole:
            return self.images.read(image)
        aspect = None if self.images.aspects is None else float(self.images.aspects[image])

        def need(height: int, width: int) -> Size:
            wanted = self.transform.size
            if min(height // wanted[0], width // wanted[1]) < 2:  # too small for half of it to do; the usual case
                return height, width
            return self.transform.need((height, width), draw, aspect)

        return self.transform.cut(self.images.read(image, need), draw, aspect)


@dataclass
class BatchAssembler:
    """From chunks to micro-batches on a device.

    Attributes:
        decode: of JPEGs to the device; None where the source sends none.
        corrupt_limit: how many different images may be broken.
    """

    source: Source
    classes: int
    device: torch.device
    decode: Decode | None = None
    corrupt_limit: int = 0
    _corrupt: set[str] = field(default_factory=set)

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Batch]:
        """Images, float32 (b, 3, *size), and labels, int64 (b,), or targets, float32 (b, classes), if mixed.

        Raises:
            ValueError: too many images are broken.
        """
        part: list[Chunk] = []
        for chunk in chunks:
            part.append(self._on_device(chunk))
            self._report(part[-1].corrupt)
            if chunk.key.last:
                images = (
                    torch.cat([chunk.pixels for chunk in part]) if self.source.augment else self.source.augmented(part)
                )
                labels = torch.cat([chunk.labels for chunk in part]).to(self.device, non_blocking=True)
                part = []
                yield mix(images, labels, self.classes, self.source.transform.augment, chunk.key.mix_seed)

    def _on_device(self, chunk: Chunk) -> Chunk:
        """The chunk with the pixels of all its images."""
        pixels = chunk.pixels.to(self.device, non_blocking=True)
        if chunk.jpegs is None:
            return chunk._replace(pixels=pixels)
        decoded = iter(self._decoded([file for file in torch.split(chunk.jpegs, chunk.lengths) if len(file)]))
        rest, corrupt, labels, images = iter(pixels), list(chunk.corrupt), chunk.labels.clone(), []
        for place, (number, draw) in enumerate(zip(chunk.key.part.images, chunk.draws, strict=True)):
            if not chunk.lengths[place]:
                images.append(next(rest))
            elif (picture := next(decoded)) is not None:
                images.append(self.source.transform.cut(picture, draw))
            else:  # the CPU knows better, or else what is wrong with it
                image, instead, worse = self.source.read(number, draw)
                images.append(image.to(self.device))
                labels[place] = int(self.source.images.labels[instead])
                corrupt += worse
        return chunk._replace(pixels=torch.stack(images), labels=labels, corrupt=corrupt)

    def _decoded(self, files: list[Tensor]) -> list[Tensor | None]:
        """The pictures; None for one that cannot be decoded, which fails all that are decoded with it."""
        assert self.decode is not None
        try:
            return list(self.decode(files))
        except RuntimeError:
            return [None] if len(files) == 1 else [picture for file in files for picture in self._decoded([file])]

    def _report(self, corrupt: list[CorruptImage]) -> None:
        for name, reason in corrupt:
            if name in self._corrupt:
                continue
            self._corrupt.add(name)
            if len(self._corrupt) > self.corrupt_limit:
                raise ValueError(
                    f"{len(self._corrupt)} training images are corrupt, more than data.corrupt_limit="
                    f"{self.corrupt_limit}; the last: {reason}"
                )
            print(f"skipped corrupt image {len(self._corrupt)}: {reason}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class TrainingSet:
    """The images of a split as a training takes them, in steps.

    Step t is the (t % steps_per_epoch)-th slice of an order that is drawn for its epoch, t // steps_per_epoch. The
    order is a function of (seed, epoch), what becomes of an image of (seed, epoch, image) and, with repeated
    augmentation, of which version of the image it is: it matters neither where a run starts, nor how many workers load,
    nor into how many parts a step is cut. Mixup and cutmix are a function of (seed, step, micro-batch, rank) and mix
    images of one micro-batch: an image's partner does depend on how the step is cut.

    Attributes:
        images: the collection that the split is a part of.
        plan: which images each step is made of.
        transform: how they are augmented.
        classes: number of classes.
        config: how they are loaded: ``workers``, ``corrupt`` and ``corrupt_limit``.
    """

    images: Images
    plan: Plan
    transform: TrainTransform
    classes: int
    config: DataConfig

    def batches(
        self, steps: range, share: Share = ALL, device: torch.device = CPU, decode: Decode | None = None
    ) -> Iterator[Batch]:
        """The micro-batches of a process, those of a step one after the other.

        Args:
            steps: whose; a run may start at any step.
            share: what the process takes of each of them.
            device: of the batches, and where images are augmented; on a GPU one batch is made ahead, beside the step.
            decode: decodes JPEGs to the device; None leaves it to the workers.

        Yields:
            Images, float32 (b, 3, *size), and labels, int64 (b,), or targets, float32 (b, classes), if mixed.

        Raises:
            ValueError: a micro-batch would get no image; an image cannot be read, or more than ``data.corrupt_limit``
                where they are skipped.
        """
        self.plan.check(share)
        images, transform = self.images, self.transform
        on_gpu, skip = device.type == "cuda", self.config.corrupt == "skip"
        encoded = decode is not None and images.aspects is None and not transform.warps(images.size)
        augment = not (on_gpu or encoded)
        source = Source(images, self.plan.indices, transform, self.plan.seed, skip, encoded, augment)
        assemble = BatchAssembler(source, self.classes, device, decode, self.config.corrupt_limit)
        keys = chunk_keys(self.plan, steps, share, images.size or transform.size)
        chunks = load(source, keys, self.config.workers, on_gpu, ahead=4, patience=self.config.patience)  # small
        return ahead_on_gpu(chunks, assemble, device) if on_gpu else assemble(chunks)
