"""From pictures to what a network sees: cut out, varied and normalised.

In: uint8 (3, H, W). Out: float32 (3, h, w), normalised by the mean and standard deviation of the dataset; of an image
that is scored uint8 (3, h, w), a quarter of the bytes, to be normalised where it is needed. What a training image
becomes is a function of the image and one seed, whatever else is in its batch; the state of torch's own random numbers
is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from psvit.data.config import AugmentConfig

Size = tuple[int, int]
Colour = tuple[float, float, float]

# A photograph is looked at in its middle: this share of its shorter side, the custom of ImageNet (224 of 256 pixels).
EVAL_CROP = 0.875
EVAL_CROP_FROM = 64  # pixels: smaller images have no margin to spare


@dataclass(frozen=True)
class Normalize:
    """uint8 to float32 with a mean of 0 and a standard deviation of 1 over the dataset, for one image or a batch."""

    mean: Colour
    std: Colour

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(colour, device=images.device).mul(255).view(3, 1, 1) for colour in (self.mean, self.std)
        )
        return images.float().sub_(mean).div_(std)


@dataclass(frozen=True)
class EvalTransform:
    """What is done to an image that is scored: resized, and of a large photograph the middle cut out.

    Photographs seen at 64 pixels or more are resized, keeping their shape, to cover ``size`` / 0.875, of which the
    middle is cut out; all other images are resized to ``size``.
    """

    size: Size
    photographs: bool

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """uint8 images of any sizes to uint8 (n, 3, *size)."""
        return torch.stack([self._resize(image) for image in images])

    def _resize(self, image: Tensor) -> Tensor:
        if not self.photographs or min(self.size) < EVAL_CROP_FROM:
            return _resize(image, self.size)
        (height, width), (rows, columns) = image.shape[1:], (round(side / EVAL_CROP) for side in self.size)
        if height * columns > width * rows:  # too tall: it is the width that must fit
            rows = int(height * columns / width)
        else:
            columns = int(width * rows / height)
        cropped: Tensor = F.center_crop(_resize(image, (rows, columns)), list(self.size))
        return cropped


def _resize(image: Tensor, size: Size) -> Tensor:
    resized: Tensor = F.resize(image, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized


@dataclass(frozen=True)
class TrainTransform:
    """What is done to a training image: random resized crop, flip, rotation, colours, normalisation, random erasing.

    Every step is torchvision's. But where only crop, flip and rotation are on and no image of the dataset is larger
    than ``size``, one affine warp of the whole batch does all three (:func:`warp`), in a tenth of the time.

    Attributes:
        image_size: (height, width) of all images of the dataset, None if they differ.
    """

    size: Size
    augment: AugmentConfig
    normalize: Normalize
    image_size: Size | None

    def __call__(self, images: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
        """Images, one seed for each, to float32 (n, 3, *size)."""
        enlarged = self.image_size is not None and all(a <= b for a, b in zip(self.image_size, self.size, strict=True))
        if enlarged and not (self.augment.randaugment_ops or self.augment.color_jitter or self.augment.erasing):
            return self.normalize(warp(torch.stack(list(images)), seeds, self.size, self.augment))
        steps = self._steps()
        varied = []
        with torch.random.fork_rng(devices=[]):
            for image, seed in zip(images, seeds, strict=True):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for the GPU's as well
                varied.append(steps(image))
        return torch.stack(varied)

    def _steps(self) -> Any:
        augment = self.augment
        bicubic, bilinear = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
        steps: list[Any] = []
        if list(augment.crop_scale) == [1, 1]:
            steps.append(v2.Resize(self.size, interpolation=bicubic, antialias=True))
        else:
            crop = {"scale": tuple(augment.crop_scale), "ratio": tuple(augment.crop_ratio)}
            steps.append(v2.RandomResizedCrop(self.size, **crop, interpolation=bicubic, antialias=True))
        if augment.flip:
            steps.append(v2.RandomHorizontalFlip(augment.flip))
        if augment.rotate:
            steps.append(v2.RandomRotation(augment.rotate, interpolation=bilinear))
        if augment.randaugment_ops:
            operations, magnitude = augment.randaugment_ops, augment.randaugment_magnitude
            steps.append(v2.RandAugment(operations, magnitude, interpolation=bilinear))
        elif augment.color_jitter:
            steps.append(v2.ColorJitter(*[augment.color_jitter] * 3))
        steps.append(self.normalize)
        if augment.erasing:
            steps.append(v2.RandomErasing(augment.erasing, value="random"))
        return v2.Compose(steps)


def warp(images: Tensor, seeds: Sequence[int], size: Size, augment: AugmentConfig) -> Tensor:
    """Random resized crop, flip and rotation in one bilinear look-up: uint8 (n, 3, H, W) to uint8 (n, 3, *size).

    Meant for images that are not larger than ``size``, since nothing is averaged. What is rotated into view from
    beyond the image is black.
    """
    maps = torch.tensor([_affine_map(seed, (images.shape[2], images.shape[3]), size, augment) for seed in seeds])
    # centres of the output pixels, as grid_sample counts: -1 and 1 are the outer edges of the first and last pixel
    y, x = ((torch.arange(side) * 2 + 1) / side - 1 for side in size)
    a = maps[..., None, None]
    # written out, as a matrix product may round otherwise for another batch size
    look_up = torch.stack([a[:, row, 0] * x + a[:, row, 1] * y[:, None] + a[:, row, 2] for row in (0, 1)], dim=-1)
    found = grid_sample(images.float(), look_up, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (look_up.abs() <= 1).all(dim=-1)[:, None]
    return found.mul_(inside).round_().to(torch.uint8)


def _affine_map(seed: int, image_size: Size, size: Size, augment: AugmentConfig) -> list[list[float]]:
    """From a place (x, y, 1) in the output to the place (x, y) in the image that is seen there, both in [-1, 1]."""
    draws = torch.rand(6, generator=torch.Generator().manual_seed(seed)).tolist()
    across = down = 1.0  # width and height of the crop, as shares of the image's
    if list(augment.crop_scale) != [1, 1]:
        area = augment.crop_scale[0] + (augment.crop_scale[1] - augment.crop_scale[0]) * draws[0]
        low, high = (math.log(ratio) for ratio in augment.crop_ratio)
        ratio = math.exp(low + (high - low) * draws[1]) * image_size[0] / image_size[1]
        across, down = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    left, top = (1 - across) * (2 * draws[2] - 1), (1 - down) * (2 * draws[3] - 1)
    mirror = -1.0 if draws[4] < augment.flip else 1.0
    angle = math.radians(augment.rotate) * (2 * draws[5] - 1)
    sine, cosine, shape = math.sin(angle), math.cos(angle), size[0] / size[1]
    return [
        [across * mirror * cosine, -across * mirror * sine * shape, left],
        [down * sine / shape, down * cosine, top],
    ]


def mix(images: Tensor, labels: Tensor, classes: int, augment: AugmentConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of a batch, as ``augment`` asks: images (n, 3, h, w) and labels (n,).

    Returns:
        Mixed images and targets (n, classes) that sum to 1; or, with probability 1 - ``mix_probability``, the same
        images and labels.
    """
    ways = [
        way(alpha=alpha, num_classes=classes)
        for way, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        if alpha
    ]
    if not ways or not augment.mix_probability:
        return images, labels
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if torch.rand(()) >= augment.mix_probability:
            return images, labels
        mixed: tuple[Tensor, Tensor] = v2.RandomChoice(ways)(images, labels)
        return mixed
