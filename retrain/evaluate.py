"""``psvit-search evaluate``: top-1, loss and other metrics of retrained weights on a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from psvit.data.data import Data, open_data
from psvit.engine.device import pick_device
from psvit.engine.scoring import Watch, measure_all, metrics_text
from psvit.retrain.config import EvaluateConfig
from psvit.retrain.fit import open_trained


def evaluate(config: EvaluateConfig) -> dict[str, float]:
    """Score weights on a split and print every metric of :mod:`psvit.engine.scoring`.

    Returns:
        Name of the metric, such as ``top1`` -> its mean over the images.

    Raises:
        ValueError: an unknown or faulty network, weights of another one, or data of classes that it does not know.
    """
    device = pick_device(config.device)
    trained = open_trained(config.arch, Path(config.weights), open_data(config.data))
    (measured,) = measure_networks(
        [trained.module.to(device)],
        trained.data,
        config.split,
        trained.network.image_size,
        batch_size=config.batch_size,
        device=device,
    )
    print(f"{config.split} {metrics_text(measured)} on {trained.data.size(config.split):,} images")
    return measured


def measure_networks(
    networks: Sequence[nn.Module],
    data: Data,
    split: str,
    image_size: tuple[int, int],
    *,
    batch_size: int,
    device: torch.device,
    watch: Watch | None = None,
) -> list[dict[str, float]]:
    """The metrics of several weights of a network on a split, whose images are read once.

    Args:
        watch: as :func:`psvit.engine.scoring.measure_all` takes it.
    """
    for network in networks:
        network.eval()
    return measure_all(networks, data.eval_batches(split, image_size, batch_size), device, watch=watch)
