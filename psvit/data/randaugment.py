"""RandAugment (arXiv 1909.13719) and colour jitter of a batch of images, each with operations and strengths of its own.

The operations and what a magnitude means for each are those of timm's ``rand-m9-mstd0.5-inc1``, which DeiT is trained
with: 15 operations, all of them the stronger the larger the magnitude. timm counts magnitudes to 10, we as torchvision
do to 30.

What is drawn and how the batch is grouped by operation is settled on the host, in NumPy; each operation then takes
all images of its group at once, on the device that they are on, and asks that device for no value. An operation
rounds as torchvision's function of that name does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from psvit.data.warp import send, warp

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.intp]
Apply = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""uint8 images (n, 3, h, w), float32 arguments (n, k), colour of what is beyond the image (3, 1, 1) to uint8 images."""

MAX_MAGNITUDE = 30


class Work(NamedTuple):
    """An operation, the images of the batch that it is for, and their arguments, (n, k)."""

    apply: Apply
    images: Integers
    arguments: Floats


def work_on(images: Tensor, work: Sequence[Work], fill: Tensor | None = None) -> Tensor:
    """Do work on a batch, uint8 (n, 3, h, w): every image is in one group at most, and in none if it stays as it is."""
    if not work:
        return images
    chosen = np.concatenate([one.images for one in work])
    place = np.arange(len(images)) + len(chosen)  # of each image in: what is done, then the batch as it was
    place[chosen] = np.arange(len(chosen))
    # All arguments travel at once; each operation gets a view of its own.
    numbers = np.concatenate([one.arguments.ravel() for one in work]).astype(np.float32)
    arguments = torch.split_with_sizes(send(numbers, images.device), [one.arguments.size for one in work])
    copies = images.index_select(0, send(chosen, images.device))
    groups = torch.split_with_sizes(copies, [len(one.images) for one in work])
    done = [
        one.apply(group, argument.view(one.arguments.shape), fill)
        for one, group, argument in zip(work, groups, arguments, strict=True)
    ]
    return torch.cat([*done, images]).index_select(0, send(place, images.device))  # index_copy is much slower on a CPU


# What an operation does. Arguments are (n, 1), but (n, 6) of an affine map.


def _affine(images: Tensor, maps: Tensor, fill: Tensor | None) -> Tensor:
    return warp(images, maps.view(-1, 2, 3), (images.shape[2], images.shape[3]), fill)


def _auto_contrast(images: Tensor, _: Tensor, __: Tensor | None) -> Tensor:
    # as torchvision's, which sets the values of flat channels through a mask; a GPU would be waited for
    pixels = images.float()
    darkest, lightest = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    flat = darkest == lightest
    step = (lightest - darkest).mul_(1 / 255).masked_fill_(flat, 1)
    return pixels.sub_(darkest.masked_fill_(flat, 0)).div_(step).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, _: Tensor, __: Tensor | None) -> Tensor:
    equalized: Tensor = F.equalize(images)
    return equalized


def _invert(images: Tensor, _: Tensor, __: Tensor | None) -> Tensor:
    return images.bitwise_not()


def _posterize(images: Tensor, mask: Tensor, _: Tensor | None) -> Tensor:
    return images & _each(mask.to(torch.uint8))


def _solarize(images: Tensor, threshold: Tensor, _: Tensor | None) -> Tensor:
    return torch.where(images >= _each(threshold.to(torch.int16)), images.bitwise_not(), images)


def _solarize_add(images: Tensor, add: Tensor, _: Tensor | None) -> Tensor:
    return torch.where(images < 128, images + _each(add.to(torch.uint8)), images)  # at most 128 is added


def _brightness(images: Tensor, factor: Tensor, _: Tensor | None) -> Tensor:
    return images.mul(_each(factor)).clamp_(0, 255).to(torch.uint8)


def _contrast(images: Tensor, factor: Tensor, _: Tensor | None) -> Tensor:
    # summed as integers: a float32 sum depends on how the batch is cut up
    mean = _grey(images).to(torch.int64).sum((2, 3), keepdim=True) / (images.shape[2] * images.shape[3])
    return _blend(mean, images, factor)


def _colour(images: Tensor, factor: Tensor, _: Tensor | None) -> Tensor:
    return _blend(_grey(images), images, factor)


def _sharpness(images: Tensor, factor: Tensor, _: Tensor | None) -> Tensor:
    if min(images.shape[2:]) < 3:
        return images
    pixels = images.to(torch.int16)
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    middle = images[:, :, 1:-1, 1:-1]
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1] = _blend(around.add_(middle, alpha=4).div(13).round_(), middle, factor)
    return sharpened


def _each(numbers: Tensor) -> Tensor:
    """(n, 1) to (n, 1, 1, 1): one for each image."""
    return numbers[..., None, None]


def _grey(images: Tensor) -> Tensor:
    red, green, blue = torch.split_with_sizes(images, [1, 1, 1], dim=1)
    return red.mul(0.2989).add_(green.mul(0.587)).add_(blue.mul(0.114)).floor_()


def _blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """From a degenerate image at 0 by way of the image itself at 1 to what exaggerates it."""
    # Step by step, and so in _grey: what rounds twice in one go may do so otherwise in another place of the batch.
    blended = images.float().sub_(degenerate).mul_(_each(factor)).add_(degenerate)
    return blended.clamp_(0, 255).to(torch.uint8)


# What the arguments are for a strength, the magnitude as a share of the largest, of either sign: (n,) to (n, k).
# Affine maps are given in the coordinates of psvit.data.warp, for images of a shape that is height / width.


class Operation(NamedTuple):
    """One of RandAugment's operations: what it does, and with what argument at a signed strength in [-1, 1]."""

    apply: Apply
    arguments: Callable[[Floats, float], Floats]


def _argument(of_strength: Callable[[Floats], Floats]) -> Callable[[Floats, float], Floats]:
    return lambda strength, shape: of_strength(strength)[:, None]


def _rows(*entries: Floats | float) -> Floats:
    return np.stack(np.broadcast_arrays(*entries), axis=1)  # the six of an affine map


def _mask(strength: Floats) -> Floats:
    bits = np.maximum(1, 4 - np.floor(4 * np.abs(strength)))  # that are kept; with none, as timm's at 10, all is black
    return 256 - np.exp2(8 - bits)


def _rotation(strength: Floats, shape: float) -> Floats:
    angle = np.radians(30 * strength)
    sine, cosine = np.sin(angle), np.cos(angle)
    return _rows(cosine, -sine * shape, 0, sine / shape, cosine, 0)


def _shear_x(strength: Floats, shape: float) -> Floats:
    shear = 0.3 * strength * shape
    return _rows(1, shear, shear, 0, 1, 0)


def _shear_y(strength: Floats, shape: float) -> Floats:
    shear = 0.3 * strength / shape
    return _rows(1, 0, 0, shear, 1, shear)


_nothing = _argument(np.zeros_like)
_factor = _argument(lambda strength: np.maximum(0.1, 1 + 0.9 * strength))

OPERATIONS = {
    "auto contrast": Operation(_auto_contrast, _nothing),
    "equalize": Operation(_equalize, _nothing),
    "invert": Operation(_invert, _nothing),
    "rotate": Operation(_affine, _rotation),
    "posterize": Operation(_posterize, _argument(_mask)),
    "solarize": Operation(_solarize, _argument(lambda strength: 256 - np.floor(256 * np.abs(strength)))),
    "solarize add": Operation(_solarize_add, _argument(lambda strength: np.floor(110 * np.abs(strength)))),
    "colour": Operation(_colour, _factor),
    "contrast": Operation(_contrast, _factor),
    "brightness": Operation(_brightness, _factor),
    "sharpness": Operation(_sharpness, _factor),
    "shear x": Operation(_affine, _shear_x),
    "shear y": Operation(_affine, _shear_y),
    "translate x": Operation(_affine, lambda strength, _: _rows(1, 0, 0.9 * strength, 0, 1, 0)),
    "translate y": Operation(_affine, lambda strength, _: _rows(1, 0, 0, 0, 1, 0.9 * strength)),
}


def randaugment(
    images: Tensor, draws: Floats, magnitude: float, std: float, probability: float, fill: Tensor
) -> Tensor:
    """A few operations after each other, of 15 that are equally likely: uint8 (n, 3, h, w) to the same.

    Args:
        draws: uniform in [0, 1), (n, operations, 4): which operation, whether it is applied, sign, magnitude.
        magnitude: mean of the magnitudes, 0 to 30, which are normal with the standard deviation ``std`` and clipped.
        probability: with which an operation is applied.
        fill: float32 (3, 1, 1), the colour of what is moved into view from beyond the image.
    """
    shape = images.shape[2] / images.shape[3]
    operations = list(OPERATIONS.values())
    for which, applied, sign, normal in draws.transpose(1, 2, 0):
        deviation = std * torch.special.ndtri(torch.from_numpy(normal + 2.0**-25)).numpy()  # 0 would be at -infinity
        strength = np.clip(magnitude + deviation, 0, MAX_MAGNITUDE) / MAX_MAGNITUDE * np.where(sign < 0.5, -1, 1)
        numbers = np.where(applied < probability, which * len(operations), -1).astype(np.intp)
        work = [
            Work(operations[number].apply, group, operations[number].arguments(strength[group], shape))
            for number, group in _groups(numbers)
        ]
        images = work_on(images, work, fill)
    return images


_JITTERS = (_brightness, _contrast, _colour)
_ORDERS = np.array(list(itertools.permutations(range(len(_JITTERS)))))


def color_jitter(images: Tensor, draws: Floats, strength: float) -> Tensor:
    """Brightness, contrast and saturation times 1 - ``strength`` to 1 + ``strength``, in any order.

    Args:
        draws: uniform in [0, 1), (n, 4): the order and the three factors.
    """
    orders = _ORDERS[(draws[:, 0] * len(_ORDERS)).astype(np.intp)]  # (n, 3): what comes first, second, third
    low, high = max(0.0, 1 - strength), 1 + strength
    factors = low + (high - low) * draws[:, 1:]
    for step in orders.T:
        work = [Work(_JITTERS[number], group, factors[group, number, None]) for number, group in _groups(step)]
        images = work_on(images, work)
    return images


def flip(images: Tensor, mirrored: Integers) -> Tensor:
    """Left and right change places in some images of a batch, (k,) indices."""
    work = Work(lambda images, _, __: images.flip(3), mirrored, np.empty((len(mirrored), 0)))
    return work_on(images, [work] if len(mirrored) else [])


def _groups(numbers: Integers) -> list[tuple[int, Integers]]:
    """Each number that is not negative, and where it is found."""
    return [(number, np.flatnonzero(numbers == number)) for number in np.unique(numbers[numbers >= 0]).tolist()]
