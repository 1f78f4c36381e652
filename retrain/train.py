"""``psvit-search retrain``: train an architecture from scratch, then look at the test split once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

import psvit
from psvit.archfile import ArchFile, load_arch, save_arch
from psvit.data.data import Data, open_data
from psvit.draw import draw_architecture
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.feed import Feed
from psvit.engine.loop import train
from psvit.engine.random import seed_of
from psvit.engine.run_folder import RunFolder
from psvit.engine.scoring import score_all
from psvit.files import sha256, write_text
from psvit.model import PSViT
from psvit.weights import save_weights
from retrain.config import RetrainConfig
from retrain.evaluate import score_network
from retrain.pictures import draw_training

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class RetrainResult:
    """What retraining made: the run folder, the weights in it, and their top-1 on the test split."""

    folder: Path
    weights: Path
    top1: float


def retrain(config: RetrainConfig) -> RetrainResult:
    """Train an architecture from scratch, or go on where the run folder stands.

    Writes ``model.safetensors`` (the moving average of the weights if the recipe keeps one), ``arch.json``,
    ``result.json`` and pictures.

    Raises:
        ValueError: an arch.json that is faulty or does not fit the data, or a folder that holds another run.
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
    feed = Feed(data, split, spec.image_size, recipe, seed, processes)

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        model.eval()
        held_out = data.eval_batches("search", spec.image_size, recipe.batch_size)
        (score,) = score_all([model], held_out, device, recipe.precision)
        return {"search_top1": score.top1, "search_loss": score.loss}

    with processes.group(device), RunFolder(Path(config.out), asdict(config), processes.main) as run:
        trained = train(
            network,
            recipe=recipe,
            seed=seed,
            device=device,
            processes=processes,
            run=run,
            identity={"command": "retrain", "network": asdict(spec), "architecture": str(arch.architecture)},
            batches=feed,
            steps_per_epoch=feed.steps_per_epoch,
            forward=lambda model, images, step, micro: model(images),
            validate=validate if config.hold_out else None,
        )
        weights = run.path / WEIGHTS
        if not processes.main:
            return RetrainResult(run.path, weights, float("nan"))
        final = trained.ema or trained.model
        save_arch(run.path / "arch.json", arch)
        save_weights(weights, final, {"network": asdict(spec), "architecture": str(arch.architecture)})
        draw_training(run.path / "metrics.csv", run.path / "training.png")
        draw_architecture(spec, arch.architecture, run.path / "architecture.png", f"{spec.name}, retrained")
        score = score_network(final, arch, data, "test", recipe.batch_size, device, run.path / "predictions.png")
        result = {
            "top1": score.top1,
            "loss": score.loss,
            "test_images": data.size("test"),
            "trained_on": split,
            "images": data.size(split),
            "epochs": recipe.epochs,
            "seed": seed,
            "layers": str(arch.architecture),
            "flops": arch.cost.flops,
            "params": arch.cost.params,
            "arch_sha256": sha256(run.path / "arch.json"),
            "weights_sha256": sha256(weights),
            "tool": f"psvit-search {psvit.__version__}",
        }
        write_text(run.path / "result.json", json.dumps(result, indent=2) + "\n")
        print(
            f"test top-1 {score.top1:.4f}, loss {score.loss:.4f} on {data.size('test'):,} images of {data.config.name}"
        )
        print(f"wrote {weights}, and arch.json, result.json, training.png and predictions.png beside it")
        return RetrainResult(run.path, weights, score.top1)


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
