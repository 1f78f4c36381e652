"""The loop on toy networks. Run as a program, this file is one process of a job that test_two_processes starts."""

import copy
import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from psvit.engine import loop
from psvit.engine.checkpoint import load_checkpoint, previous, save_checkpoint
from psvit.engine.config import Recipe
from psvit.engine.distributed import Processes
from psvit.engine.loop import Task, classification_loss, train
from psvit.engine.metrics import TIMED
from psvit.engine.optim import learning_rate
from psvit.engine.runtime import Runtime
from psvit.run.folder import RunFolder
from psvit.run.random import seed_of
from psvit.run.signals import Stopped
from tests.hold import HANG

CPU, ALONE = torch.device("cpu"), Processes()
FEATURES, CLASSES, BATCH, STEPS_PER_EPOCH = 8, 3, 9, 4  # an odd batch: micro-batches and shares of several sizes


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    """Its import takes seconds; test_metrics has it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


class Killed(Exception):
    """Stands for a SIGKILL: nothing may clean up after it."""


def recipe(**settings):
    plain = {"epochs": 3, "batch_size": BATCH, "lr": 0.02, "warmup_epochs": 1.0, "label_smoothing": 0.1}
    return Recipe(**plain | settings)


class Cells(nn.Module):
    """A residual network that can leave layers out, as a supernet does; drop-out stands for drop path."""

    def __init__(self, dropout):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(FEATURES, 16)
        self.cells = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images, cells=(0, 1, 2)):
        tokens = self.embed(images)
        for cell in cells:
            tokens = tokens + self.dropout(self.cells[cell](tokens).relu())
        return self.head(self.norm(tokens))


def batch(step, soft=False):
    """The whole batch of a step, over all processes and micro-batches: a pure function of the step."""
    generator = torch.Generator().manual_seed(seed_of(0, "batch", step))
    images = torch.randn(BATCH, FEATURES, generator=generator)
    labels = images[:, :CLASSES].argmax(1)
    if not soft:
        return images, labels
    one_hot = nn.functional.one_hot(labels, CLASSES).float()
    return images, 0.7 * one_hot + 0.3 * one_hot.flip(0)


class Batches:
    """Stands for a Feed: a process's share of each batch, cut into micro-batches of sizes as even as they can be."""

    def __init__(
        self, recipe, processes=ALONE, soft=False, on_micro_batch=lambda step, micro: None, steps=STEPS_PER_EPOCH
    ):
        self.recipe, self.processes, self.soft, self.on_micro_batch = recipe, processes, soft, on_micro_batch
        self.steps_per_epoch, self.batch_size = steps, BATCH

    def __call__(self, first_step):
        for step in range(first_step, self.recipe.epochs * self.steps_per_epoch):
            images, targets = batch(step, self.soft)
            mine = slice(*(len(images) * rank // self.processes.world for rank in range(self.processes.rank, 9)[:2]))
            shares = zip(
                images[mine].tensor_split(self.recipe.accumulate),
                targets[mine].tensor_split(self.recipe.accumulate),
                strict=True,
            )
            for micro, share in enumerate(shares):
                self.on_micro_batch(step, micro)
                yield share


def logits_of(network, images, step, micro):
    return network(images)


def loss_of(recipe, forward=logits_of):
    return lambda network, images, targets, step, micro: classification_loss(
        forward(network, images, step, micro), targets, recipe
    )


def job(folder, recipe, *, model=None, seed=0, device=CPU, processes=ALONE, profile=False, dropout=0.2, **task):
    """Run a job in ``folder``; the same call goes on with it."""
    usual = {
        "feed": Batches(recipe, processes),
        "loss": loss_of(recipe),
        "identity": {"space": "toy"},
        "validate": lambda network, epoch: {"weight": network.head.weight.abs().sum().item()},
    }
    with RunFolder(folder, {"seed": 0}, processes.main) as run:
        runtime = Runtime(seed, device, processes, profile)
        return train(model or Cells(dropout), recipe, Task(**usual | task), runtime, run)


def assert_same_bits(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def assert_close(one, other, tolerance=1e-6):
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], atol=tolerance, rtol=0, msg=name)


def table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]


RESUMED = {
    "plain": {},
    "all": {"accumulate": 2, "ema_decay": 0.9, "clip_norm": 0.5, "checkpoint_every": 3},
    "fp16": {"precision": "fp16", "checkpoint_every": 1},
}


@pytest.mark.parametrize("kind", RESUMED)
def test_killed_at_each_step_and_resumed_equals_unbroken(tmp_path, kind):
    settings = recipe(**RESUMED[kind])
    unbroken = job(tmp_path / "unbroken", settings)
    for kill_at in range(3 * STEPS_PER_EPOCH):

        def kill(step, micro, kill_at=kill_at):
            if step == kill_at and micro == settings.accumulate - 1:
                raise Killed

        folder = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            job(folder, settings, feed=Batches(settings, on_micro_batch=kill))
        torch.manual_seed(kill_at)  # the state of torch's own generator must not matter
        resumed = job(folder, settings)
        assert_same_bits(resumed.model, unbroken.model)
        if unbroken.ema:
            assert_same_bits(resumed.ema, unbroken.ema)
        assert resumed.steps == unbroken.steps == 3 * STEPS_PER_EPOCH
        assert table(folder) == table(tmp_path / "unbroken")
        assert [row["step"] for row in table(folder)] == ["4", "8", "12"]


def test_killed_around_each_save_and_validation_and_resumed_equals_unbroken(tmp_path, monkeypatch):
    settings = recipe(checkpoint_every=3, ema_decay=0.9)
    unbroken = job(tmp_path / "unbroken", settings)
    moments = 0
    save = loop.save_checkpoint

    def moment(do):
        """Run ``do`` between two moments at which the process may die."""
        nonlocal moments
        for act in (None, do):
            result = act() if act else None
            moments += 1
            if moments == kill_at:
                raise Killed
        return result

    def validate(network, epoch):
        return moment(lambda: {"weight": network.head.weight.abs().sum().item()})

    monkeypatch.setattr(loop, "save_checkpoint", lambda path, state: moment(lambda: save(path, state)))
    kill_at = 1
    while True:
        moments, folder = 0, tmp_path / str(kill_at)
        try:
            job(folder, settings, validate=validate)
            break  # this many moments the job does not have
        except Killed:
            moments = kill_at
            resumed = job(folder, settings, validate=validate)
        assert_same_bits(resumed.model, unbroken.model)
        assert_same_bits(resumed.ema, unbroken.ema)
        assert table(folder) == table(tmp_path / "unbroken")
        kill_at += 1
    assert kill_at == 1 + 2 * (
        4 + 1 + 6
    )  # saves at steps 3, 6, 9 and 12, the last one; three epochs' validations of two networks


def test_a_finished_run_does_nothing_and_returns_its_weights(tmp_path):
    settings = recipe(ema_decay=0.9)
    first = job(tmp_path, settings)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def never(step, micro):
        raise AssertionError

    again = job(tmp_path, settings, feed=Batches(settings, on_micro_batch=never), validate=None)
    assert_same_bits(again.model, first.model)
    assert_same_bits(again.ema, first.ema)
    assert again.steps == 12
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_checkpoint_of_another_job_is_named_and_refused(tmp_path):
    job(tmp_path, recipe(epochs=1))
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt belongs to another run: space was toy and is 2d_min"
    ) as raised:
        job(tmp_path, recipe(epochs=1), identity={"space": "2d_mini_4"})
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="steps_per_epoch was 4 and is 5"):  # as when images were added
        job(tmp_path, recipe(epochs=1), feed=Batches(recipe(epochs=1), steps=5))


@pytest.mark.parametrize("soft", [False, True])
def test_accumulation_equals_one_large_batch(tmp_path, soft):
    trained = []
    for accumulate in (1, 2, 4, 9):
        settings = recipe(accumulate=accumulate, clip_norm=0.5)
        trained.append(job(tmp_path / str(accumulate), settings, dropout=0.0, feed=Batches(settings, soft=soft)).model)
    for cut in trained[1:]:
        assert_close(cut, trained[0])
    rows = [table(tmp_path / name) for name in "14"]
    assert [float(row["loss"]) for row in rows[0]] == pytest.approx([float(row["loss"]) for row in rows[1]], abs=1e-6)


def test_each_micro_batch_drops_out_anew_and_by_seed(tmp_path):
    drawn = {}

    def forward(network, images, step, micro):
        drawn.setdefault(seed, []).append(torch.rand(4).tolist())
        return network(images)

    for seed in (0, 1):
        settings = recipe(epochs=1, accumulate=2)
        job(tmp_path / str(seed), settings, seed=seed, loss=loss_of(settings, forward))
    draws = [tuple(draw) for seed in drawn for draw in drawn[seed]]
    assert len(set(draws)) == len(draws) == 2 * 2 * STEPS_PER_EPOCH


def test_one_step_is_adamw_by_its_formula(tmp_path):
    """Decoupled decay, then the first step of Adam, whose moments are the gradient itself (arXiv 1711.05101)."""
    settings = recipe(epochs=1, weight_decay=0.3, warmup_epochs=0.0, label_smoothing=0.2)
    model = Cells(0.0)
    expected = copy.deepcopy(model)
    images, labels = batch(0)
    smooth = nn.functional.one_hot(labels, CLASSES) * 0.8 + 0.2 / CLASSES
    loss = -(smooth * expected(images).log_softmax(1)).sum(1).mean()
    loss.backward()
    with torch.no_grad():
        for name, weight in expected.named_parameters():
            decay = 0.3 if name.endswith("weight") and "norm" not in name else 0.0
            weight -= 0.02 * decay * weight + 0.02 * weight.grad / (weight.grad.abs() + 1e-8)
    job(tmp_path, settings, model=model, feed=Batches(settings, steps=1))
    assert_close(model, expected)
    assert float(table(tmp_path)[0]["loss"]) == pytest.approx(loss.item(), abs=1e-6)


def test_clipping_bounds_the_gradient(tmp_path, monkeypatch):
    norms = []
    update = loop._Trainer.update

    def spy(self, skip):
        norms.append(torch.cat([weight.grad.flatten() for weight in self.model.parameters()]).norm().item())
        update(self, skip)

    monkeypatch.setattr(loop._Trainer, "update", spy)
    job(tmp_path, recipe(epochs=1, clip_norm=1e-3))
    assert norms == pytest.approx([1e-3] * STEPS_PER_EPOCH, rel=1e-2)


def test_moving_average_equals_one_by_hand(tmp_path):
    after_each_step = []
    averages, settings = [], recipe(ema_decay=0.2)  # reached in the third step, where the warm-up would be 3 / 12

    def validate(network, epoch):
        kept = averages if len(averages) < len(after_each_step) else after_each_step
        kept.append(copy.deepcopy(network.state_dict()))
        return {"weight": network.head.weight.abs().sum().item()}

    trained = job(tmp_path, settings, feed=Batches(settings, steps=1), validate=validate)
    average = after_each_step[0]
    for decay, weights in zip((2 / 11, 0.2), after_each_step[1:], strict=True):
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    assert len(after_each_step) == len(averages) == 3
    for row, plain, averaged in zip(table(tmp_path), after_each_step, averages, strict=True):
        assert float(row["weight"]) == plain["head.weight"].abs().sum().item()
        assert float(row["ema_weight"]) == averaged["head.weight"].abs().sum().item()
    for name, weight in trained.ema.state_dict().items():
        torch.testing.assert_close(weight, average[name], atol=1e-6, rtol=0)
    with pytest.raises(AssertionError):
        assert_close(trained.ema, trained.model)


def test_metrics_hold_loss_and_learning_rate_of_each_epoch(tmp_path):
    losses = []

    def forward(network, images, step, micro):
        logits = network(images)
        losses.append(cross_entropy(logits, batch(step)[1], label_smoothing=0.1).item())
        return logits

    job(tmp_path, recipe(), loss=loss_of(recipe(), forward))
    rows = table(tmp_path)
    assert list(rows[0]) == ["epoch", "step", "loss", "lr", "weight"]
    for epoch, row in enumerate(rows, start=1):
        assert (int(row["epoch"]), int(row["step"])) == (epoch, 4 * epoch)
        assert float(row["loss"]) == pytest.approx(sum(losses[4 * epoch - 4 : 4 * epoch]) / 4, abs=1e-6)
        assert float(row["lr"]) == learning_rate(4 * epoch - 1, 12, 4, 0.02, 1e-5)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def infinite_loss(model, logits):
    return logits * torch.inf


def infinite_gradient(model, logits):
    return logits + (0 * model.head.weight).abs().sqrt().sum()  # 0, whose slope is infinite


@pytest.mark.parametrize("fault", [infinite_loss, infinite_gradient])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("at", [4, 5])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path, fault, clip_norm, at):
    """The step after it, which starts before the host has heard of it, changes nothing either."""
    model, before, steps = Cells(0.2), {}, []

    def forward(network, images, step, micro):
        steps.append(step)
        logits = network(images)
        if step != at:
            return logits
        before.update(copy.deepcopy(network.state_dict()))
        return fault(network, logits)

    settings = recipe(checkpoint_every=2, clip_norm=clip_norm, ema_decay=0.9)
    with pytest.raises(ValueError, match=rf"not finite at step {at}, lr 0\.0\d+: try a lower recipe\.lr") as raised:
        job(tmp_path, settings, model=model, loss=loss_of(settings, forward))
    assert "\n" not in str(raised.value)
    assert steps[-1] == 5
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert saved["step"] == 4
    for part in ("model", "ema"):
        assert all(weight.isfinite().all() for weight in saved[part].values())


def test_a_gradient_that_no_scale_helps_stops_fp16_too(tmp_path):
    settings = recipe(precision="fp16", epochs=6)
    loss = loss_of(settings, lambda network, images, step, micro: infinite_gradient(network, network(images)))
    model = Cells(0.0)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="not finite at step 16"):  # 65536, the first scale, was halved 16 times
        job(tmp_path, settings, model=model, loss=loss)
    assert_same_bits(model, before)


def test_an_overflow_of_fp16_is_left_out_of_weights_moments_and_average(tmp_path):
    settings = recipe(epochs=1, precision="fp16", ema_decay=0.5)
    loss = loss_of(settings)
    model = Cells(0.0)
    before = copy.deepcopy(model)
    trained = job(
        tmp_path, settings, model=model, loss=lambda *given: 100 * loss(*given), feed=Batches(settings, steps=2)
    )
    assert_same_bits(trained.model, before)
    assert_same_bits(trained.ema, before)
    assert all(float(state["step"]) == 0 for state in load_checkpoint(tmp_path / "checkpoint.pt")["optimiser"].values())


class NoLookAtTheDevice(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU's result."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").partition(".")[0]
        assert name not in self.WAITS, f"the host waits for {name}"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_host_looks_at_no_result_within_a_step(tmp_path, monkeypatch, precision):
    take, read, order = loop._Trainer.take_step, loop.PendingHostCopy.read, []

    def watched(self, *args):
        with NoLookAtTheDevice():
            take(self, *args)
        order.append(f"start {self.step - 1}")

    def counted(self):
        order.append("poll_reports")
        return read(self)

    monkeypatch.setattr(loop._Trainer, "take_step", watched)
    monkeypatch.setattr(loop.PendingHostCopy, "read", counted)
    job(tmp_path, recipe(epochs=1, precision=precision, accumulate=2, clip_norm=0.5, ema_decay=0.9))
    # of each step when the next one has started, and of the last one at the end of the epoch
    assert order == [
        "start 0",
        "start 1",
        "poll_reports",
        "start 2",
        "poll_reports",
        "start 3",
        "poll_reports",
        "poll_reports",
    ]


def test_layer_decay_slows_the_first_layers_down(tmp_path):
    """Adam's first step moves each weight by the learning rate, whatever its gradient."""
    model = Cells(0.0)
    top = {"embed": 0, "cells": 1, "norm": 2, "head": 2}
    model.layer_depths = lambda: {name: top[name.partition(".")[0]] for name, _ in model.named_parameters()}
    before = copy.deepcopy(dict(model.named_parameters()))
    settings = recipe(epochs=1, weight_decay=0.0, warmup_epochs=0.0, layer_decay=0.5)
    job(tmp_path, settings, model=model, feed=Batches(settings, steps=1))
    for name, rate in (("embed.weight", 0.005), ("cells.0.bias", 0.01), ("head.weight", 0.02)):
        moved = (model.get_parameter(name) - before[name]).abs().max().item()
        assert moved == pytest.approx(rate, rel=1e-3)


def test_compile_and_checkpoint_activations_ask_the_model(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "check_compiler", lambda device: asked.append("checked"))
    for settings, expected in (
        (recipe(epochs=1, compile="true", checkpoint_activations=True), [True, "checked", "compiled"]),
        (recipe(epochs=1), []),  # auto, on a CPU
    ):
        asked.clear()
        model = Cells(0.0)
        model.set_grad_checkpointing, model.compile_layers = asked.append, lambda: asked.append("compiled")
        job(tmp_path / str(len(expected)), settings, model=model)
        assert asked == expected


def test_speed_and_memory_stand_in_the_table(tmp_path, capsys):
    job(tmp_path / "known", recipe(), flops=1000.0)
    job(tmp_path / "unknown", recipe())
    rows = {
        name: list(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines()))
        for name in ("known", "unknown")
    }
    assert [name for name in rows["known"][0] if name in TIMED] == list(TIMED)
    assert [name for name in rows["unknown"][0] if name in TIMED] == [name for name in TIMED if name != "utilisation"]
    for row in rows["known"]:
        assert float(row["images_per_second"]) > 0
        assert 0 <= float(row["data_wait"]) <= 1
        assert float(row["utilisation"]) >= 0
        assert 50 < int(row["memory_mib"]) < 100_000
    assert "utilisation" in capsys.readouterr().err


def killed_in_step_five(tmp_path):
    def kill(step, micro):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        job(tmp_path, recipe(checkpoint_every=1), feed=Batches(recipe(), on_micro_batch=kill))
    return tmp_path / "checkpoint.pt"


def changed(path, change):
    """Write a checkpoint anew, changed."""
    state = load_checkpoint(path)
    change(state)
    previous(path).unlink()
    save_checkpoint(path, state)


def test_rows_of_other_columns_are_refused(tmp_path):
    path = killed_in_step_five(tmp_path)
    changed(path, lambda state: state["rows"][0].update(waited=state["rows"][0].pop("data_wait")))
    with pytest.raises(ValueError, match=r"metrics\.csv has the columns .*waited.*; use name=") as raised:
        job(tmp_path, recipe(checkpoint_every=1))
    assert "\n" not in str(raised.value)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path, capsys):
    unbroken = job(tmp_path / "unbroken", recipe(checkpoint_every=1))
    path = killed_in_step_five(tmp_path / "killed")
    assert load_checkpoint(previous(path))["step"] == load_checkpoint(path)["step"] - 1
    path.write_bytes(path.read_bytes()[:-200])
    capsys.readouterr()
    assert_same_bits(job(tmp_path / "killed", recipe(checkpoint_every=1)).model, unbroken.model)
    assert "damaged" in (line := capsys.readouterr().err)
    assert "resuming from checkpoint.previous.pt" in line
    assert table(tmp_path / "killed") == table(tmp_path / "unbroken")


def test_a_lost_checkpoint_gives_way_to_the_one_before_it(tmp_path):
    unbroken = job(tmp_path / "unbroken", recipe(checkpoint_every=1))
    killed_in_step_five(tmp_path / "killed").unlink()
    assert_same_bits(job(tmp_path / "killed", recipe(checkpoint_every=1)).model, unbroken.model)


def test_a_checkpoint_without_an_identity_is_of_another_run(tmp_path):
    path = killed_in_step_five(tmp_path)
    changed(path, lambda state: state.update(identity=None))
    with pytest.raises(ValueError, match=r"checkpoint\.pt belongs to another run: .*seed was not set and is 0"):
        job(tmp_path, recipe(checkpoint_every=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(epoch=10**9),
        lambda state: state.update(step=10**9),
        lambda state: state.update(step=-1, epoch=-1),
        lambda state: state.update(step="five"),
        lambda state: state.update(rows=[]),
        lambda state: state.pop("rows"),
        lambda state: state.pop("model"),
        lambda state: state["model"].popitem(),
        lambda state: state.update(model={name: value[:1] for name, value in state["model"].items()}),
        lambda state: state.update(optimiser=[1, 2]),
        lambda state: state.update(loss_sum={}),
    ],
)
def test_a_checkpoint_of_another_content_is_one_line(tmp_path, change):
    path = killed_in_step_five(tmp_path)
    changed(path, change)
    with pytest.raises(ValueError, match=r"checkpoint\.pt does not hold this run's state .*delete it") as raised:
        job(tmp_path, recipe(checkpoint_every=1))
    assert "\n" not in str(raised.value)


def test_a_profile_of_a_few_steps(tmp_path, capsys):
    plain = job(tmp_path / "plain", recipe())
    assert_same_bits(job(tmp_path / "run", recipe(), profile=True).model, plain.model)
    trace = json.loads(gzip.decompress((tmp_path / "run/profile/trace.json.gz").read_bytes()))
    assert sum(str(event.get("name", "")).startswith("ProfilerStep#") for event in trace["traceEvents"]) >= 3
    assert "addmm" in (tmp_path / "run/profile/operations.txt").read_text()
    assert f"{tmp_path / 'run/profile/operations.txt'}, and" in capsys.readouterr().err
    job(tmp_path / "short", recipe(epochs=1), profile=True)
    assert "nothing was profiled" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(tmp_path, precision):
    kinds = set()

    def forward(network, images, step, micro):
        logits = network(images)
        kinds.add(logits.dtype)
        return logits

    settings = recipe(epochs=6, precision=precision)
    trained = job(tmp_path, settings, loss=loss_of(settings, forward))
    assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert {weight.dtype for weight in trained.model.parameters()} == {torch.float32}
    rows = table(tmp_path)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert bool(load_checkpoint(tmp_path / "checkpoint.pt")["scaler"]) == (precision == "fp16")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 3, 11])
def test_a_signal_saves_and_the_same_call_goes_on(tmp_path, number, at):
    settings = recipe(ema_decay=0.9)
    unbroken = job(tmp_path / "unbroken", settings)

    def send(step, micro):
        if step == at:
            os.kill(os.getpid(), number)

    folder = tmp_path / "stopped"
    # all processes hear of it one step later, or where an epoch ends
    after = at + 1 if at % STEPS_PER_EPOCH == STEPS_PER_EPOCH - 1 else at + 2
    with pytest.raises(Stopped, match=rf"stopped after step {after} of 12, saved in .*checkpoint\.pt") as raised:
        job(folder, settings, feed=Batches(settings, on_micro_batch=send))
    assert "\n" not in str(raised.value)
    assert load_checkpoint(folder / "checkpoint.pt")["step"] == after
    resumed = job(folder, settings)
    assert_same_bits(resumed.model, unbroken.model)
    assert_same_bits(resumed.ema, unbroken.ema)
    assert table(folder) == table(tmp_path / "unbroken")


def test_a_signal_in_validation_loses_nothing(tmp_path):
    settings = recipe()

    def validate(network, epoch):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"epoch_again": epoch}

    with pytest.raises(Stopped, match="after step 10"):
        job(tmp_path, settings, validate=validate)
    assert len(table(tmp_path)) == 2


def test_each_epoch_is_saved_before_its_validation(tmp_path):
    saved = []

    def validate(network, epoch):
        checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
        saved.append((checkpoint["step"], checkpoint["epoch"]))
        return {}

    job(tmp_path, recipe(), validate=validate)
    assert saved == [(4, 0), (8, 1), (12, 2)]


def test_lines_instead_of_a_bar_where_there_is_no_terminal(tmp_path, capsys):
    job(tmp_path / "main", recipe(epochs=30))
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 20
    assert lines[-1].startswith("epoch 30/30  step 120/120  loss ")
    assert "\r" not in "".join(lines)


def test_a_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    job(tmp_path, recipe())
    shown = capsys.readouterr().err
    assert "epoch 3/3" in shown
    assert "12/12" in shown
    assert "images/s" in shown


def one_of_several(folder):
    """What each of several processes runs: stopped by a signal to one of them, the same job goes on to its end."""
    processes = Processes.from_environment()
    settings = recipe(accumulate=2, clip_norm=0.5, ema_decay=0.9)
    report = {"drawn": []}
    try:
        with processes.group(CPU, {"recipe": {"lr": processes.rank}}):
            pass
    except ValueError as error:
        report["refused"] = str(error)
    with processes.group(CPU, {"recipe": {"lr": 1}}):
        cells = some_cells(processes)

        def forward(network, images, step, micro):
            report["drawn"].append(torch.rand(()).item())
            return cells(network, images, step, micro)

        def send(step, micro):
            if step == 5 and processes.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        how = {"dropout": 0.0, "processes": processes, "loss": loss_of(settings, forward), "partial": True}
        stream = Batches(settings, processes, on_micro_batch=send)
        try:
            job(folder / "run", settings, feed=stream, **how)
        except Stopped as stop:
            report["stopped"] = str(stop)
        if processes.main:
            shutil.copytree(folder / "run", folder / "half")
        trained = job(folder / "run", settings, feed=Batches(settings, processes), **how)
        model = Cells(0.0)
        before = copy.deepcopy(model)
        fault = loss_of(
            settings,
            lambda network, images, step, micro: (
                network(images) + (torch.inf if processes.rank == 1 and step == 0 else 0.0)
            ),
        )
        try:
            job(folder / "fault", settings, model=model, processes=processes, loss=fault)
        except ValueError as error:
            report["fault"] = str(error)
        report["changed"] = any(
            not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)
        )
        report["values"] = processes.sum(torch.tensor([1.0, processes.rank])).tolist()
    torch.save(trained.model.state_dict(), folder / f"model{processes.rank}.pt")
    torch.save(trained.ema.state_dict(), folder / f"ema{processes.rank}.pt")
    (folder / f"report{processes.rank}.json").write_text(json.dumps(report))


class Joined(Batches):
    """The micro-batches of two processes, for one: those of the first, then those of the second."""

    def __call__(self, first_step):
        halves = [Batches(replace(self.recipe, accumulate=2), Processes(rank, 2))(first_step) for rank in (0, 1)]
        for _ in range(first_step, self.recipe.epochs * self.steps_per_epoch):
            for half in halves:
                yield from islice(half, 2)


# cells that each (step, process, micro-batch) goes through; a cell no process uses, or one of them once, comes up
PATHS = [(0, 1, 2), (0,), (1, 2), (), (2,), (0, 2), (0,)]


def some_cells(processes):
    return lambda network, images, step, micro: network(
        images, PATHS[(step + step // 3 + 2 * processes.rank + micro) % 7]
    )


@pytest.mark.slow
def test_two_processes_equal_one_and_stop_together(tmp_path):
    root = str(Path(__file__).parents[3])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--redirects", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "--log-dir", str(tmp_path / "log"), __file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    (errors,) = (path.read_text() for path in tmp_path.glob("log/*/attempt_0/1/stderr.log"))
    assert "step" not in errors  # only the main process reports

    reports = [json.loads((tmp_path / f"report{rank}.json").read_text()) for rank in (0, 1)]
    assert reports[0]["stopped"] == reports[1]["stopped"]
    assert reports[0]["stopped"].startswith("stopped after step 7 of 12")
    assert reports[0]["refused"].startswith("process 1 was started with other settings than process 0; start all")
    assert "than process 0 (recipe.lr was 0 and is 1); start all" in reports[1]["refused"]
    for report in reports:
        assert report["fault"].startswith("the loss or its gradient is not finite at step 0")
        assert not report["changed"]
    assert reports[0]["values"] == reports[1]["values"] == [2.0, 1.0]
    assert len({drawn for report in reports for drawn in report["drawn"]}) == 2 * 12 * 2  # drop path differs by process

    # one process on the same global batches: each micro-batch stands for one of a process
    alone = recipe(accumulate=4, clip_norm=0.5, ema_decay=0.9)
    forward = {rank: some_cells(Processes(rank, 2, rank)) for rank in (0, 1)}
    joined = loss_of(alone, lambda network, images, step, micro: forward[micro // 2](network, images, step, micro % 2))
    expected = job(tmp_path / "alone", alone, dropout=0.0, feed=Joined(alone), loss=joined)
    for rank in (0, 1):
        for kind, network in (("model", expected.model), ("ema", expected.ema)):
            trained = Cells(0.0)
            trained.load_state_dict(torch.load(tmp_path / f"{kind}{rank}.pt", weights_only=True))
            assert_close(trained, network)
    # and one process that goes on where the two were stopped
    resumed = job(tmp_path / "half", alone, dropout=0.0, feed=Joined(alone), loss=joined)
    assert_close(resumed.model, expected.model)
    assert_close(resumed.ema, expected.ema)
    rows, expected_rows = table(tmp_path / "run"), table(tmp_path / "alone")
    assert [float(row["loss"]) for row in rows] == pytest.approx(
        [float(row["loss"]) for row in expected_rows], abs=1e-6
    )


class OnGpu(Batches):
    """Batches that lie on the GPU before the first step."""

    def __call__(self, first_step):
        yield from [(images.cuda(), targets.cuda()) for images, targets in super().__call__(first_step)]


@pytest.mark.gpu
def test_on_a_gpu_and_from_a_cpu_checkpoint(tmp_path):
    settings, device = (
        recipe(precision="fp32", compile="false", checkpoint_every=2, ema_decay=0.9),
        torch.device("cuda", 0),
    )
    expected = job(tmp_path / "cpu", settings, dropout=0.0).model

    def stop(step, micro):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        job(tmp_path / "half", settings, dropout=0.0, feed=Batches(settings, on_micro_batch=stop))
    for folder in ("half", "gpu"):
        trained = job(tmp_path / folder, settings, dropout=0.0, device=device, feed=OnGpu(settings)).model
        assert_close(trained.cpu(), expected, 1e-4)
    for precision in ("bf16", "fp16"):
        settings = recipe(precision=precision, compile="false")
        job(tmp_path / precision, settings, device=device, feed=OnGpu(settings), flops=1000.0, profile=True)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_does_not_wait_for_the_gpu(tmp_path, monkeypatch, precision):
    take = loop._Trainer.take_step

    def watched(self, micro_batches, *others):
        micro_batches = list(micro_batches)
        torch.cuda.set_sync_debug_mode("error")
        try:
            take(self, micro_batches, *others)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop._Trainer, "take_step", watched)
    settings = recipe(precision=precision, compile="false", accumulate=2, clip_norm=0.5, ema_decay=0.9)
    job(tmp_path, settings, device=torch.device("cuda", 0), feed=OnGpu(settings))


if __name__ == "__main__":
    sys.modules["torch.utils.tensorboard"] = None
    one_of_several(Path(sys.argv[1]))
