"""``psvit-search detect evaluate``: average precision of a detector's boxes and masks on the validation images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from psvit.data.loading import load
from psvit.detection.backbone import find_backbone, make_backbone
from psvit.detection.coco import CocoImages, Target, open_split
from psvit.detection.config import DetectEvaluateConfig, DetectTrainConfig, HeadConfig
from psvit.detection.metrics import KEYS, Precision, average_precision
from psvit.detection.model import Detector
from psvit.detection.plots import draw_detections
from psvit.engine.device import autocast, pick_device
from psvit.figures import check_picture
from psvit.networks import Network
from psvit.weights import load_weights, read_about

_PICTURED = 12  # images


def evaluate_detector(config: DetectEvaluateConfig) -> Precision:
    """Score a detector on the validation images and print its average precision.

    Raises:
        ValueError: an unknown network, weights of another one or that are no detector's, or data of other classes.
    """
    picture = None if config.save is None else Path(config.save)
    if picture is not None:
        check_picture(picture)
    device = pick_device(config.device)
    detector, class_names = load_detector(find_backbone(config.arch), Path(config.weights))
    val = open_split(config.data, "val")
    check_classes(config.weights, class_names, val)
    scores = measure(detector.to(device), val, device, config.precision, config.data.workers, picture)
    print("\n".join(table(scores)))
    return scores


def about_detector(
    network: Network, config: DetectTrainConfig, class_names: tuple[str, ...], detector: Detector
) -> dict[str, Any]:
    """What the header of a detector's weights says: all that :func:`load_detector` needs."""
    return {
        **network.about(),
        "class_names": list(class_names),
        "detector": {
            "heads": asdict(config.heads),
            "min_size": max(config.recipe.min_sizes),
            "max_size": config.recipe.max_size,
            "frozen": config.start is not None,
            "mean": list(detector.transform.image_mean),
            "std": list(detector.transform.image_std),
        },
    }


def load_detector(network: Network, weights: Path) -> tuple[Detector, tuple[str, ...]]:
    """A trained detector, from its weights alone and the network that it stands on; and the names of its classes.

    Raises:
        ValueError: the weights are missing or damaged, no detector's, or those of one on another network.
    """
    about = read_about(weights)
    if "detector" not in about:
        raise ValueError(
            f"{weights} holds a classifier, not a detector: train a detector with psvit-search detect train"
        )
    sizes, class_names = about["detector"], tuple(about["class_names"])
    heads = HeadConfig(**sizes["heads"])
    backbone = make_backbone(network, heads.fpn_channels, frozen=sizes["frozen"])
    colours = {key: sizes[key] for key in ("mean", "std") if key in sizes}  # older files have none
    detector = Detector(backbone, len(class_names), heads, sizes["min_size"], sizes["max_size"], **colours)
    load_weights(weights, detector)
    return detector, class_names


def check_classes(weights: str, class_names: tuple[str, ...], images: CocoImages) -> None:
    """Refuse data of other classes than the weights, by number or by name.

    Raises:
        ValueError: they differ.
    """
    if class_names == images.class_names:
        return
    different = f"{len(class_names)} classes, the data {len(images.class_names)}"
    if len(class_names) == len(images.class_names):
        was, found = next(pair for pair in zip(class_names, images.class_names, strict=True) if pair[0] != pair[1])
        different = f"a class {was!r} where the data has {found!r}"
    raise ValueError(f"{weights} has {different}: give the data it was trained on (data.root=...)")


def measure(
    detector: Detector,
    images: CocoImages,
    device: torch.device,
    precision: str,
    workers: int,
    picture: Path | None = None,
) -> Precision:
    """Average precision on images, which are gone through one by one.

    Args:
        detector: on the device; it is in eval mode afterwards.
        workers: processes that load images.
        picture: gets the first images, and what is and what was found in them.
    """
    detector.eval()
    shown: list[tuple[Tensor, Target, Mapping[str, Tensor]]] = []

    def found() -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        for image, target in load(_Whole(images), range(len(images)), workers, pin=device.type == "cuda", ahead=4):
            with torch.inference_mode(), autocast(device, precision):
                (prediction,) = detector([image.to(device)])
            if picture is not None and len(shown) < _PICTURED:
                shown.append((image, target, {key: value.cpu() for key, value in prediction.items()}))
            yield target["image_id"], prediction

    scores = average_precision(images, found())
    if picture is not None:
        pictures, targets, predictions = zip(*shown, strict=True)
        draw_detections(pictures, targets, predictions, images.class_names, picture)
    return scores


@dataclass(frozen=True)
class _Whole(TorchDataset[tuple[Tensor, Target] | ValueError]):
    """Images as they are. The error of a broken one is returned, as torch would wrap a raised one in a traceback."""

    images: CocoImages

    def __getitem__(self, index: int) -> tuple[Tensor, Target] | ValueError:
        try:
            return self.images[index]
        except ValueError as error:
            return ValueError(str(error))


def table(scores: Precision) -> list[str]:
    """Lines that show average precision in percent; a dash where there was nothing of a size."""
    lines = ["".join(["      ", *(f"{key:>7}" for key in KEYS)])]
    for part, values in scores.items():
        shown = [values[key] for key in KEYS]
        lines.append(
            "".join([f"{part:<6}", *(f"{'-' if value is None else f'{100 * value:.1f}':>7}" for value in shown)])
        )
    return lines
