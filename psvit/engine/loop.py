"""The training loop, of supernets and of networks on their own.

A step's randomness is a function of (seed, step, micro-batch, rank), and a checkpoint holds all that a later step
depends on; so a run that was killed at any moment and started again ends with the weights of an unbroken one (the same
bits on a CPU, with the same number of processes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from psvit.engine.checkpoint import load_checkpoint, save_checkpoint
from psvit.engine.config import Recipe
from psvit.engine.device import autocast
from psvit.engine.distributed import Processes
from psvit.engine.metrics import Metrics
from psvit.engine.optim import adamw, learning_rate
from psvit.engine.progress import Progress
from psvit.engine.random import seed_of
from psvit.engine.run_folder import RunFolder, differences
from psvit.engine.signals import Stopped, StopSignals

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
Forward = Callable[[nn.Module, Tensor, int, int], Tensor]
Validate = Callable[[nn.Module, int], dict[str, float]]


@dataclass
class Trained:
    """What a finished run has made: the network, its moving average (None without ``ema_decay``), and the steps."""

    model: nn.Module
    ema: nn.Module | None
    steps: int


def train(
    model: nn.Module,
    *,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    processes: Processes,
    run: RunFolder,
    identity: dict[str, Any],
    batches: Batches,
    steps_per_epoch: int,
    forward: Forward,
    validate: Validate | None = None,
) -> Trained:
    """Train ``model`` in place by ``recipe``; go on from ``checkpoint.pt`` where the run folder has one.

    Args:
        model: what is trained; every process holds the same weights.
        seed: of drop path and whatever else a forward pass draws from torch's generators.
        run: the folder of ``checkpoint.pt`` and ``metrics.csv``, entered.
        identity: plain values that a checkpoint must agree with to be gone on from, such as the space's name.
        batches: ``batches(first_step)`` yields this process's micro-batches from that step on, ``recipe.accumulate``
            a step, all of one size: images (B, ...) and targets, int64 (B,) or probabilities (B, classes).
        steps_per_epoch: optimiser steps an epoch.
        forward: ``forward(model, images, step, micro_batch)`` gives logits (B, classes). It must call the model it is
            given, which with several processes wraps the one above.
        validate: ``validate(model, epoch)`` after each epoch (from 1) gives numbers for its row of ``metrics.csv``,
            the same keys each time. Every process calls it; the main process's numbers are written.

    Raises:
        ValueError: the checkpoint is damaged or of another run, the loss is not finite, or the disk is full.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    total = recipe.epochs * steps_per_epoch
    identity = {**identity, "seed": seed, "epochs": recipe.epochs, "steps_per_epoch": steps_per_epoch}
    checkpoint = run.path / "checkpoint.pt"
    trainer = _Trainer(model, recipe, seed, device, processes, steps_per_epoch)
    if checkpoint.exists():
        trainer.load(checkpoint, identity)
    if trainer.epoch == recipe.epochs:
        return trainer.trained()

    stream = batches(trainer.step)
    with (
        StopSignals() as signals,
        Progress(trainer.step, total, recipe.epochs, processes.main) as progress,
        Metrics(run.path, trainer.epoch) if processes.main else nullcontext() as metrics,
    ):
        while trainer.epoch < recipe.epochs:
            trainer.network.train()
            progress.start_epoch(trainer.epoch + 1)
            while trainer.step < (trainer.epoch + 1) * steps_per_epoch:
                own_loss, images = trainer.accumulate(islice(stream, recipe.accumulate), forward)
                loss, stop = trainer.agree(own_loss, signals.requested)
                trainer.update(loss)
                progress.advance(images * processes.world, loss, trainer.lr(trainer.step - 1))
                # an epoch's last step is saved before its validation, which may outlast the grace after a SIGTERM
                due = trainer.step % (recipe.checkpoint_every or steps_per_epoch) == 0
                if processes.main and (due or stop):
                    trainer.save(checkpoint, identity)
                if stop:
                    raise Stopped(
                        f"stopped after step {trainer.step} of {total}, saved in {checkpoint}; the same command goes on"
                    )
            row = {"epoch": trainer.epoch + 1, "step": trainer.step, "loss": trainer.loss_sum / steps_per_epoch}
            row |= {"lr": trainer.lr(trainer.step - 1), "images_per_second": round(progress.images_per_second, 1)}
            row |= validate(model, trainer.epoch + 1) if validate else {}
            if metrics:
                metrics.write(row)
            trainer.epoch, trainer.loss_sum = trainer.epoch + 1, 0.0
        if processes.main:
            trainer.save(checkpoint, identity)
    return trainer.trained()


class _Trainer:
    """A network in training: what its next step depends on, which a checkpoint holds, and the parts of that step.

    ``step`` counts updates; ``epoch`` counts complete epochs, validated and recorded; ``loss_sum`` is of the updates
    of the epoch under way.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        processes: Processes,
        steps_per_epoch: int,
    ) -> None:
        self.model = model.to(device)
        self.recipe, self.seed, self.device, self.processes = recipe, seed, device, processes
        self.steps_per_epoch = steps_per_epoch
        self.optimiser = adamw(model, recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.ema: AveragedModel | None = None
        if recipe.ema_decay is not None:
            average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call, unused-ignore]
            self.ema = AveragedModel(model, multi_avg_fn=average)
        self.step, self.epoch, self.loss_sum = 0, 0, 0.0
        self.network: nn.Module = model
        if processes.world > 1:  # a step of a supernet gives some layers no gradient
            self.network = DistributedDataParallel(model, find_unused_parameters=True)

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        state = {
            "identity": identity,
            "step": self.step,
            "epoch": self.epoch,
            "loss_sum": self.loss_sum,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            # without its settings, which are the recipe's and, in part, the device's
            "optimiser": self.optimiser.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(path, state)

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        state = load_checkpoint(path)
        changed = differences(state.get("identity", {}), identity)
        if changed:
            raise ValueError(f"{path} is of another run: {'; '.join(changed)}. Use name=... or out=... for a new run")
        self.step, self.epoch, self.loss_sum = state["step"], state["epoch"], state["loss_sum"]
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state["optimiser"]})
        self.scaler.load_state_dict(state["scaler"])

    def trained(self) -> Trained:
        return Trained(self.model, None if self.ema is None else self.ema.module, self.step)

    def lr(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        total, warmup = (round(n * self.steps_per_epoch) for n in (self.recipe.epochs, self.recipe.warmup_epochs))
        return learning_rate(step, total, warmup, self.recipe.lr, self.recipe.min_lr)

    def accumulate(self, micro_batches: Iterable[tuple[Tensor, Tensor]], forward: Forward) -> tuple[Tensor, int]:
        """Add up the gradients of a step: its mean loss and number of images, in this process."""
        loss, count = torch.zeros((), device=self.device), 0
        for micro, (images, targets) in enumerate(micro_batches):
            images, targets = (part.to(self.device, non_blocking=True) for part in (images, targets))
            torch.manual_seed(seed_of(self.seed, "step", self.step, micro, self.processes.rank))
            with self._exchange_after(micro):
                with autocast(self.device, self.recipe.precision):
                    logits = forward(self.network, images, self.step, micro)
                part = cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
                part = part / self.recipe.accumulate
                torch.autograd.backward(self.scaler.scale(part))
            loss += part.detach()
            count += len(images)
        assert count, f"batches ended before step {self.step}"
        return loss, count

    def _exchange_after(self, micro: int) -> AbstractContextManager[None]:
        """Processes exchange gradients only once a step, after its last micro-batch."""
        if isinstance(self.network, DistributedDataParallel) and micro + 1 < self.recipe.accumulate:
            return self.network.no_sync()
        return nullcontext()

    def agree(self, loss: Tensor, stop: bool) -> tuple[float, bool]:
        """The mean loss of all processes, and whether any of them is asked to stop; one wait for the GPU a step.

        Raises:
            ValueError: the loss or its gradient is not finite. No weight has changed.
        """
        self.scaler.unscale_(self.optimiser)
        norm = get_total_norm([weight.grad for weight in self.model.parameters() if weight.grad is not None])
        if self.recipe.clip_norm is not None:
            clip_grads_with_norm_(self.model.parameters(), self.recipe.clip_norm, norm)
        # gradients of fp16 overflow now and then; the scaler skips such an update by itself
        finite = loss.isfinite() & (norm.isfinite() | self.scaler.is_enabled())
        report = torch.stack([loss, finite.logical_not(), torch.tensor(stop, device=self.device)])
        total, broken, stops = self.processes.sum(report).tolist()
        if broken:
            raise ValueError(
                f"the loss or its gradient is not finite at step {self.step}, lr {self.lr(self.step):.3g}: try a lower "
                "recipe.lr, recipe.clip_norm=1 or recipe.precision=fp32 in a new run; the last checkpoint is intact"
            )
        return total / self.processes.world, stops > 0

    def update(self, loss: float) -> None:
        """Move the weights along the gradients, and clear these."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr(self.step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        self.loss_sum += loss
