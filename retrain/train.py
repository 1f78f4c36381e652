"""``psvit-search retrain``: train an architecture, from scratch or not, then look at the test split once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import psvit
from psvit.archfile import ArchFile
from psvit.data.data import Data, open_data
from psvit.draw import draw_architecture
from psvit.engine.config import Recipe
from psvit.engine.feed import Feed
from psvit.engine.loop import LossOf, Task, Trained, Validate, check_recipe, classification_loss, train
from psvit.engine.outcomes import OUTCOMES, ImageOutcomes, OutcomeWatch
from psvit.engine.runtime import Runtime
from psvit.engine.scoring import Score, metrics_text, score_all
from psvit.networks import Network, find_network, is_file
from psvit.retrain.artifacts import EMA_WEIGHTS, WEIGHTS, save_trained, tell_files
from psvit.retrain.config import DistillConfig, RetrainConfig
from psvit.retrain.evaluate import measure_networks
from psvit.retrain.fit import fit_to_data
from psvit.retrain.hub import HUB, write_hub
from psvit.retrain.page import REPORT, SHEET, thumbnail, write_report
from psvit.retrain.plots import draw_predictions
from psvit.retrain.results import RetrainRecord
from psvit.retrain.start import start_from
from psvit.retrain.teacher import Teacher, distillation_loss, load_teacher
from psvit.run.files import sha256
from psvit.run.random import seed_of
from psvit.units import format_quantity
from psvit.weights import read_trained_on


@dataclass(frozen=True)
class RetrainResult:
    """What retraining made: the run folder, the weights in it, and their top-1 on the test split."""

    folder: Path
    weights: Path
    top1: float

    def metrics(self) -> pd.DataFrame:
        """Losses, scores and speed, an epoch a row."""
        return pd.read_csv(self.folder / "metrics.csv")


def retrain(config: RetrainConfig) -> RetrainResult:
    """Train an architecture, or resume where the run folder stands.

    Writes ``model.safetensors``, ``arch.json``, ``result.json``, pictures and ``hub/``, a folder for timm and for model
    hubs; and ``model_ema.safetensors``, the moving average of the weights, if the recipe keeps one.

    Raises:
        ValueError: an arch.json, starting weights or a teacher that are faulty or do not fit the data, or a folder that
            holds another run.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    runtime, recipe = Runtime.of(config), config.recipe
    data = open_data(config.data)
    if config.start is not None and (known := read_trained_on(Path(config.start))) is not None:
        data = data.normalized_as(known.preprocessing)
    network = fit_to_data(find_network(config.arch), data, config.adapt or not is_file(config.arch))
    torch.manual_seed(seed_of(config.seed, "weights"))
    model = network.build(recipe.drop_path)
    check_recipe(model, recipe)
    identity: dict[str, Any] = {"command": "retrain", **network.about()}
    flops, notes = float(network.cost.flops), []
    if config.start is not None:
        notes.append(start_from(Path(config.start), model, network.classes, config.adapt, data.class_names))
        identity["start_sha256"] = sha256(Path(config.start))
    teacher = None
    if config.distill.teacher is not None:
        teacher = load_teacher(config.distill, data, network.image_size)
        identity["teacher_sha256"] = teacher.sha256()
        notes.append(f"learns from {config.distill.teacher}: {format_quantity(teacher.flops)} multiply-adds an image")
        flops += teacher.flops / 3  # forward only; the engine counts three times the student's forward pass
        teacher.to(runtime.device, compiled=recipe.compiles_on(runtime.device.type))
    feed = Feed(data, config.split, network.image_size, recipe, runtime)
    validate = held_out_scores(config, data, network, runtime.device) if config.hold_out else None
    task = Task(feed, training_loss(recipe, teacher, config.distill), identity, validate, flops)
    with runtime.open(config, partial(data.record, test=True)) as run:
        main = runtime.processes.main
        if main and not run.begun:
            print("\n".join([*data.overview(config.split, "test"), *notes]))
        trained = train(model, recipe, task, runtime, run)
        if not main:
            return RetrainResult(run.path, run.path / WEIGHTS, float("nan"))
        return _conclude(trained, config, network, data, runtime.device, run.path)


def training_loss(recipe: Recipe, teacher: Teacher | None, distill: DistillConfig) -> LossOf:
    """The loss on the labels and, with a teacher, on its answers to the same images."""

    def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        logits = model(images)
        label_loss = classification_loss(logits, targets, recipe)
        return distillation_loss(label_loss, logits, teacher(images), distill) if teacher else label_loss

    return loss


def held_out_scores(config: RetrainConfig, data: Data, network: Network, device: torch.device) -> Validate:
    """Scores a network on the search split, which it does not learn from."""

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        model.eval()
        held_out = data.eval_batches("search", network.image_size, config.recipe.batch_size)
        (score,) = score_all([model], held_out, device, config.recipe.precision)
        return {"search_top1": score.top1, "search_loss": score.loss}

    return validate


def _conclude(
    trained: Trained, config: RetrainConfig, network: Network, data: Data, device: torch.device, folder: Path
) -> RetrainResult:
    """Write what was made, and test it: the weights and, beside them, their moving average where there is one."""
    models = save_trained(folder, trained, network, network.about())
    if isinstance(network, ArchFile):
        draw_architecture(network.spec, network.architecture, folder / "architecture.png", f"{network.name}, retrained")
    watch = OutcomeWatch()
    metrics, *ema = measure_networks(
        models, data, "test", network.image_size, batch_size=config.recipe.batch_size, device=device, watch=watch
    )
    outcomes = watch.result()
    outcomes.save(folder / OUTCOMES, {"split": "test", **network.about()})
    _draw_predictions(folder / "predictions.png", outcomes, data, metrics["top1"])
    record = RetrainRecord(
        top1=metrics["top1"],
        loss=metrics["loss"],
        metrics={name: value for name, value in metrics.items() if name not in Score._fields},
        ema_top1=ema[0]["top1"] if ema else None,
        ema_loss=ema[0]["loss"] if ema else None,
        data=data.config.name,
        num_test_images=data.size("test"),
        trained_on=config.split,
        num_images=data.size(config.split),
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
    write_report(folder, record, outcomes, data)
    if isinstance(network, ArchFile):
        write_hub(folder / HUB, folder, network, int(outcomes.correct.sum()), len(outcomes.correct), record.data)
    print(f"test {metrics_text(metrics)} on {data.size('test'):,} images of {data.config.name}")
    if ema:
        print(f"their moving average, {EMA_WEIGHTS}: {metrics_text(ema[0])}")
    tell_files(folder, network, "predictions.png", REPORT, *[f"{HUB}/"] * isinstance(network, ArchFile))
    return RetrainResult(folder, folder / WEIGHTS, metrics["top1"])


def _draw_predictions(path: Path, outcomes: ImageOutcomes, data: Data, top1: float) -> None:
    """Some test images and what the network took them for, mistakes first: they say more."""
    shown = np.argsort(outcomes.correct, kind="stable")[:SHEET]
    images = np.stack([thumbnail(data.image("test", int(index))) for index in shown])
    draw_predictions(images, outcomes.labels[shown], outcomes.predicted[shown], data.class_names, path, top1)
