"""From pictures to what a network sees: cut out, augmented and normalised.

In: uint8 (3, H, W). Out: float32 (3, h, w), normalised by the mean and standard deviation of the dataset; of an image
that is scored uint8 (3, h, w), a quarter of the bytes, to be normalised where it is needed. What a training image
becomes is a function of the image and one seed, whatever else is in its batch; the state of torch's own random numbers
is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import AugmentConfig
from psvit.data.randaugment import Floats, color_jitter, flip, randaugment
from psvit.data.warp import send, warp
from psvit.preprocessing import Colour, Preprocessing
from psvit.run.random import numpy_rng

Size = tuple[int, int]

WARP_LIMIT = 1.5  # times the size that is seen: what is larger must be averaged over, or it would alias

TRIES = 10  # boxes that are drawn until one fits into the image, as torchvision and timm do
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the crop that keeps the whole image: top, left, height and width
CPU_VALUES = 2**20  # pixel values that are worked on at a time on a CPU

SPLITMIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # step of the counter, factors of the hash

# Random erasing as in DeiT: the share of the image that is erased, and its height / width.
ERASED_AREA = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)
NOISE = 2**21  # normal numbers that are kept to erase with; 8 MB


@dataclass(frozen=True)
class Normalize:
    """uint8 to float32 with a mean of 0 and a standard deviation of 1 over the dataset, for one image or a batch."""

    mean: Colour
    std: Colour

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = send(np.array([self.mean, self.std], np.float32) * 255, images.device).view(2, 3, 1, 1)
        return images.float().sub_(mean).div_(std)


@dataclass(frozen=True)
class EvalTransform:
    """What is done to an image that is scored: resized as its :class:`Preprocessing` says, not yet normalised."""

    size: Size
    preprocessing: Preprocessing

    def __call__(self, images: Sequence[Tensor], aspects: Sequence[float] | None = None) -> Tensor:
        """uint8 images of any sizes to uint8 (n, 3, *size).

        Args:
            aspects: (n,) width / height of each picture before it was squeezed into its image; None: as the images are.
        """
        return torch.stack([self._resize(image, aspects[i] if aspects else None) for i, image in enumerate(images)])

    def _resize(self, image: Tensor, aspect: float | None) -> Tensor:
        if self.preprocessing.resize == "stretch":
            return _resize(image, self.size)
        height, width = image.shape[1:] if aspect is None else (1.0, aspect)
        rows, columns = (round(side / self.preprocessing.crop) for side in self.size)
        if height * columns > width * rows:  # too tall: it is the width that must fit
            rows = int(height * columns / width)
        else:
            columns = int(width * rows / height)
        cropped: Tensor = F.center_crop(_resize(image, (rows, columns)), list(self.size))
        return cropped


def _resize(image: Tensor, size: Size) -> Tensor:
    resized: Tensor = F.resize(image, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized


class _Draws(NamedTuple):
    """What is drawn for each image, (n, k) each, uniform in [0, 1)."""

    crop: Floats  # areas and aspect ratios
    place: Floats  # vertical and horizontal
    flip: Floats
    rotate: Floats
    jitter: Floats  # order and three factors
    randaugment: Floats  # for each operation which, whether, sign and magnitude
    erase: Floats  # whether
    patch: Floats  # areas and aspect ratios
    patch_place: Floats
    noise: Floats  # where it begins


@dataclass(frozen=True)
class TrainTransform:
    """What is done to a training image: random resized crop, flip, rotation, colours, normalisation, random erasing.

    What is drawn for an image is a function of its seed, and what becomes of it a function of the draws alone. Images
    that have one size, not much larger than ``size``, are cropped in batch (:meth:`warps`); from others a worker cuts
    what is needed, antialiased (:meth:`need`, :meth:`cut`). All else is done in batch, on the device of the images.
    """

    size: Size
    augment: AugmentConfig
    normalize: Normalize

    def warps(self, image_size: Size | None) -> bool:
        """Whether images of this size go whole into :meth:`augment_batch`; None is a size of their own each.

        Larger ones must be averaged over when they are made smaller, which :meth:`cut` does.
        """
        return image_size is not None and all(
            side <= WARP_LIMIT * wanted for side, wanted in zip(image_size, self.size, strict=True)
        )

    def draws(self, seeds: Sequence[int]) -> Tensor:
        """All that is random about images with these seeds: float32 (n, K), uniform in [0, 1)."""
        return uniforms(seeds, sum(self._widths))

    @property
    def _widths(self) -> list[int]:
        """How many numbers each field of :class:`_Draws` has."""
        return [2 * TRIES, 2, 1, 1, 4, 4 * self.augment.randaugment_ops, 1, 2 * TRIES, 2, 1]

    def _split(self, draws: Tensor) -> _Draws:
        return _Draws(*np.split(draws.numpy().astype(np.float64), np.cumsum(self._widths)[:-1], axis=1))

    def need(self, shape: Size, draw: Tensor, aspect: float | None = None) -> Size:
        """The smallest (height, width) at which a picture of a shape may be decoded.

        It is then no more enlarged by :meth:`cut` than it would be from the full ``shape``.
        """
        _, _, down, across = self._crop(shape, draw, aspect)
        height, width = math.ceil(self.size[0] / down), math.ceil(self.size[1] / across)
        return min(shape[0], height), min(shape[1], width)

    def cut(self, image: Tensor, draw: Tensor, aspect: float | None = None) -> Tensor:
        """Random resized crop of one image, antialiased: uint8 (3, H, W) and its draws (K,) to uint8 (3, *size)."""
        height, width = image.shape[1:]
        top, left, down, across = self._crop((height, width), draw, aspect)
        rows, columns = max(1, round(down * height)), max(1, round(across * width))
        top, left = min(round(top * height), height - rows), min(round(left * width), width - columns)
        return _resize(image[:, top : top + rows, left : left + columns], self.size)

    def _crop(self, shape: Size, draw: Tensor, aspect: float | None) -> tuple[float, float, float, float]:
        aspects = np.array([shape[1] / shape[0] if aspect is None else aspect])
        top, left, down, across = self._crops(self._split(draw[None]), aspects)[0].tolist()
        return top, left, down, across

    def _crops(self, draws: _Draws, aspects: Floats) -> Floats:
        """Random resized crops (n, 4): top, left, height and width as shares of the image's height and width."""
        if list(self.augment.crop_scale) == [1, 1]:
            return np.tile(WHOLE, (len(aspects), 1))
        low, high = self.augment.crop_ratio
        area, ratio = _boxes(draws.crop, self.augment.crop_scale, self.augment.crop_ratio)
        ratio = ratio / aspects[:, None]
        sides = np.sqrt([area / ratio, area * ratio])  # (2, n, TRIES)
        fits = np.all(sides <= 1, axis=0)
        first = fits.argmax(axis=1)
        sides = sides[:, np.arange(len(first)), first]
        # torchvision's way out: as much as there is of the image, in its middle, at the nearest ratio that is allowed
        none = ~fits.any(axis=1)
        nearest = np.clip(aspects, low, high) / aspects
        sides = np.where(none, np.minimum(1, [1 / nearest, nearest]), sides)
        places = np.where(none[:, None], 0.5, draws.place)
        return np.concatenate([(1 - sides.T) * places, sides.T], axis=1)

    def augment_batch(
        self, images: Tensor, draws: Tensor, aspects: Tensor | None = None, *, whole: bool = False
    ) -> Tensor:
        """All that is done in batch, on the device of the images, which the host does not wait for.

        Args:
            images: uint8 (n, 3, h, w): what was cut out, or whole images, which are cropped here.
            draws: (n, K), on the CPU.
            aspects: (n,) on the CPU, width / height of each whole image before it was squeezed to (h, w); None: w / h.
            whole: whether the images are whole; those that are not of ``size`` always are.

        Returns:
            float32 (n, 3, *size), normalised; what becomes of an image depends on nothing else in the batch.
        """
        # A CPU is several times as fast while what it works on stays in its cache.
        step = len(images) if images.device.type != "cpu" else max(1, CPU_VALUES // images[:1].numel())
        parts = (slice(start, start + step) for start in range(0, len(images), step))
        whole = whole or (images.shape[2], images.shape[3]) != self.size
        if aspects is None:
            aspects = torch.full((len(images),), images.shape[3] / images.shape[2])
        augmented = [
            self._augment(images[part], self._split(draws[part]), aspects[part].numpy(), whole) for part in parts
        ]
        return augmented[0] if len(augmented) == 1 else torch.cat(augmented)

    def _augment(self, images: Tensor, draws: _Draws, aspects: Floats, whole: bool) -> Tensor:
        augment, device = self.augment, images.device
        if whole or augment.rotate:
            crops = self._crops(draws, aspects) if whole else np.tile(WHOLE, (len(images), 1))
            images = warp(images, send(self._maps(draws, crops), device), self.size)
        elif augment.flip:
            images = flip(images, np.flatnonzero(draws.flip[:, 0] < augment.flip))
        if augment.randaugment_ops:
            each_operation = draws.randaugment.reshape(len(images), -1, 4)
            fill = send(np.array(self.normalize.mean, np.float32).reshape(3, 1, 1) * 255, device).round_()
            images = randaugment(
                images,
                each_operation,
                augment.randaugment_magnitude,
                augment.randaugment_std,
                augment.randaugment_probability,
                fill,
            )
        elif augment.color_jitter:
            images = color_jitter(images, draws.jitter, augment.color_jitter)
        pixels = self.normalize(images)
        return self._erase(pixels, draws) if augment.erasing else pixels

    def _maps(self, draws: _Draws, crops: Floats) -> Floats:
        """float32 (n, 2, 3) for :func:`psvit.data.warp.warp`: turned and mirrored within the crop."""
        top, left, down, across = crops.T
        mirror = np.where(draws.flip[:, 0] < self.augment.flip, -1, 1)
        angle = np.radians(self.augment.rotate) * (2 * draws.rotate[:, 0] - 1)
        sine, cosine, shape = np.sin(angle), np.cos(angle), self.size[0] / self.size[1]
        rows = [
            [across * mirror * cosine, -across * mirror * sine * shape, 2 * left + across - 1],
            [down * sine / shape, down * cosine, 2 * top + down - 1],
        ]
        return np.array(rows, np.float32).transpose(2, 0, 1)

    def _erase(self, pixels: Tensor, draws: _Draws) -> Tensor:
        """Random erasing (arXiv 1708.04896), in place: normal noise in a rectangle."""
        height, width = self.size
        area, ratio = _boxes(draws.patch, ERASED_AREA, ERASED_RATIO)
        sides = np.round(np.sqrt([area * ratio, area / ratio]) * math.sqrt(height * width)).astype(np.intp)
        fits = (sides[0] < height) & (sides[1] < width)
        erased = (draws.erase[:, 0] < self.augment.erasing) & fits.any(axis=1)
        noise = _noise(max(NOISE, 2 * height * width), pixels.device)
        # Slices with ends that the host knows cost less than masks and noise for the whole batch, also on a GPU.
        for image in np.flatnonzero(erased).tolist():
            rows, columns = sides[:, image, fits[image].argmax()].tolist()
            down, across = draws.patch_place[image].tolist()
            top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
            start, length = int(draws.noise[image, 0] * (len(noise) - 3 * rows * columns)), 3 * rows * columns
            patch = noise[start : start + length].view(3, rows, columns)
            pixels[image, :, top : top + rows, left : left + columns] = patch
        return pixels


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Uniform in [0, 1), float32 (n, count): of each seed the first outputs of SplitMix64.

    That is a counter and a hash (Steele, Lea and Flood, 2014), so that a whole batch is drawn at once.
    """
    state = np.array(seeds, np.uint64)[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(SPLITMIX[0])
    state = (state ^ (state >> np.uint64(30))) * np.uint64(SPLITMIX[1])
    state = (state ^ (state >> np.uint64(27))) * np.uint64(SPLITMIX[2])
    state = (state ^ (state >> np.uint64(31))) >> np.uint64(40)  # a float32 holds 24 bits
    return torch.from_numpy(state.astype(np.float32) * np.float32(2**-24))


def _boxes(draws: Floats, areas: Sequence[float], ratios: Sequence[float]) -> tuple[Floats, Floats]:
    """Areas, uniform, and aspect ratios, uniform in their logarithm, (n, TRIES) each, of (n, 2 * TRIES) draws."""
    area, ratio = np.split(draws, 2, axis=1)
    low, high = np.log(ratios)
    return areas[0] + (areas[1] - areas[0]) * area, np.exp(low + (high - low) * ratio)


@cache
def _noise(length: int, device: torch.device) -> Tensor:
    """Normal noise (length,) of which an erased rectangle gets a part.

    So its noise is the same on all devices, is a function of one draw, and costs no more than a copy. Two rectangles
    may share some of it, shifted; nothing can be learnt from that.
    """
    return torch.from_numpy(numpy_rng(0, "erasing").standard_normal(length, np.float32)).to(device)


def mix(images: Tensor, labels: Tensor, classes: int, augment: AugmentConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of a batch, as ``augment`` asks: images float32 (n, 3, h, w) and labels (n,), on any device.

    Each image is mixed with the one half a batch away (arXiv 1710.09412, 1905.04899), all in one proportion: its
    neighbours may be other versions of itself (``augment.repeats``). Nothing is drawn from torch's own generators, as
    this may run in a thread beside a step that seeds them.

    Returns:
        Mixed images and targets (n, classes) that sum to 1; or, with probability 1 - ``mix_probability``, the same
        images and labels.
    """
    rng = np.random.default_rng(seed)
    ways = [pair for pair in ((_mixup, augment.mixup), (_cutmix, augment.cutmix)) if pair[1]]
    if not ways or rng.random() >= augment.mix_probability:
        return images, labels
    way, alpha = ways[rng.integers(len(ways))]
    images, share = way(images, float(rng.beta(alpha, alpha)), rng)
    targets = one_hot(labels, classes).float()
    return images, torch.lerp(targets.roll(len(targets) // 2, 0), targets, share)


def _mixup(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    half = len(images) // 2
    mixed = torch.empty_like(images)  # in two pieces: a rolled copy would take as long as all the rest
    torch.lerp(images[: len(images) - half], images[half:], share, out=mixed[half:])
    torch.lerp(images[len(images) - half :], images[:half], share, out=mixed[:half])
    return mixed, share


def _cutmix(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """A box of 1 - ``share`` of the area, about a place of chance and cut off at the edges; and what share is left."""
    height, width = images.shape[2:]
    row, column = rng.integers((height, width)).tolist()
    down, across = (int(side * math.sqrt(1 - share) / 2) for side in (height, width))
    rows = slice(max(0, row - down), min(height, row + down))
    columns = slice(max(0, column - across), min(width, column + across))
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[:, :, rows, columns].roll(len(images) // 2, 0)
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
