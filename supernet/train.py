"""``psvit-search train-supernet``: train all architectures at once, on paths drawn anew in every step."""

from __future__ import annotations

from collections.abc import Callable
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
from psvit.data.data import open_data
from psvit.engine.device import pick_device
from psvit.engine.distributed import Processes
from psvit.engine.feed import Feed
from psvit.engine.loop import Validate, classification_loss, train
from psvit.engine.scoring import score_all
from psvit.run.folder import RunFolder
from psvit.run.random import numpy_rng, seed_of
from psvit.supernet.checkpoint import WEIGHTS, save_supernet
from psvit.supernet.config import TrainSupernetConfig
from psvit.supernet.routing import Routing, to_paths
from psvit.supernet.sampling import PathSampler, make_sampler
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet


def train_supernet(config: TrainSupernetConfig, validate: Validate | None = None) -> Path:
    """Train a supernet, or go on where the run folder stands; its weights end in ``supernet.safetensors``.

    Args:
        validate: what to measure after each epoch, instead of the scores of ``config.watch`` architectures.

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
    supernet = Supernet(space.spec, space.cells, recipe.drop_path, config.weights)
    feed = Feed(data, "train", space.spec.image_size, recipe, seed, processes, device)
    sampler = make_sampler(config.sampling, config.paths, space.spec.stages, space.cells)

    def draw(step: int, micro: int) -> Routing:
        """One draw of paths a step for all processes and micro-batches, each of which takes its part."""
        codes = sampler.draw(feed.batch_size, numpy_rng(seed, "paths", step))
        part, parts = processes.rank * recipe.accumulate + micro, processes.world * recipe.accumulate
        codes = codes[:, part * feed.batch_size // parts : (part + 1) * feed.batch_size // parts]
        return Routing.of(codes.reshape(-1, *codes.shape[2:]), codes.shape[1]).to(device)

    routings = _Ahead(draw, recipe.accumulate)

    def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        logits = model(images, routings(step, micro))
        if sampler.copies == 1:
            return classification_loss(logits, targets, recipe)
        # in-place distillation: the largest network learns from the labels, the others from its answers
        largest, others = logits.float().tensor_split([len(images)])
        answers = largest.detach().softmax(dim=1).repeat(sampler.copies - 1, 1)
        return (
            classification_loss(largest, targets, recipe) + (sampler.copies - 1) * cross_entropy(others, answers)
        ) / sampler.copies

    watched = [
        CellPath.canonical(space.within().draw(numpy_rng(seed, "watch", number)), space.cells)
        for number in range(config.watch)
    ]

    def watch(model: nn.Module, epoch: int) -> dict[str, float]:
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

    with processes.group(device, asdict(config)), RunFolder(Path(config.out), asdict(config), processes.main) as run:
        trained = train(
            supernet,
            recipe=recipe,
            seed=seed,
            device=device,
            processes=processes,
            run=run,
            identity={
                "command": "train-supernet",
                "space": asdict(space.spec),
                "cells": space.cells,
                "weights": config.weights,
                "sampling": config.sampling,
                "paths": config.paths,
            },
            feed=feed,
            loss=loss,
            validate=validate or (watch if watched else None),
            flops=mean_flops(sampler, space),
            partial=True,
            profile=config.profile,
        )
        if processes.main:
            about: dict[str, Any] = {"seed": seed, "sampling": config.sampling}
            about |= {"data": asdict(config.data), "search_split": data.split_record()}
            save_supernet(run.path / WEIGHTS, cast("Supernet", trained.ema or trained.model), space, about)
    return Path(config.out)


class _Ahead:
    """Draws the routing of the next micro-batch in a thread of its own, while the device works on this one.

    Args:
        draw: the routing of a step and micro-batch.
        micro_batches: of each step.
    """

    def __init__(self, draw: Callable[[int, int], Routing], micro_batches: int) -> None:
        self._draw, self._micro_batches = draw, micro_batches
        self._thread = ThreadPoolExecutor(1)
        self._next: dict[tuple[int, int], Future[Routing]] = {}

    def __call__(self, step: int, micro: int) -> Routing:
        now = self._next.pop((step, micro), None)
        following = (step, micro + 1) if micro + 1 < self._micro_batches else (step + 1, 0)
        self._next = {following: self._thread.submit(self._draw, *following)}
        return now.result() if now else self._draw(step, micro)


def mean_flops(sampler: PathSampler, space: SearchSpace) -> float:
    """Multiply-adds that an image takes on average in a step's forward pass, over 1,000 draws."""
    codes = sampler.draw(1000, np.random.default_rng(0))
    paths = to_paths(codes.reshape(-1, *codes.shape[2:]))
    return sampler.copies * sum(network_cost(space.spec, path.architecture).flops for path in paths) / len(paths)
