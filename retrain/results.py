"""``result.json`` of ``retrain`` and of ``detect train``: what a trained network reaches. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from psvit.run.records import Record

_AGAIN = "delete it and run the same command again to rewrite it"


@dataclass(frozen=True)
class RetrainRecord(Record):
    """``result.json`` of ``retrain``.

    Attributes:
        top1, loss: on the test split, of ``model.safetensors``.
        metrics: name of each further metric of :mod:`psvit.engine.scoring` -> its value, of the same weights.
        ema_top1, ema_loss: of the moving average of the weights; None where the recipe keeps none.
        data: name of the dataset.
        num_test_images: of its test split.
        trained_on: the split that was learned from, ``train+search`` or ``train``.
        num_images: of that split.
        epochs, seed: of the training.
        start: the weights that it started from; None for random ones.
        teacher: the network that it learned from as well; None without one.
        network: its name.
        layers: of each stage; None for a network of torchvision.
        flops, params: of the network.
        arch_sha256: of arch.json; None for a network of torchvision.
        weights_sha256: of model.safetensors.
        tool: name and version of the program.
    """

    format: ClassVar[str] = "psvit-retrain-result"
    version: ClassVar[int] = 2  # in 1 the moving average's figures were called top1 and loss
    remedy: ClassVar[str] = _AGAIN

    top1: float
    loss: float
    metrics: dict[str, float]
    ema_top1: float | None
    ema_loss: float | None
    data: str
    num_test_images: int
    trained_on: str
    num_images: int
    epochs: int
    seed: int
    start: str | None
    teacher: str | None
    network: str
    layers: str | None
    flops: int
    params: int
    arch_sha256: str | None
    weights_sha256: str
    tool: str


@dataclass(frozen=True)
class DetectRecord(Record):
    """``result.json`` of ``detect train``.

    Attributes:
        network: name of the backbone.
        layers: of the backbone; None for a network of torchvision.
        data: name of the folder of the images.
        box, mask: name of the figure (``AP``, ``AP50``, ...) -> its share of 1; None where there is nothing to find.
        num_val_images: that it was scored on.
        num_images: that it learned from.
        classes: that are told apart.
        epochs, min_sizes, max_size, seed: of the training.
        start: the weights that the backbone started from; None for random ones.
        params: of the whole detector.
        weights_sha256: of model.safetensors.
        tool: name and version of the program.
    """

    format: ClassVar[str] = "psvit-detect-result"
    remedy: ClassVar[str] = _AGAIN

    network: str
    layers: str | None
    data: str
    box: dict[str, float | None]
    mask: dict[str, float | None]
    num_val_images: int
    num_images: int
    classes: int
    epochs: int
    min_sizes: tuple[int, ...]
    max_size: int
    seed: int
    start: str | None
    params: int
    weights_sha256: str
    tool: str
