"""``psvit-search detect train``: Mask R-CNN on a classifier of ours or a ResNet, trained and scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import psvit
from psvit.archfile import ArchFile
from psvit.detection.backbone import find_backbone
from psvit.detection.coco import CocoImages, open_split, overview
from psvit.detection.config import DetectTrainConfig
from psvit.detection.evaluate import about_detector, measure, table
from psvit.detection.feed import DetectionFeed, Target
from psvit.detection.metrics import Precision
from psvit.detection.model import Detector, make_detector
from psvit.detection.record import detection_record
from psvit.engine.loop import Task, Trained, Validate, train
from psvit.engine.runtime import Runtime
from psvit.networks import Network
from psvit.retrain.artifacts import WEIGHTS, save_trained, tell_files
from psvit.retrain.results import DetectRecord
from psvit.run.files import sha256
from psvit.run.random import seed_of


@dataclass(frozen=True)
class DetectResult:
    """What a training made: the run folder, the weights in it, and their average precision on the validation images."""

    folder: Path
    weights: Path
    scores: Precision


def train_detector(config: DetectTrainConfig) -> DetectResult:
    """Train a detector, or resume where the run folder stands.

    Writes ``model.safetensors``, ``result.json``, pictures and, of a network of ours, ``arch.json``; and
    ``model_ema.safetensors``, the moving average of the weights, if the recipe keeps one.

    Raises:
        ValueError: an unknown network or one that is no backbone, starting weights of another network, data that are
            faulty, or a folder that holds another run.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    runtime, recipe = Runtime.of(config), config.recipe
    network = find_backbone(config.arch)
    images, val = open_split(config.data, "train"), open_split(config.data, "val")
    if images.class_names != val.class_names:
        raise ValueError(
            f"{config.data.train_annotations} and {config.data.val_annotations} list different categories; a "
            "detector is scored on the classes it was trained on: give both the same list"
        )
    torch.manual_seed(seed_of(config.seed, "weights"))
    start = None if config.start is None else Path(config.start)
    detector = make_detector(network, len(images.class_names), config.heads, recipe, start)
    identity: dict[str, Any] = {
        "command": "detect train",
        **about_detector(network, config, images.class_names, detector),
    }
    if start is not None:
        identity["start_sha256"] = sha256(start)
    feed = DetectionFeed(images, config.data.workers, recipe, runtime)
    task = Task(feed, sum_of_losses, identity, watch_precision(config, val, runtime.device) if config.watch else None)
    with runtime.open(config, partial(detection_record, config.data, images, val)) as run:
        main = runtime.processes.main
        if main and not (run.path / "checkpoint.pt").exists():
            begins = "random weights" if start is None else str(start)
            print("\n".join([f"{network.name} from {begins}", *overview(images, val)]), flush=True)
        trained = train(detector, recipe, task, runtime, run)
        if not main:
            return DetectResult(run.path, run.path / WEIGHTS, {})
        return _conclude(trained, config, network, (images, val), runtime.device, run.path)


def sum_of_losses(model: nn.Module, images: list[Tensor], targets: list[Target], step: int, micro: int) -> Tensor:
    """The losses of a Mask R-CNN's heads, added up in float32."""
    losses: dict[str, Tensor] = model(images, targets)
    return torch.stack([each.float() for each in losses.values()]).sum()


def watch_precision(config: DetectTrainConfig, val: CocoImages, device: torch.device) -> Validate:
    """Measures average precision on the validation images."""

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        assert isinstance(model, Detector)
        scores = measure(model, val, device, config.recipe.precision, config.data.workers)
        return {f"val_{part}_ap": values["AP"] or 0.0 for part, values in scores.items()}

    return validate


def _conclude(
    trained: Trained,
    config: DetectTrainConfig,
    network: Network,
    data: tuple[CocoImages, CocoImages],
    device: torch.device,
    folder: Path,
) -> DetectResult:
    """Write what was made, and score the weights; their moving average is ``detect evaluate``'s to score.

    Args:
        data: the images that it has learned from, and those to score it on.
    """
    (images, val), recipe = data, config.recipe
    assert isinstance(trained.model, Detector)
    about = about_detector(network, config, images.class_names, trained.model)
    detector, *_ = save_trained(folder, trained, network, about)
    assert isinstance(detector, Detector)
    scores = measure(detector, val, device, recipe.precision, config.data.workers, folder / "detections.png")
    record = DetectRecord(
        network=network.name,
        layers=str(network.architecture) if isinstance(network, ArchFile) else None,
        data=Path(config.data.root or "").resolve().name,
        **scores,
        num_val_images=len(val),
        num_images=len(images),
        classes=len(images.class_names),
        epochs=recipe.epochs,
        min_sizes=tuple(recipe.min_sizes),
        max_size=recipe.max_size,
        seed=config.seed,
        start=config.start,
        params=sum(weight.numel() for weight in detector.parameters()),
        weights_sha256=sha256(folder / WEIGHTS),
        tool=f"psvit-search {psvit.__version__}",
    )
    record.save(folder / "result.json")
    print("\n".join([f"average precision on {len(val):,} validation images, in percent:", *table(scores)]))
    tell_files(folder, network, "detections.png")
    return DetectResult(folder, folder / WEIGHTS, scores)
