"""``psvit-search train-supernet``: train all architectures at once, on paths drawn anew in every step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from psvit.arch import CellPath
from psvit.cost import network_cost
from psvit.data.data import Data, open_data
from psvit.data.plan import Share
from psvit.data.record import DATA, DataRecord
from psvit.engine.config import Recipe
from psvit.engine.feed import Feed
from psvit.engine.loop import Task, Validate, classification_loss, train
from psvit.engine.runtime import Runtime
from psvit.engine.scoring import score_all
from psvit.run.random import numpy_rng, seed_of
from psvit.supernet.checkpoint import WEIGHTS, save_supernet
from psvit.supernet.config import TrainSupernetConfig
from psvit.supernet.routing import Routing, to_paths
from psvit.supernet.sampling import PathSampler, make_sampler
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet


def train_supernet(config: TrainSupernetConfig, validate: Validate | None = None) -> Path:
    """Train a supernet, or resume where the run folder stands; its weights end in ``supernet.safetensors``.

    Args:
        validate: what to measure after each epoch, instead of the scores of ``config.watch`` architectures.

    Returns:
        The run folder.

    Raises:
        ValueError: settings or data that do not fit, or a folder that holds another run.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    runtime, recipe = Runtime.of(config), config.recipe
    data = open_data(config.data)
    space = SearchSpace(config.space.spec(data.classes, data.image_size), config.space.cells)
    torch.manual_seed(seed_of(config.seed, "weights"))
    supernet = Supernet(space.spec, space.cells, recipe.drop_path, config.weights)
    feed = Feed(data, "train", space.spec.image_size, recipe, runtime)
    sampler = make_sampler(config.sampling, config.paths, space.spec.stages, space.cells)
    paths = DrawnPaths(
        sampler, feed.batch_size, runtime.processes.share(recipe.accumulate), config.seed, runtime.device
    )

    def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        logits = model(images, paths(step, micro))
        return path_loss(logits, targets, recipe, sampler.copies)

    identity = {
        "command": "train-supernet",
        "space": asdict(space.spec),
        "cells": space.cells,
        "weights": config.weights,
        "sampling": config.sampling,
        "paths": config.paths,
    }
    validate = validate or watch(config, space, data, runtime.device)
    task = Task(feed, loss, identity, validate, flops=mean_flops(sampler, space), partial=True)
    with runtime.open(config, data.record) as run:
        if runtime.processes.main and not run.begun:
            print("\n".join(data.overview("train", "search")))
        trained = train(supernet, recipe, task, runtime, run)
        if runtime.processes.main:
            about: dict[str, Any] = {"seed": config.seed, "sampling": config.sampling}
            about |= {"data": asdict(config.data), "search_split": data.split_record()}
            about["trained_on"] = data.trained_on(space.spec.image_size).to_json()
            about["data_record"] = DataRecord.load(run.path / DATA).to_json()
            save_supernet(run.path / WEIGHTS, cast("Supernet", trained.ema or trained.model), space, about)
    return Path(config.out)


class DrawnPaths:
    """The routing of each micro-batch, drawn ahead in a thread of its own while the device works on the one before.

    There is one draw of paths per step, for all processes and micro-batches; each of them takes its part.

    Args:
        batch_size: images of a whole step.
        share: what this process takes of a step.
        seed: of the draws.
        device: of the routings.
    """

    def __init__(self, sampler: PathSampler, batch_size: int, share: Share, seed: int, device: torch.device) -> None:
        self._sampler, self._batch_size, self._share = sampler, batch_size, share
        self._seed, self._device = seed, device
        self._thread = ThreadPoolExecutor(1)
        self._next: dict[tuple[int, int], Future[Routing]] = {}

    def __call__(self, step: int, micro: int) -> Routing:
        now = self._next.pop((step, micro), None)
        following = (step, micro + 1) if micro + 1 < self._share.accumulate else (step + 1, 0)
        self._next = {following: self._thread.submit(self.draw, *following)}
        return now.result() if now else self.draw(step, micro)

    def draw(self, step: int, micro: int) -> Routing:
        """The routing of a micro-batch, a function of the seed, the step and the share alone."""
        codes = self._sampler.draw(self._batch_size, numpy_rng(self._seed, "paths", step))
        codes = codes[:, self._share.places(self._batch_size, micro)]
        return Routing.of(codes.reshape(-1, *codes.shape[2:]), codes.shape[1]).to(self._device)


def path_loss(logits: Tensor, targets: Tensor, recipe: Recipe, copies: int) -> Tensor:
    """The mean loss of a micro-batch whose every image has gone ``copies`` paths: (copies * B, classes) -> scalar.

    Of several paths the first is the largest network: it learns from the labels, and the others from its answers, as in
    the sandwich rule with in-place distillation (arXiv 1903.05134).
    """
    if copies == 1:
        return classification_loss(logits, targets, recipe)
    largest, others = logits.float().tensor_split([len(targets)])
    answers = largest.detach().softmax(dim=1).repeat(copies - 1, 1)
    return (classification_loss(largest, targets, recipe) + (copies - 1) * cross_entropy(others, answers)) / copies


def watch(config: TrainSupernetConfig, space: SearchSpace, data: Data, device: torch.device) -> Validate | None:
    """Measures the mean inherited score of a few architectures: whether the supernet still learns; None for none."""
    watched = [
        CellPath.canonical(space.within().draw(numpy_rng(config.seed, "watch", number)), space.cells)
        for number in range(config.watch)
    ]

    def measure(model: nn.Module, epoch: int) -> dict[str, float]:
        model.eval()
        scores = score_all(
            [lambda images, path=path: model(images, path) for path in watched],  # type: ignore[misc]
            data.eval_batches("search", space.spec.image_size, config.recipe.batch_size),
            device,
            config.recipe.precision,
        )
        top1, loss = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        return {"inherited_top1": top1, "inherited_loss": loss}

    return measure if watched else None


def mean_flops(sampler: PathSampler, space: SearchSpace) -> float:
    """Multiply-adds that an image takes on average in a step's forward pass, over 1,000 draws."""
    codes = sampler.draw(1000, np.random.default_rng(0))
    paths = to_paths(codes.reshape(-1, *codes.shape[2:]))
    return sampler.copies * sum(network_cost(space.spec, path.architecture).flops for path in paths) / len(paths)
