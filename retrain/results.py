"""Records of trained networks: ``result.json`` of ``retrain`` and ``detect train``, and ``compare.json``. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from psvit.intervals import Estimate
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


@dataclass(frozen=True)
class ComparedNetwork:
    """A network in a comparison.

    Attributes:
        network: its name and layers.
        flops, params: of it.
        seeds: of its trainings.
        top1, loss: a mean over these.
        ahead_top1, ahead_loss: how much better the first network is, paired image by image: its top-1 higher, its loss
            lower; None of the first one itself.
    """

    network: str
    flops: int
    params: int
    seeds: tuple[int, ...]
    top1: Estimate
    loss: Estimate
    ahead_top1: Estimate | None
    ahead_loss: Estimate | None


@dataclass(frozen=True)
class CompareRecord(Record):
    """``compare.json``: trained networks on the same test images.

    Attributes:
        first: the network that the others are compared with.
        data: name of the dataset.
        num_images: of its test split.
        epochs: of the first network's trainings.
        networks: all of them, the first one first.
        others: how many are other architectures of the first one's space.
        ahead_of_others: how much higher its top-1 is than their mean; None for fewer than two.
        tool: name and version of the program.
    """

    format: ClassVar[str] = "psvit-compare"
    remedy: ClassVar[str] = "run the same psvit-search compare again to rewrite it"

    first: str
    data: str
    num_images: int
    epochs: int
    networks: tuple[ComparedNetwork, ...]
    others: int
    ahead_of_others: Estimate | None
    tool: str

    @property
    def lines(self) -> list[str]:
        """A sentence on each pair, and one on the mean of the other architectures of the space."""
        first, *rest = self.networks
        lines = []
        for each in rest:
            assert each.ahead_top1 is not None
            cost = f"{first.flops / each.flops - 1:+.0%} FLOPs" if first.flops != each.flops else "the same FLOPs"
            lines.append(f"{first.network} against {each.network} ({cost}): {_verdict(each.ahead_top1)}")
        if self.ahead_of_others is not None:
            lines.append(
                f"{first.network} against the mean of the {self.others} other architectures of its space: "
                f"{_verdict(self.ahead_of_others)}"
            )
        return lines


def _verdict(ahead: Estimate) -> str:
    """What an interval of a difference of top-1 says."""
    if ahead.low > 0:
        return f"better in top-1 by {ahead}"
    if ahead.high < 0:
        return f"worse in top-1 by {Estimate(-ahead.value, -ahead.high, -ahead.low)}"
    return f"no difference in top-1 that this can tell, {ahead}"
