"""One affine look-up in every image of a batch, and how small numbers get to the device that the batch is on."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample


def send(numbers: NDArray[Any], device: torch.device) -> Tensor:
    """Numbers of the host to a device; a GPU gets them when it comes to it, and the host does not wait for that."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def warp(images: Tensor, maps: Tensor, size: tuple[int, int], fill: Tensor | None = None) -> Tensor:
    """Look up each pixel of the output, bilinear: uint8 (n, 3, H, W) to uint8 (n, 3, *size).

    Nothing is averaged: an image that is made much smaller would alias.

    Args:
        maps: float32 (n, 2, 3), from a place (x, y, 1) in the output to the place (x, y) in the image that is seen
            there, where -1 and 1 are the outer edges of the first and the last pixel.
        fill: float32 (3, 1, 1), the colour of what lies beyond the image; None is black.
    """
    y, x = ((torch.arange(side, device=images.device) * 2 + 1) / side - 1 for side in size)  # centres of the pixels
    a = maps[..., None, None]
    # Written out, as a matrix product may round otherwise for another batch size.
    across, down = (a[:, row, 0] * x + a[:, row, 2] + a[:, row, 1] * y[:, None] for row in (0, 1))
    inside = ((across.abs() <= 1) & (down.abs() <= 1))[:, None]
    look_up = torch.empty(*across.shape, 2, device=images.device)
    look_up[..., 0], look_up[..., 1] = across, down  # torch.stack takes several times as long
    found = grid_sample(images.float(), look_up, mode="bilinear", padding_mode="border", align_corners=False).round_()
    return (found.mul_(inside) if fill is None else torch.where(inside, found, fill)).to(torch.uint8)
