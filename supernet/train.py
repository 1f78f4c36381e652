"""``psvit-search train-supernet``: train all architectures at once, by uniform path sampling."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from psvit.arch import CellPath
from psvit.data.data import open_data
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.feed import Feed
from psvit.engine.loop import train
from psvit.engine.random import numpy_rng, seed_of
from psvit.engine.run_folder import RunFolder
from psvit.engine.scoring import score_all
from supernet.checkpoint import WEIGHTS, save_supernet
from supernet.config import TrainSupernetConfig
from supernet.sampling import UniformCells
from supernet.space import SearchSpace
from supernet.supernet import Supernet


def train_supernet(config: TrainSupernetConfig) -> Path:
    """Train a supernet, or go on where the run folder stands; its weights end in ``supernet.safetensors``.

    Returns:
        The run folder.

    Raises:
        ValueError: settings or data that do not fit, or a folder that holds another run.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    processes = Processes.from_environment()
    device = pick_device(config.device, processes.local_rank)
    data = open_data(config.data)
    space = SearchSpace(config.space.spec(data.classes, data.image_size), config.space.cells)
    recipe, seed = config.recipe, config.seed
    torch.manual_seed(seed_of(seed, "weights"))
    supernet = Supernet(space.spec, space.cells, recipe.drop_path)
    feed = Feed(data, "train", space.spec.image_size, recipe, seed, processes)
    sampler = UniformCells(space.spec.stages, space.cells)

    def forward(model: nn.Module, images: Tensor, step: int, micro: int) -> Tensor:
        """One draw of paths a step for all processes and micro-batches, each of which takes its part."""
        rng = numpy_rng(seed, "paths", step)
        if config.paths == "batch":
            return model(images, sampler.draw(1, rng)[0])
        first = (processes.rank * recipe.accumulate + micro) * len(images)
        return model(
            images, sampler.draw(processes.world * recipe.accumulate * len(images), rng)[first:][: len(images)]
        )

    watched = [
        CellPath.canonical(space.within().draw(numpy_rng(seed, "watch", number)), space.cells)
        for number in range(config.watch)
    ]

    def validate(model: nn.Module, epoch: int) -> dict[str, float]:
        """Mean inherited score of a few architectures: whether the supernet still learns."""
        model.eval()
        scores = score_all(
            [lambda images, path=path: model(images, path) for path in watched],  # type: ignore[misc]
            data.eval_batches("search", space.spec.image_size, recipe.batch_size),
            device,
            recipe.precision,
        )
        top1, loss = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        return {"inherited_top1": top1, "inherited_loss": loss}

    with processes.group(device), RunFolder(Path(config.out), asdict(config), processes.main) as run:
        trained = train(
            supernet,
            recipe=recipe,
            seed=seed,
            device=device,
            processes=processes,
            run=run,
            identity={"command": "train-supernet", "space": asdict(space.spec), "cells": space.cells},
            batches=feed,
            steps_per_epoch=feed.steps_per_epoch,
            forward=forward,
            validate=validate if watched else None,
        )
        if processes.main:
            about = {"seed": seed, "data": asdict(config.data), "search_split": data.split_record()}
            save_supernet(run.path / WEIGHTS, trained.ema or trained.model, space, about)
    return Path(config.out)
