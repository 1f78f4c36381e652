"""Metrics of networks over a split: top-1, loss, and whatever else the registry holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from psvit.engine.device import autocast

Watch = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Metric:
    """The mean of a figure per image.

    Attributes:
        label: what it is called in what commands print.
        per_image: float32 logits (B, classes) and integer labels (B,) -> (B,).
        min_classes: with fewer classes it says nothing, and is left out.
    """

    label: str
    per_image: Callable[[Tensor, Tensor], Tensor]
    min_classes: int = 2


# `evaluate` prints all of these, and `retrain` writes them into result.json.
METRICS: dict[str, Metric] = {
    "top1": Metric("top-1", lambda logits, labels: logits.argmax(dim=1) == labels),
    "loss": Metric("loss", lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")),
    "top5": Metric("top-5", lambda logits, labels: (logits.topk(5).indices == labels[:, None]).any(dim=1), 6),
}


class Score(NamedTuple):
    """Share of images whose most likely class is right, and mean cross entropy; both NaN if any logit is."""

    top1: float
    loss: float


def score_all(
    forwards: Sequence[Callable[[Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "auto",
    watch: Watch | None = None,
) -> list[Score]:
    """Top-1 and loss of several networks over the same batches; otherwise as :func:`measure_all`."""
    metrics = {name: METRICS[name] for name in Score._fields}
    return [Score(**measured) for measured in measure_all(forwards, batches, device, precision, metrics, watch)]


@torch.inference_mode()
def measure_all(
    forwards: Sequence[Callable[[Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "auto",
    metrics: Mapping[str, Metric] = METRICS,
    watch: Watch | None = None,
) -> list[dict[str, float]]:
    """The metrics of several networks over the same batches, which are gone through once.

    Args:
        forwards: each maps images (B, channels, height, width) to logits (B, classes); in eval mode.
        batches: (images, integer labels (B,)).
        watch: ``watch(number, logits, labels)`` is called with the answers of each network to each batch.

    Returns:
        For each network the mean of each metric that its number of classes allows; all NaN if any logit is.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in forwards]
    images_seen = 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        images_seen += len(labels)
        for number, (forward, totals) in enumerate(zip(forwards, sums, strict=True)):
            with autocast(device, precision):
                logits = forward(images)
            logits = logits.float()
            if watch is not None:
                watch(number, logits, labels)
            for name, metric in metrics.items():
                if logits.shape[1] >= metric.min_classes:
                    total = metric.per_image(logits, labels).sum(dtype=torch.float64)
                    totals[name] = totals[name] + total if name in totals else total
    return [_means(totals, images_seen) for totals in sums]


def _means(sums: Mapping[str, Tensor], images: int) -> dict[str, float]:
    """Sums over the images divided by their number; all NaN where the loss is."""
    totals = dict(zip(sums, torch.stack([*sums.values()]).tolist(), strict=True))
    if math.isnan(totals["loss"]):  # the class that argmax gives may be the right one although logits are NaN
        return dict.fromkeys(totals, math.nan)
    return {name: total / images for name, total in totals.items()}


def metrics_text(measured: Mapping[str, float]) -> str:
    """Metrics as commands print them: ``top-1 0.9123, loss 0.3456``."""
    return ", ".join(f"{METRICS[name].label} {value:.4f}" for name, value in measured.items())
