"""The training loop, of supernets and of networks on their own.

A step's randomness is a function of (seed, step, micro-batch, rank), and a checkpoint holds all that a later step
depends on; so a run that was killed at any moment and started again ends with the weights of an unbroken one (the same
bits on a CPU, with the same number of processes).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from psvit.engine.checkpoint import load_checkpoint, save_checkpoint
from psvit.engine.config import LoopRecipe, Recipe
from psvit.engine.device import PendingHostCopy, autocast, check_compiler, matmul_peak, peak_memory
from psvit.engine.distributed import Processes
from psvit.engine.metrics import TIMED, Metrics
from psvit.engine.optim import MovingAverage, adamw, learning_rate
from psvit.engine.profile import Profiler
from psvit.engine.progress import Progress
from psvit.run.folder import RunFolder, differences
from psvit.run.random import seed_of
from psvit.run.signals import Stopped, StopSignals

LossOf = Callable[[nn.Module, Any, Any, int, int], Tensor]
Validate = Callable[[nn.Module, int], dict[str, float]]


class Batches(Protocol):
    """What feeds a training, as :class:`psvit.engine.feed.Feed` does.

    Attributes:
        steps_per_epoch: optimiser steps an epoch.
        batch_size: images of a whole step, over all processes and micro-batches.
    """

    steps_per_epoch: int
    batch_size: int

    def __call__(self, first_step: int) -> Iterator[tuple[Any, Any]]:
        """This process's micro-batches from a step on, ``recipe.accumulate`` a step, on the run's device.

        Their sizes may differ. What images and targets are is between the feed and the loss; images have a length.
        For a classifier they are float32 (B, ...), and int64 (B,) or probabilities (B, classes).
        """
        ...


def classification_loss(logits: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Mean cross entropy in float32 with the recipe's label smoothing: (B, classes) and targets -> scalar."""
    return cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)


def check_recipe(model: nn.Module, recipe: LoopRecipe) -> None:
    """Refuse what a network of another library cannot do; ours can do all of it.

    Raises:
        ValueError: ``layer_decay`` without ``layer_depths()``, or ``checkpoint_activations`` without
            ``set_grad_checkpointing()``.
    """
    if recipe.layer_decay is not None and not hasattr(model, "layer_depths"):
        raise ValueError("recipe.layer_decay needs layers in one order, which this network does not tell; say null")
    if recipe.checkpoint_activations and not hasattr(model, "set_grad_checkpointing"):
        raise ValueError("this network cannot compute activations again; say recipe.checkpoint_activations=false")


@dataclass
class Trained:
    """What a finished run has made: the network, its moving average (None without ``ema_decay``), and the steps."""

    model: nn.Module
    ema: nn.Module | None
    steps: int


def train(
    model: nn.Module,
    *,
    recipe: LoopRecipe,
    seed: int,
    device: torch.device,
    processes: Processes,
    run: RunFolder,
    identity: dict[str, Any],
    feed: Batches,
    loss: LossOf,
    validate: Validate | None = None,
    flops: float | None = None,
    partial: bool = False,
    profile: bool = False,
) -> Trained:
    """Train ``model`` in place by ``recipe``; go on from ``checkpoint.pt`` where the run folder has one.

    Args:
        model: what is trained; every process holds the same weights.
        seed: of drop path and whatever else a forward pass draws from torch's generators.
        run: the folder of ``checkpoint.pt`` and ``metrics.csv``, entered.
        identity: plain values that a checkpoint must agree with to be gone on from, such as the space's name.
        feed: this process's micro-batches, on ``device``.
        loss: ``loss(model, images, targets, step, micro_batch)`` gives the mean loss of a micro-batch, a float32
            scalar; it runs inside autocast. It must call the model it is given, which with several processes wraps the
            one above, and call it once. Gradients are those of the mean over all images of a step, however it is cut.
        validate: ``validate(model, epoch)`` after each epoch (from 1) gives numbers for its row of ``metrics.csv``,
            the same keys each time; for the moving average of the weights it is called again, and the keys start
            with ``ema_``. Every process calls it; the main process's numbers are written.
        flops: mean multiply-adds of an image's forward pass, from which the utilisation is computed.
        partial: whether a step may leave parameters without gradient, as a supernet's do.
        profile: trace a few steps with torch's profiler.

    Raises:
        ValueError: the checkpoint is damaged or of another run, the loss is not finite, or the disk is full.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    steps_per_epoch = feed.steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    identity = {**identity, "seed": seed, "epochs": recipe.epochs, "steps_per_epoch": steps_per_epoch}
    checkpoint = run.path / "checkpoint.pt"
    trainer = _Trainer(model, recipe, seed, device, processes, feed, partial)
    if checkpoint.exists():
        trainer.load(checkpoint, identity)
    if trainer.epoch == recipe.epochs:
        return trainer.trained()

    bound = None
    if flops and processes.main:  # forward and backward are three times a forward pass, a multiply-add is two FLOPs
        bound = processes.world * matmul_peak(device, recipe.precision) / (3 * 2 * flops)
    columns = ["epoch", "step", "loss", "lr", *(name for name in TIMED if bound or name != "utilisation")]
    stream = feed(trainer.step)
    with (
        StopSignals() as signals,
        Metrics(run.path, trainer.epoch, columns) if processes.main else nullcontext() as metrics,
        Progress(trainer.step, total, recipe.epochs, lambda: peak_memory(device), processes.main, bound) as progress,
        Profiler(run.path / "profile" if profile and processes.main else None, device) as profiler,
    ):
        while trainer.epoch < recipe.epochs:
            trainer.network.train()
            progress.start_epoch(trainer.epoch + 1)
            while trainer.step < (trainer.epoch + 1) * steps_per_epoch:
                trainer.take_step(progress.waiting(islice(stream, recipe.accumulate)), loss, signals)
                # an epoch's last step is saved before its validation, which may outlast the grace after a SIGTERM
                due = trainer.step % (recipe.checkpoint_every or steps_per_epoch) == 0
                stop = trainer.poll_reports(everything=due or trainer.step % steps_per_epoch == 0)
                progress.advance(trainer.batch_size, trainer.loss, trainer.lr(trainer.step - 1))
                profiler.step()
                if processes.main and (due or stop):
                    trainer.save(checkpoint, identity)
                if stop:
                    raise Stopped(
                        f"stopped after step {trainer.step} of {total}, saved in {checkpoint}; the same command goes on"
                    )
            row = {"epoch": trainer.epoch + 1, "step": trainer.step, "loss": trainer.loss_sum / steps_per_epoch}
            row |= {"lr": trainer.lr(trainer.step - 1), **progress.numbers()}
            row |= trainer.validate(validate) if validate else {}
            if metrics:
                metrics.write(row)
            trainer.epoch, trainer.loss_sum = trainer.epoch + 1, 0.0
        if processes.main:
            trainer.save(checkpoint, identity)
    return trainer.trained()


class _Trainer:
    """A network in training: what its next step depends on, which a checkpoint holds, and the parts of that step.

    The host runs ahead of the device: it starts a step, and hears of the one before. ``step`` counts the updates that
    were started; ``epoch`` counts complete epochs, validated and recorded; ``loss_sum`` is of the updates of the epoch
    under way that were heard of, and ``loss`` of the last one.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: LoopRecipe,
        seed: int,
        device: torch.device,
        processes: Processes,
        feed: Batches,
        partial: bool,
    ) -> None:
        self.model = model.to(device)
        self.recipe, self.seed, self.device, self.processes = recipe, seed, device, processes
        self.steps_per_epoch, self.batch_size = feed.steps_per_epoch, feed.batch_size
        self.optimiser = adamw(model, recipe.weight_decay, recipe.layer_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.ema = None if recipe.ema_decay is None else MovingAverage(model, recipe.ema_decay)
        self.step, self.epoch, self.loss_sum, self.loss = 0, 0, 0.0, math.nan
        self.reports: deque[PendingHostCopy] = (
            deque()
        )  # of the steps that the host has not heard of: loss, faults, stops
        self.faults = torch.zeros((), device=device)
        network: Any = model
        if recipe.checkpoint_activations:
            network.set_grad_checkpointing(True)
        if recipe.compile == "true" or (recipe.compile == "auto" and device.type == "cuda"):
            check_compiler(device)
            getattr(network, "compile_layers", network.compile)()
        self.network: nn.Module = network
        if processes.world > 1:
            # To find unused parameters costs a walk over the graph of each step and the exchange of a map of all
            # parameters, for which the host waits where this process has left one of them out.
            self.network = DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                find_unused_parameters=partial,
                gradient_as_bucket_view=True,
            )

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        assert not self.reports, "a step that nobody has heard of may not have been one"
        state = {
            "identity": identity,
            "step": self.step,
            "epoch": self.epoch,
            "loss_sum": self.loss_sum,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
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
            self.ema.model.load_state_dict(state["ema"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state["optimiser"]})
        self.scaler.load_state_dict(state["scaler"])

    def trained(self) -> Trained:
        return Trained(self.model, None if self.ema is None else self.ema.model, self.step)

    def validate(self, validate: Validate) -> dict[str, float]:
        """The numbers of the network and, where there is one, of its moving average."""
        numbers = validate(self.model, self.epoch + 1)
        if self.ema is not None:
            numbers |= {f"ema_{key}": value for key, value in validate(self.ema.model, self.epoch + 1).items()}
        return numbers

    def lr(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        recipe, steps = self.recipe, self.steps_per_epoch
        decays = None if recipe.decay_epochs is None else [round(epoch * steps) for epoch in recipe.decay_epochs]
        warmup = round(recipe.warmup_epochs * steps)
        return learning_rate(step, recipe.epochs * steps, warmup, recipe.lr, recipe.min_lr, decays)

    def take_step(self, micro_batches: Iterable[tuple[Any, Any]], loss_of: LossOf, signals: StopSignals) -> None:
        """Start a step: gradients, report, update. The host waits for nothing that the device has yet to do."""
        loss = self.accumulate(micro_batches, loss_of)
        norm = self.clip()
        self.report(loss, norm, signals.requested)
        # a fault is one for good: what the host does not know of yet must not be trained on
        self.update(skip=((self.faults > 0) | ~norm.isfinite()).float())
        self.step += 1

    def accumulate(self, micro_batches: Iterable[tuple[Any, Any]], loss_of: LossOf) -> Tensor:
        """Add up the gradients of a step; this process's part of its mean loss."""
        loss, micro = torch.zeros((), device=self.device), -1
        for micro, (images, targets) in enumerate(micro_batches):
            torch.manual_seed(seed_of(self.seed, "step", self.step, micro, self.processes.rank))
            with self._exchange_after(micro), self.processes.together():
                with autocast(self.device, self.recipe.precision):
                    mean = loss_of(self.network, images, targets, self.step, micro)
                part = mean * (len(images) / self.batch_size)
                # several processes get the mean of their gradients where the sum is wanted
                torch.autograd.backward(self.scaler.scale(part * self.processes.world))
            loss += part.detach()
        assert micro + 1 == self.recipe.accumulate, f"batches ended before step {self.step}"
        return loss

    def _exchange_after(self, micro: int) -> AbstractContextManager[None]:
        """Processes exchange gradients only once a step, after its last micro-batch."""
        if isinstance(self.network, DistributedDataParallel) and micro + 1 < self.recipe.accumulate:
            return self.network.no_sync()
        return nullcontext()

    def clip(self) -> Tensor:
        """The norm of the gradient, which is cut to ``clip_norm``."""
        self.scaler.unscale_(self.optimiser)
        norm = get_total_norm([weight.grad for weight in self.model.parameters() if weight.grad is not None])
        if self.recipe.clip_norm is not None:
            clip_grads_with_norm_(self.model.parameters(), self.recipe.clip_norm, norm)
        return norm

    def report(self, loss: Tensor, norm: Tensor, stop: bool) -> None:
        """Send all processes' loss, faults and wish to stop on their way to the host."""
        # gradients of fp16 overflow now and then, until the scale has come down to 1; such an update is left out
        overflow = self.scaler.scale(torch.ones_like(loss)) > 1
        fault = ~loss.isfinite() | ~(norm.isfinite() | overflow)
        report = self.processes.sum(torch.stack([loss, fault.float(), torch.full_like(loss, stop)]))
        self.faults += report[1]
        self.reports.append(PendingHostCopy(report))

    def update(self, skip: Tensor) -> None:
        """Move the weights along the gradients, unless ``skip`` is 1, and clear these."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr(self.step) * group["lr_scale"]
        self.optimiser.found_inf = skip  # type: ignore[attr-defined]  # as a GradScaler tells a fused optimiser
        self.optimiser.step()
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, self.step == 0, skip)

    def poll_reports(self, everything: bool) -> bool:
        """Read the reports of the steps that were started, all or, so that nobody waits, all but the latest.

        Returns:
            Whether to stop, the same in all processes; then everything was heard.

        Raises:
            ValueError: the loss or its gradient was not finite. No weight has changed since.
        """
        stop = False
        while len(self.reports) > (0 if everything or stop else 1):
            step = self.step - len(self.reports)
            self.loss, faults, stops = self.reports.popleft().read()
            if faults:
                raise ValueError(
                    f"the loss or its gradient is not finite at step {step}, lr {self.lr(step):.3g}: try a lower "
                    "recipe.lr, recipe.clip_norm=1 or recipe.precision=fp32 in a new run; the last checkpoint is intact"
                )
            self.loss_sum += self.loss
            stop = stop or stops > 0
        return stop
