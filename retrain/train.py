"""``psvit-search retrain``: train an architecture, from scratch or not, then look at the test split once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import psvit
from psvit.archfile import ArchFile, save_arch
from psvit.cost import format_quantity
from psvit.data.data import Data, open_data
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.feed import Feed
from psvit.engine.loop import Trained, check_recipe, classification_loss, train
from psvit.engine.scoring import score_all
from psvit.networks import Network, find_network, is_file
from psvit.retrain.config import RetrainConfig
from psvit.retrain.evaluate import score_networks
from psvit.retrain.plots import draw_training
from psvit.retrain.results import RetrainRecord
from psvit.retrain.start import start_from
from psvit.retrain.teacher import distillation_loss, load_teacher
from psvit.run.files import sha256
from psvit.run.folder import RunFolder
from psvit.run.random import seed_of
from psvit.weights import save_weights

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
    network = fit_to_data(find_network(config.arch), data, config.adapt or not is_file(config.arch))
    recipe, seed = config.recipe, config.seed
    split = "train" if config.hold_out else "train+search"
    torch.manual_seed(seed_of(seed, "weights"))
    model = network.build(recipe.drop_path)
    check_recipe(model, recipe)
    identity: dict[str, Any] = {"command": "retrain", **network.about()}
    flops, notes = float(network.cost.flops), []
    if config.start is not None:
        notes.append(start_from(Path(config.start), model, network.classes, config.adapt))
        identity["start_sha256"] = sha256(Path(config.start))
    teacher = None
    if config.distill.teacher is not None:
        teacher = load_teacher(config.distill, data, network.image_size)
        identity["teacher_sha256"] = teacher.sha256()
        notes.append(f"learns from {config.distill.teacher}: {format_quantity(teacher.flops)} multiply-adds an image")
        flops += teacher.flops / 3  # forward only; the engine counts three times the student's forward pass
        teacher.to(device, compiled=recipe.compile == "true" or (recipe.compile == "auto" and device.type == "cuda"))
    feed = Feed(data, split, network.image_size, recipe, seed, processes, device)

    def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        logits = model(images)
        label_loss = classification_loss(logits, targets, recipe)
        return distillation_loss(label_loss, logits, teacher(images), config.distill) if teacher else label_loss

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        model.eval()
        held_out = data.eval_batches("search", network.image_size, recipe.batch_size)
        (score,) = score_all([model], held_out, device, recipe.precision)
        return {"search_top1": score.top1, "search_loss": score.loss}

    settings = asdict(config)
    with processes.group(device, settings), RunFolder(Path(config.out), settings, processes.main) as run:
        if notes and processes.main and not (run.path / "checkpoint.pt").exists():
            print("\n".join(notes))
        trained = train(
            model,
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
        return _conclude(trained, config, network, data, split, run.path, device)


def _conclude(
    trained: Trained,
    config: RetrainConfig,
    network: Network,
    data: Data,
    split: str,
    folder: Path,
    device: torch.device,
) -> RetrainResult:
    """Write what was made, and test it: the moving average of the weights, where there is one, beside the weights."""
    models = {folder / WEIGHTS: trained.ema or trained.model}
    if trained.ema is not None:
        models[folder / PLAIN_WEIGHTS] = trained.model
    for file, model in models.items():
        save_weights(file, model, network.about())
    draw_training(folder / "metrics.csv", folder / "training.png")
    if isinstance(network, ArchFile):
        save_arch(folder / "arch.json", network)
        draw_architecture(network.spec, network.architecture, folder / "architecture.png", f"{network.name}, retrained")
    score, *plain = score_networks(
        [*models.values()],
        data,
        "test",
        network.image_size,
        config.recipe.batch_size,
        device,
        folder / "predictions.png",
    )
    record = RetrainRecord(
        top1=score.top1,
        loss=score.loss,
        plain_top1=plain[0].top1 if plain else None,
        plain_loss=plain[0].loss if plain else None,
        data=data.config.name,
        num_test_images=data.size("test"),
        trained_on=split,
        num_images=data.size(split),
        epochs=config.recipe.epochs,
        seed=config.seed,
        start=config.start,
        teacher=config.distill.teacher,
        network=network.name,
        layers=str(network.architecture) if isinstance(network, ArchFile) else None,
        flops=network.cost.flops,
        params=network.cost.params,
        arch_sha256=sha256(folder / "arch.json") if isinstance(network, ArchFile) else None,
        weights_sha256=sha256(folder / WEIGHTS),
        tool=f"psvit-search {psvit.__version__}",
    )
    record.save(folder / "result.json")
    print(f"test top-1 {score.top1:.4f}, loss {score.loss:.4f} on {data.size('test'):,} images of {data.config.name}")
    if plain:
        print(f"the weights before averaging, {PLAIN_WEIGHTS}: top-1 {plain[0].top1:.4f}, loss {plain[0].loss:.4f}")
    files = [*["arch.json"] * isinstance(network, ArchFile), "result.json", "training.png and predictions.png"]
    print(f"wrote {folder / WEIGHTS}, and {', '.join(files)} beside it")
    return RetrainResult(folder, folder / WEIGHTS, score.top1)


def fit_to_data(network: Network, data: Data, adapt: bool) -> Network:
    """The network, checked against the data; with ``adapt``, made to fit it.

    Raises:
        ValueError: the data has another number of classes or another image size.
    """
    fitted = network.for_data(data.classes, data.image_size)
    if fitted == network or adapt:
        return fitted
    here, there = (f"{each.classes} classes at {'x'.join(map(str, each.image_size))} px" for each in (network, fitted))
    raise ValueError(
        f"arch.json is of {here}, the data {data.config.name} of {there}: name the data it was searched on "
        "(data=... data.root=...), or say adapt=true to train it on these"
    )
