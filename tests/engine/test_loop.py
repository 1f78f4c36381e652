"""The loop on toy networks. Run as a program, this file is one process of a job that test_two_processes starts."""

import copy
import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from psvit.engine import loop
from psvit.engine.checkpoint import load_checkpoint
from psvit.engine.config import Recipe
from psvit.engine.distributed import Processes
from psvit.engine.loop import train
from psvit.engine.optim import learning_rate
from psvit.engine.random import seed_of
from psvit.engine.run_folder import RunFolder
from psvit.engine.signals import Stopped

CPU, ALONE = torch.device("cpu"), Processes()
FEATURES, CLASSES, BATCH, STEPS_PER_EPOCH = 8, 3, 8, 4


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


def batches(recipe, processes=ALONE, soft=False, on_micro_batch=lambda step, micro: None):
    def stream(first_step):
        for step in range(first_step, recipe.epochs * STEPS_PER_EPOCH):
            images, targets = batch(step, soft)
            shares = zip(
                images.chunk(processes.world)[processes.rank].chunk(recipe.accumulate),
                targets.chunk(processes.world)[processes.rank].chunk(recipe.accumulate),
                strict=True,
            )
            for micro, share in enumerate(shares):
                on_micro_batch(step, micro)
                yield share

    return stream


def job(folder, recipe, *, model=None, processes=ALONE, dropout=0.2, identity=None, **settings):
    """Run a job in ``folder``; the same call goes on with it."""
    model = model or Cells(dropout)
    settings = {
        "seed": 0,
        "device": CPU,
        "batches": batches(recipe, processes),
        "steps_per_epoch": STEPS_PER_EPOCH,
        "forward": lambda network, images, step, micro: network(images),
        "validate": lambda network, epoch: {"weight": network.head.weight.abs().sum().item()},
    } | settings
    with RunFolder(folder, {"seed": 0}, processes.main) as run:
        return train(
            model, recipe=recipe, processes=processes, run=run, identity=identity or {"space": "toy"}, **settings
        )


def assert_same_bits(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def assert_close(one, other, tolerance=1e-6):
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], atol=tolerance, rtol=0, msg=name)


def table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


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
            job(folder, settings, batches=batches(settings, on_micro_batch=kill))
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
    assert kill_at == 1 + 2 * (4 + 1 + 3)  # saves at steps 3, 6, 9 and 12, the last one, and three validations


def test_a_finished_run_does_nothing_and_returns_its_weights(tmp_path):
    settings = recipe(ema_decay=0.9)
    first = job(tmp_path, settings)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def never(step, micro):
        raise AssertionError

    again = job(tmp_path, settings, batches=batches(settings, on_micro_batch=never), validate=None)
    assert_same_bits(again.model, first.model)
    assert_same_bits(again.ema, first.ema)
    assert again.steps == 12
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_checkpoint_of_another_job_is_named_and_refused(tmp_path):
    job(tmp_path, recipe(epochs=1))
    with pytest.raises(ValueError, match=r"checkpoint\.pt is of another run: space was toy and is 2d_mini_4") as raised:
        job(tmp_path, recipe(epochs=1), identity={"space": "2d_mini_4"})
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="steps_per_epoch was 4 and is 5"):  # as when images were added
        job(tmp_path, recipe(epochs=1), steps_per_epoch=5)


@pytest.mark.parametrize("soft", [False, True])
def test_accumulation_equals_one_large_batch(tmp_path, soft):
    trained = []
    for accumulate in (1, 2, 4):
        settings = recipe(accumulate=accumulate, clip_norm=0.5)
        trained.append(
            job(tmp_path / str(accumulate), settings, dropout=0.0, batches=batches(settings, soft=soft)).model
        )
    assert_close(trained[1], trained[0])
    assert_close(trained[2], trained[0])
    rows = [table(tmp_path / name) for name in "14"]
    assert [float(row["loss"]) for row in rows[0]] == pytest.approx([float(row["loss"]) for row in rows[1]], abs=1e-6)


def test_each_micro_batch_drops_out_anew_and_by_seed(tmp_path):
    drawn = {}

    def forward(network, images, step, micro):
        drawn.setdefault(seed, []).append(torch.rand(4).tolist())
        return network(images)

    for seed in (0, 1):
        job(tmp_path / str(seed), recipe(epochs=1, accumulate=2), seed=seed, forward=forward)
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
    job(tmp_path, settings, model=model, steps_per_epoch=1)
    assert_close(model, expected)
    assert float(table(tmp_path)[0]["loss"]) == pytest.approx(loss.item(), abs=1e-6)


def test_clipping_bounds_the_gradient(tmp_path, monkeypatch):
    norms = []
    update = loop._Trainer.update

    def spy(self, loss):
        norms.append(torch.cat([weight.grad.flatten() for weight in self.model.parameters()]).norm().item())
        update(self, loss)

    monkeypatch.setattr(loop._Trainer, "update", spy)
    job(tmp_path, recipe(epochs=1, clip_norm=1e-3))
    assert norms == pytest.approx([1e-3] * STEPS_PER_EPOCH, rel=1e-2)


def test_moving_average_equals_one_by_hand(tmp_path):
    after_each_step = []
    trained = job(
        tmp_path,
        recipe(ema_decay=0.8),
        steps_per_epoch=1,
        validate=lambda network, epoch: after_each_step.append(copy.deepcopy(network.state_dict())) or {},
    )
    average = after_each_step[0]
    for weights in after_each_step[1:]:
        average = {name: 0.8 * average[name] + 0.2 * weights[name] for name in average}
    assert len(after_each_step) == 3
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

    job(tmp_path, recipe(), forward=forward)
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
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path, fault, clip_norm):
    model, before = Cells(0.2), {}

    def forward(network, images, step, micro):
        logits = network(images)
        if step < 5:
            return logits
        before.update(copy.deepcopy(network.state_dict()))
        return fault(network, logits)

    settings = recipe(checkpoint_every=2, clip_norm=clip_norm)
    with pytest.raises(ValueError, match=r"not finite at step 5, lr 0\.0\d+: try a lower recipe\.lr") as raised:
        job(tmp_path, settings, model=model, forward=forward)
    assert "\n" not in str(raised.value)
    assert before
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert saved["step"] == 4
    assert all(weight.isfinite().all() for weight in saved["model"].values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(tmp_path, precision):
    kinds = set()

    def forward(network, images, step, micro):
        logits = network(images)
        kinds.add(logits.dtype)
        return logits

    trained = job(tmp_path, recipe(epochs=6, precision=precision), forward=forward)
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
    with pytest.raises(Stopped, match=rf"stopped after step {at + 1} of 12, saved in .*checkpoint\.pt") as raised:
        job(folder, settings, batches=batches(settings, on_micro_batch=send))
    assert "\n" not in str(raised.value)
    assert load_checkpoint(folder / "checkpoint.pt")["step"] == at + 1
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

    with pytest.raises(Stopped, match="after step 9"):
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
    with processes.group(CPU):
        report = {"drawn": []}
        cells = some_cells(processes)

        def forward(network, images, step, micro):
            report["drawn"].append(torch.rand(()).item())
            return cells(network, images, step, micro)

        def send(step, micro):
            if step == 5 and processes.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        stream = batches(settings, processes, on_micro_batch=send)
        try:
            job(folder, settings, dropout=0.0, processes=processes, batches=stream, forward=forward)
        except Stopped as stop:
            report["stopped"] = str(stop)
        stream = batches(settings, processes)
        trained = job(folder, settings, dropout=0.0, processes=processes, batches=stream, forward=forward)
        report["values"] = processes.sum(torch.tensor([1.0, processes.rank])).tolist()
    torch.save(trained.model.state_dict(), folder / f"model{processes.rank}.pt")
    torch.save(trained.ema.state_dict(), folder / f"ema{processes.rank}.pt")
    (folder / f"report{processes.rank}.json").write_text(json.dumps(report))


# cells that each (step, process, micro-batch) goes through; a cell no process uses, or one of them once, comes up
PATHS = [(0, 1, 2), (0,), (1, 2), (), (2,), (0, 2), (0,)]


def some_cells(processes):
    return lambda network, images, step, micro: network(
        images, PATHS[(step + step // 3 + 2 * processes.rank + micro) % 7]
    )


def test_two_processes_equal_one_and_stop_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=100)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    assert "step" not in errors[1]  # only the main process reports

    reports = [json.loads((tmp_path / f"report{rank}.json").read_text()) for rank in (0, 1)]
    assert reports[0]["stopped"] == reports[1]["stopped"]
    assert reports[0]["stopped"].startswith("stopped after step 6 of 12")
    assert reports[0]["values"] == reports[1]["values"] == [2.0, 1.0]
    assert len({drawn for report in reports for drawn in report["drawn"]}) == 2 * 12 * 2  # drop path differs by process

    # one process on the same global batches: each micro-batch stands for one of a process
    alone = recipe(accumulate=4, clip_norm=0.5, ema_decay=0.9)
    forward = {rank: some_cells(Processes(rank, 2, rank)) for rank in (0, 1)}
    expected = job(
        tmp_path / "alone",
        alone,
        dropout=0.0,
        forward=lambda network, images, step, micro: forward[micro // 2](network, images, step, micro % 2),
    )
    for rank in (0, 1):
        for kind, network in (("model", expected.model), ("ema", expected.ema)):
            trained = Cells(0.0)
            trained.load_state_dict(torch.load(tmp_path / f"{kind}{rank}.pt", weights_only=True))
            assert_close(trained, network)
    rows, expected_rows = table(tmp_path), table(tmp_path / "alone")
    assert [float(row["loss"]) for row in rows] == pytest.approx(
        [float(row["loss"]) for row in expected_rows], abs=1e-6
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_and_from_a_cpu_checkpoint(tmp_path):
    settings, gpu = recipe(precision="fp32", checkpoint_every=2, ema_decay=0.9), torch.device("cuda", 0)

    def kill(step, micro):
        if step == 5:
            raise Killed

    expected = job(tmp_path / "cpu", settings, dropout=0.0).model
    for first in (CPU, gpu):
        folder = tmp_path / first.type
        with pytest.raises(Killed):
            job(folder / "run", settings, dropout=0.0, device=first, batches=batches(settings, on_micro_batch=kill))
        assert_close(job(folder / "run", settings, dropout=0.0, device=gpu).model.cpu(), expected, 1e-4)
    job(tmp_path / "bf16", recipe(), device=gpu)
    job(tmp_path / "fp16", recipe(precision="fp16"), device=gpu)


if __name__ == "__main__":
    sys.modules["torch.utils.tensorboard"] = None
    one_of_several(Path(sys.argv[1]))
