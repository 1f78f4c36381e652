"""``psvit-search retrain``: train an architecture, from scratch or not, then look at the test split once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import psvit
from psvit.archfile import ArchFile, load_arch, save_arch
from psvit.cost import format_quantity
from psvit.data.data import Data, open_data
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.feed import Feed
from psvit.engine.loop import Trained, classification_loss, train
from psvit.engine.random import seed_of
from psvit.engine.run_folder import RunFolder
from psvit.engine.scoring import score_all
from psvit.files import sha256, write_text
from psvit.model import PSViT
from psvit.weights import save_weights
from retrain.config import RetrainConfig
from retrain.evaluate import score_networks
from retrain.pictures import draw_training
from retrain.start import start_from
from retrain.teacher import distillation_loss, load_teacher

WEIGHTS = "model.safetensors"
PLAIN_WEIGHTS = "model_plain.safetensors"


@dataclass(frozen=True)
class RetrainResult:
    """What retraining made: the run folder, the weights in it, and their top-1 on the test split."""

    folder: Path
    weights: Path
    top1: float


def retrain(config: RetrainConfig) -> RetrainResult:
    """Train an architecture, or go on where the run folder stands.

    Writes ``model.safetensors`` (the moving average of the weights if the recipe keeps one; the plain weights are in
    ``model_plain.safetensors`` then), ``arch.json``, ``result.json`` and pictures.

    Raises:
        ValueError: an arch.json, starting weights or a teacher that are faulty or do not fit the data, or a folder that
            holds another run.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    processes = Processes.from_environment()
    device = pick_device(config.device, processes.local_rank)
    data = open_data(config.data)
    arch = fit_to_data(load_arch(Path(config.arch)), data, config.adapt)
    spec, recipe, seed = arch.spec, config.recipe, config.seed
    split = "train" if config.hold_out else "train+search"
    torch.manual_seed(seed_of(seed, "weights"))
    network = PSViT(spec, arch.architecture, recipe.drop_path)
    identity: dict[str, Any] = {"command": "retrain", "network": asdict(spec), "architecture": str(arch.architecture)}
    flops, notes = float(arch.cost.flops), []
    if config.start is not None:
        notes.append(start_from(Path(config.start), network, config.adapt))
        identity["start_sha256"] = sha256(Path(config.start))
    teacher = None
    if config.distill.teacher is not None:
        teacher = load_teacher(config.distill, data, spec.image_size)
        identity["teacher_sha256"] = teacher.sha256()
        notes.append(f"learns from {config.distill.teacher}: {format_quantity(teacher.flops)} multiply-adds an image")
        flops += teacher.flops / 3  # forward only; the engine counts three times the student's forward pass
        teacher.to(device, compiled=recipe.compile == "true" or (recipe.compile == "auto" and device.type == "cuda"))
    feed = Feed(data, split, spec.image_size, recipe, seed, processes, device)

    def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        logits = model(images)
        label_loss = classification_loss(logits, targets, recipe)
        return distillation_loss(label_loss, logits, teacher(images), config.distill) if teacher else label_loss

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        model.eval()
        held_out = data.eval_batches("search", spec.image_size, recipe.batch_size)
        (score,) = score_all([model], held_out, device, recipe.precision)
        return {"search_top1": score.top1, "search_loss": score.loss}

    settings = asdict(config)
    with processes.group(device, settings), RunFolder(Path(config.out), settings, processes.main) as run:
        if notes and processes.main and not (run.path / "checkpoint.pt").exists():
            print("\n".join(notes))
        trained = train(
            network,
            recipe=recipe,
            seed=seed,
            device=device,
            processes=processes,
            run=run,
            identity=identity,
            feed=feed,
            loss=loss,
            validate=validate if config.hold_out else None,
            flops=flops,
            profile=config.profile,
        )
        if not processes.main:
            return RetrainResult(run.path, run.path / WEIGHTS, float("nan"))
        return _conclude(trained, config, arch, data, split, run.path, device)


def _conclude(
    trained: Trained, config: RetrainConfig, arch: ArchFile, data: Data, split: str, folder: Path, device: torch.device
) -> RetrainResult:
    """Write what was made, and test it: the moving average of the weights, where there is one, beside the weights."""
    networks = {folder / WEIGHTS: trained.ema or trained.model}
    if trained.ema is not None:
        networks[folder / PLAIN_WEIGHTS] = trained.model
    save_arch(folder / "arch.json", arch)
    for file, network in networks.items():
        save_weights(file, network, {"network": asdict(arch.spec), "architecture": str(arch.architecture)})
    draw_training(folder / "metrics.csv", folder / "training.png")
    draw_architecture(arch.spec, arch.architecture, folder / "architecture.png", f"{arch.spec.name}, retrained")
    score, *plain = score_networks(
        [*networks.values()], arch, data, "test", config.recipe.batch_size, device, folder / "predictions.png"
    )
    result = {
        "top1": score.top1,
        "loss": score.loss,
        "plain_top1": plain[0].top1 if plain else None,
        "plain_loss": plain[0].loss if plain else None,
        "test_images": data.size("test"),
        "trained_on": split,
        "images": data.size(split),
        "epochs": config.recipe.epochs,
        "seed": config.seed,
        "start": config.start,
        "teacher": config.distill.teacher,
        "layers": str(arch.architecture),
        "flops": arch.cost.flops,
        "params": arch.cost.params,
        "arch_sha256": sha256(folder / "arch.json"),
        "weights_sha256": sha256(folder / WEIGHTS),
        "tool": f"psvit-search {psvit.__version__}",
    }
    write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
    print(f"test top-1 {score.top1:.4f}, loss {score.loss:.4f} on {data.size('test'):,} images of {data.config.name}")
    if plain:
        print(f"the weights before averaging, {PLAIN_WEIGHTS}: top-1 {plain[0].top1:.4f}, loss {plain[0].loss:.4f}")
    print(f"wrote {folder / WEIGHTS}, and arch.json, result.json, training.png and predictions.png beside it")
    return RetrainResult(folder, folder / WEIGHTS, score.top1)


def fit_to_data(arch: ArchFile, data: Data, adapt: bool) -> ArchFile:
    """The architecture, checked against the data; with ``adapt``, made to fit it.

    Raises:
        ValueError: the data has another number of classes or another image size.
    """
    fitted = arch.spec.for_data(data.classes, data.image_size)
    if fitted == arch.spec:
        return arch
    if not adapt:
        here, there = (
            f"{spec.classes} classes at {'x'.join(map(str, spec.image_size))} px" for spec in (arch.spec, fitted)
        )
        raise ValueError(
            f"arch.json is of {here}, the data {data.config.name} of {there}: name the data it was searched on "
            "(data=... data.root=...), or say adapt=true to train it on these"
        )
    return ArchFile(fitted, arch.architecture, arch.origin)
