"""``psvit-search detect train``: Mask R-CNN on a classifier of ours or a ResNet, trained and scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import psvit
from psvit.archfile import ArchFile, save_arch
from psvit.detection.backbone import find_backbone
from psvit.detection.coco import CocoImages, open_split
from psvit.detection.config import DetectTrainConfig
from psvit.detection.evaluate import about_detector, measure, table
from psvit.detection.feed import DetectionFeed, Target
from psvit.detection.metrics import Precision
from psvit.detection.model import Detector, make_detector
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.loop import Trained, train
from psvit.networks import Network
from psvit.retrain.plots import draw_training
from psvit.retrain.results import DetectRecord
from psvit.retrain.train import PLAIN_WEIGHTS, WEIGHTS
from psvit.run.files import sha256
from psvit.run.folder import RunFolder
from psvit.run.random import seed_of
from psvit.weights import save_weights


@dataclass(frozen=True)
class DetectResult:
    """What a training made: the run folder, the weights in it, and their average precision on the validation images."""

    folder: Path
    weights: Path
    scores: Precision


def train_detector(config: DetectTrainConfig) -> DetectResult:
    """Train a detector, or go on where the run folder stands.

    Writes ``model.safetensors`` (the moving average of the weights if the recipe keeps one; the plain weights are in
    ``model_plain.safetensors`` then), ``result.json``, pictures and, of a network of ours, ``arch.json``.

    Raises:
        ValueError: an unknown network or one that is no backbone, starting weights of another network, data that are
            faulty, or a folder that holds another run.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    processes = Processes.from_environment()
    device = pick_device(config.device, processes.local_rank)
    network, recipe, seed = find_backbone(config.arch), config.recipe, config.seed
    images, val = open_split(config.data, "train"), open_split(config.data, "val")
    if images.class_names != val.class_names:
        raise ValueError(
            f"{config.data.train_annotations} and {config.data.val_annotations} list different categories; a detector "
            "is scored on what it was taught: give both the same list"
        )
    torch.manual_seed(seed_of(seed, "weights"))
    start = None if config.start is None else Path(config.start)
    detector = make_detector(network, len(images.class_names), config.heads, recipe, start)
    about = about_detector(network, config, images.class_names)
    identity: dict[str, Any] = {"command": "detect train", **about}
    if start is not None:
        identity["start_sha256"] = sha256(start)
    feed = DetectionFeed(images, config.data.workers, recipe, seed, processes, device)

    def loss(model: nn.Module, images: list[Tensor], targets: list[Target], step: int, micro: int) -> Tensor:
        losses: dict[str, Tensor] = model(images, targets)
        return torch.stack([each.float() for each in losses.values()]).sum()

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        assert isinstance(model, Detector)
        scores = measure(model, val, device, recipe.precision, config.data.workers)
        return {f"val_{part}_ap": values["AP"] or 0.0 for part, values in scores.items()}

    settings = asdict(config)
    with processes.group(device, settings), RunFolder(Path(config.out), settings, processes.main) as run:
        if processes.main and not (run.path / "checkpoint.pt").exists():
            begins = "random weights" if start is None else str(start)
            print(f"{network.name} from {begins}, on {len(images):,} images with {len(images.class_names)} classes")
        trained = train(
            detector,
            recipe=recipe,
            seed=seed,
            device=device,
            processes=processes,
            run=run,
            identity=identity,
            feed=feed,
            loss=loss,
            validate=validate if config.watch else None,
            profile=config.profile,
        )
        if not processes.main:
            return DetectResult(run.path, run.path / WEIGHTS, {})
        return _conclude(trained, config, network, images, val, about, run.path, device)


def _conclude(
    trained: Trained,
    config: DetectTrainConfig,
    network: Network,
    images: CocoImages,
    val: CocoImages,
    about: dict[str, Any],
    folder: Path,
    device: torch.device,
) -> DetectResult:
    """Write what was made, and score it: the moving average of the weights, where there is one, beside the weights."""
    detector = trained.ema or trained.model
    assert isinstance(detector, Detector)
    save_weights(folder / WEIGHTS, detector, about)
    if trained.ema is not None:
        save_weights(folder / PLAIN_WEIGHTS, trained.model, about)
    if isinstance(network, ArchFile):
        save_arch(folder / "arch.json", network)
    draw_training(folder / "metrics.csv", folder / "training.png")
    recipe = config.recipe
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
    files = [*["arch.json"] * isinstance(network, ArchFile), "result.json", "training.png and detections.png"]
    print(f"wrote {folder / WEIGHTS}, and {', '.join(files)} beside it")
    return DetectResult(folder, folder / WEIGHTS, scores)
