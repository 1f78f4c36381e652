"""The training loop, of supernets and of networks on their own.

A step's randomness is a function of (seed, step, micro-batch, rank), and a checkpoint holds all that a later step
depends on; so a run that was killed at any moment and started again ends with the weights of an unbroken one (the same
bits on a CPU, with the same number of processes).
"""

from __future__ import annotations

import math
import sys
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

from psvit.engine.checkpoint import latest_checkpoint, save_checkpoint
from psvit.engine.config import LoopRecipe, Recipe
from psvit.engine.device import PendingHostCopy, autocast, check_compiler, matmul_peak
from psvit.engine.metrics import TIMED, Metrics
from psvit.engine.optim import MovingAverage, adamw, learning_rate
from psvit.engine.profile import Profiler
from psvit.engine.progress import Progress
from psvit.engine.runtime import Runtime
from psvit.run.folder import RunFolder, differences
from psvit.run.random import seed_of
from psvit.run.signals import Stopped, StopSignals

LossOf = Callable[[nn.Module, Any, Any, int, int], Tensor]
Validate = Callable[[nn.Module, int], dict[str, float]]


class Batches(Protocol):
    """What feeds a training, as :class:`psvit.engine.feed.Feed` does.

    Attributes:
        steps_per_epoch: optimiser steps per epoch.
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
        raise ValueError(
            "recipe.layer_decay needs an order of the layers, which this network does not provide; set it to null"
        )
    if recipe.checkpoint_activations and not hasattr(model, "set_grad_checkpointing"):
        raise ValueError("this network cannot recompute activations; set recipe.checkpoint_activations=false")


@dataclass
class Trained:
    """What a finished run has made: the network, its moving average (None without ``ema_decay``), and the steps."""

    model: nn.Module
    ema: nn.Module | None
    steps: int


@dataclass(frozen=True)
class Task:
    """What a network is trained to do.

    Attributes:
        feed: this process's micro-batches, on the run's device.
        loss: ``loss(model, images, targets, step, micro_batch)`` gives the mean loss of a micro-batch, a float32
            scalar; it runs inside autocast. It must call the model it is given, which with several processes wraps the
            trained one, and call it once. Gradients are those of the mean over all images of a step, however it is cut.
        identity: plain values that a checkpoint must agree with to be continued, such as the space's name.
        validate: ``validate(model, epoch)`` after each epoch (from 1) gives numbers for its row of ``metrics.csv``,
            the same keys each time; for the moving average of the weights it is called again, and the keys start
            with ``ema_``. Every process calls it; the main process's numbers are written.
        flops: mean multiply-adds of an image's forward pass, from which the utilisation is computed.
        partial: whether a step may leave parameters without gradient, as a supernet's do.
    """

    feed: Batches
    loss: LossOf
    identity: dict[str, Any]
    validate: Validate | None = None
    flops: float | None = None
    partial: bool = False


def train(model: nn.Module, recipe: LoopRecipe, task: Task, runtime: Runtime, run: RunFolder) -> Trained:
    """Train ``model`` in place by ``recipe``; resume from ``checkpoint.pt`` where the run folder has one.

    Args:
        model: every process holds the same weights.
        run: the folder of ``checkpoint.pt`` and ``metrics.csv``, entered.

    Raises:
        ValueError: the checkpoint is damaged or of another run, the loss is not finite, or the disk is full.
        Stopped: Ctrl-C or SIGTERM came; the checkpoint is saved.
    """
    trainer = _Trainer(model, recipe, task, runtime, run.path / "checkpoint.pt")
    trainer.resume()
    if trainer.epoch == recipe.epochs:
        return trainer.trained()
    main, bound = runtime.processes.main, _speed_bound(task, recipe, runtime)
    if main and recipe.warmup_epochs >= recipe.epochs:
        print(
            f"note: the learning rate rises for {recipe.warmup_epochs:g} epochs and recipe.epochs={recipe.epochs}: it "
            f"never falls; set recipe.warmup_epochs to less",
            file=sys.stderr,
        )
    columns = ["epoch", "step", "loss", "lr", *(name for name in TIMED if bound or name != "utilisation")]
    stream = task.feed(trainer.step)
    with (
        StopSignals() as signals,
        Metrics(run.path, trainer.rows, columns) if main else nullcontext() as metrics,
        Progress(trainer.step, trainer.steps, recipe.epochs, runtime.device, main, bound) as progress,
        Profiler(run.path / "profile" if runtime.profile and main else None, runtime.device) as profiler,
    ):
        while trainer.epoch < recipe.epochs:
            trainer.network.train()
            progress.start_epoch(trainer.epoch + 1)
            while trainer.step < (trainer.epoch + 1) * trainer.steps_per_epoch:
                trainer.take_step(progress.waiting(islice(stream, recipe.accumulate)), signals)
                stop = trainer.poll_reports(everything=trainer.save_is_due or trainer.epoch_is_over)
                progress.advance(trainer.batch_size, trainer.loss, trainer.lr(trainer.step - 1))
                profiler.step()
                if trainer.save_is_due or stop:
                    trainer.save()
                if stop:
                    raise Stopped(
                        f"stopped after step {trainer.step} of {trainer.steps}, saved in {trainer.checkpoint}; run "
                        "the same command again to resume"
                    )
            row = {**trainer.numbers(), **progress.numbers(), **trainer.validate()}
            if metrics:
                metrics.write(row)
            trainer.start_next_epoch()
        trainer.save()
    return trainer.trained()


def _speed_bound(task: Task, recipe: LoopRecipe, runtime: Runtime) -> float | None:
    """Images a second at which all devices would do nothing but matrix products; None if unknown, or not wanted here.

    Forward and backward pass are three times a forward pass, and a multiply-add is two FLOPs.
    """
    if not task.flops or not runtime.processes.main:
        return None
    return runtime.processes.world * matmul_peak(runtime.device, recipe.precision) / (3 * 2 * task.flops)


class _Trainer:
    """A network in training: what its next step depends on, which a checkpoint holds, and the parts of that step.

    The host runs ahead of the device: it starts a step, and hears of the one before. ``step`` counts the updates that
    were started; ``epoch`` counts complete epochs, validated and recorded; ``loss_sum`` is of the updates of the epoch
    under way that were heard of, and ``loss`` of the last one.
    """

    def __init__(self, model: nn.Module, recipe: LoopRecipe, task: Task, runtime: Runtime, checkpoint: Path) -> None:
        device = runtime.device
        self.model = model.to(device)
        self.recipe, self.task, self.runtime, self.checkpoint = recipe, task, runtime, checkpoint
        self.steps_per_epoch, self.batch_size = task.feed.steps_per_epoch, task.feed.batch_size
        self.steps = recipe.epochs * self.steps_per_epoch
        self.identity = {**task.identity, "seed": runtime.seed, "epochs": recipe.epochs}
        self.identity["steps_per_epoch"] = self.steps_per_epoch
        self.optimiser = adamw(model, recipe.weight_decay, recipe.layer_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.ema = None if recipe.ema_decay is None else MovingAverage(model, recipe.ema_decay)
        self.step, self.epoch, self.loss_sum, self.loss = 0, 0, 0.0, math.nan
        self.rows: list[dict[str, float]] = []  # of metrics.csv, one for each complete epoch
        # of the steps that the host has not heard of: loss, faults, stops
        self.reports: deque[PendingHostCopy] = deque()
        self.faults = torch.zeros((), device=device)
        network: Any = model
        if recipe.checkpoint_activations:
            network.set_grad_checkpointing(True)
        if recipe.compiles_on(device.type):
            check_compiler(device)
            getattr(network, "compile_layers", network.compile)()
        self.network: nn.Module = network
        if runtime.processes.world > 1:
            # To find unused parameters costs a walk over the graph of each step and the exchange of a map of all
            # parameters, for which the host waits where this process has left one of them out.
            self.network = DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                find_unused_parameters=task.partial,
                gradient_as_bucket_view=True,
            )

    @property
    def epoch_is_over(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    @property
    def save_is_due(self) -> bool:
        """By default at the end of an epoch, before its validation, which may outlast the grace after a SIGTERM."""
        return self.step % (self.recipe.checkpoint_every or self.steps_per_epoch) == 0

    def save(self) -> None:
        """Write the checkpoint; the main process does."""
        if not self.runtime.processes.main:
            return
        assert not self.reports, "a step that nobody has heard of may not have been one"
        state = {
            "identity": self.identity,
            "step": self.step,
            "epoch": self.epoch,
            "loss_sum": self.loss_sum,
            "rows": self.rows,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
            # without its settings, which are the recipe's and, in part, the device's
            "optimiser": self.optimiser.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.checkpoint, state)

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one, or from the one before it where it is damaged."""
        path, state = latest_checkpoint(self.checkpoint)
        if state is None:
            return
        recorded = state.get("identity")
        changed = differences(recorded if isinstance(recorded, dict) else {}, self.identity)
        if changed:
            raise ValueError(
                f"{path} belongs to another run: {'; '.join(changed)}. Use name=... or out=... for a new run"
            )
        try:
            self._take_over(state)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise ValueError(f"{path} does not hold this run's state ({reason}); delete it to start again") from error

    def _take_over(self, state: dict[str, Any]) -> None:
        step, epoch, rows = state["step"], state["epoch"], state["rows"]
        first = epoch * self.steps_per_epoch  # step of the epoch under way, which may have come to its last
        if not (0 <= first <= step <= min(first + self.steps_per_epoch, self.steps)) or len(rows) != epoch:
            raise ValueError(f"step {step} of epoch {epoch}, with {len(rows)} epochs recorded")
        self.step, self.epoch, self.loss_sum, self.rows = step, epoch, float(state["loss_sum"]), rows
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state["optimiser"]})
        self.scaler.load_state_dict(state["scaler"])

    def trained(self) -> Trained:
        return Trained(self.model, None if self.ema is None else self.ema.model, self.step)

    def numbers(self) -> dict[str, float]:
        """What the epoch's row of the metrics begins with."""
        loss = self.loss_sum / self.steps_per_epoch
        return {"epoch": self.epoch + 1, "step": self.step, "loss": loss, "lr": self.lr(self.step - 1)}

    def validate(self) -> dict[str, float]:
        """The numbers of the network and, where there is one, of its moving average."""
        validate = self.task.validate
        if validate is None:
            return {}
        numbers = validate(self.model, self.epoch + 1)
        if self.ema is not None:
            numbers |= {f"ema_{key}": value for key, value in validate(self.ema.model, self.epoch + 1).items()}
        return numbers

    def start_next_epoch(self) -> None:
        self.epoch, self.loss_sum = self.epoch + 1, 0.0

    def lr(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        recipe, steps = self.recipe, self.steps_per_epoch  # of an epoch
        decays = None if recipe.decay_epochs is None else [round(epoch * steps) for epoch in recipe.decay_epochs]
        warmup = round(recipe.warmup_epochs * steps)
        return learning_rate(step, self.steps, warmup, recipe.lr, recipe.min_lr, decays)

    def take_step(self, micro_batches: Iterable[tuple[Any, Any]], signals: StopSignals) -> None:
        """Start a step: gradients, report, update. The host waits for nothing that the device has yet to do."""
        loss = self.accumulate(micro_batches)
        norm = self.clip()
        self.report(loss, norm, signals.requested)
        # a fault is one for good: what the host does not know of yet must not be trained on
        self.update(skip=((self.faults > 0) | ~norm.isfinite()).float())
        self.step += 1

    def accumulate(self, micro_batches: Iterable[tuple[Any, Any]]) -> Tensor:
        """Add up the gradients of a step; this process's part of its mean loss."""
        device, processes = self.runtime.device, self.runtime.processes
        loss, micro = torch.zeros((), device=device), -1
        for micro, (images, targets) in enumerate(micro_batches):
            torch.manual_seed(seed_of(self.runtime.seed, "step", self.step, micro, processes.rank))
            with self._exchange_after(micro), processes.together():
                with autocast(device, self.recipe.precision):
                    mean = self.task.loss(self.network, images, targets, self.step, micro)
                part = mean * (len(images) / self.batch_size)
                # several processes get the mean of their gradients where the sum is wanted
                torch.autograd.backward(self.scaler.scale(part * processes.world))
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
        report = self.runtime.processes.sum(torch.stack([loss, fault.float(), torch.full_like(loss, stop)]))
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
            self.ema.update(self.model, self.step, skip)

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
