"""Top-1 and loss of networks over a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from psvit.engine.device import autocast


class Score(NamedTuple):
    """Share of images whose most likely class is right, and mean cross entropy; both NaN if any logit is."""

    top1: float
    loss: float


@torch.inference_mode()
def score_all(
    forwards: Sequence[Callable[[Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "auto",
) -> list[Score]:
    """The scores of several networks over the same batches, which are gone through once.

    Args:
        forwards: each maps images (B, channels, height, width) to logits (B, classes); in eval mode.
        batches: (images, integer labels (B,)).
    """
    correct = torch.zeros(len(forwards), dtype=torch.int64, device=device)
    losses = torch.zeros(len(forwards), dtype=torch.float64, device=device)
    images_seen = 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        images_seen += len(labels)
        for number, forward in enumerate(forwards):
            with autocast(device, precision):
                logits = forward(images)
            logits = logits.float()
            correct[number] += (logits.argmax(dim=1) == labels).sum()
            losses[number] += F.cross_entropy(logits, labels, reduction="sum").double()
    return [
        Score(math.nan, math.nan) if math.isnan(loss) else Score(hits / images_seen, loss / images_seen)
        for hits, loss in zip(correct.tolist(), losses.tolist(), strict=True)
    ]
