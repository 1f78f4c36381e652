"""``psvit-search evaluate``: top-1, loss and other metrics of retrained weights on a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pad, resize

from psvit.data.data import Data, open_data
from psvit.engine.device import pick_device
from psvit.engine.scoring import measure_all, metrics_text
from psvit.retrain.config import EvaluateConfig
from psvit.retrain.fit import open_trained
from psvit.retrain.plots import draw_predictions

_PICTURED = 48  # test images on the sheet of predictions


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
    sheet: Path | None = None,
) -> list[dict[str, float]]:
    """The metrics of several weights of a network on a split, whose images are read once.

    Args:
        sheet: gets a picture of some images and what the first network took them for.
    """
    answers: list[Tensor] = []

    def first(images: Tensor) -> Tensor:
        logits: Tensor = networks[0](images)
        answers.append(logits.argmax(dim=1).cpu())
        return logits

    for network in networks:
        network.eval()
    batches = data.eval_batches(split, image_size, batch_size)
    measured = measure_all([first, *networks[1:]], batches, device)
    if sheet is not None:
        labels, predictions = data.labels(split), torch.cat(answers).numpy()
        shown = np.argsort(labels == predictions, kind="stable")[:_PICTURED]  # mistakes first: they say more
        images = np.stack([_thumbnail(data.image(split, int(index))) for index in shown])
        draw_predictions(images, labels[shown], predictions[shown], data.class_names, sheet, measured[0]["top1"])
    return measured


def _thumbnail(image: Tensor) -> npt.NDArray[np.uint8]:
    """A whole image on a white square, uint8 (3, height, width) -> (96, 96, 3)."""
    height, width = image.shape[-2:]
    scale = 96 / max(height, width)
    small = resize(image, [max(1, round(height * scale)), max(1, round(width * scale))], antialias=True)
    left, top = (96 - small.shape[2]) // 2, (96 - small.shape[1]) // 2
    square = pad(small, [left, top, 96 - small.shape[2] - left, 96 - small.shape[1] - top], fill=255)
    thumbnail: npt.NDArray[np.uint8] = square.permute(1, 2, 0).numpy()
    return thumbnail
