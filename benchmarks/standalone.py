"""Networks of a space trained alone, and supernets scored against them: is there anything to find, and is it found?

    python -m benchmarks.standalone headroom [--tasks ...]   extremes of the space, several seeds: quality against noise
    python -m benchmarks.standalone table --task TASK        the table docs/tables/TASK.csv, resumed where it stands
    python -m benchmarks.standalone supernet --task TASK --sampling NAME --seed N   scores by inherited weights
    python -m benchmarks.standalone report --task TASK       tau of each supernet with the table, and its bias by depth

Every training sees the same pictures in an order of its seed, mirrored and shifted by up to two pixels where that is
allowed; AdamW with the engine's groups and schedule. Networks learn from ``train``; ``search`` scores the inherited
weights, and ``test`` the networks. On a GPU a step is a CUDA graph, since networks this small are bound by the starts
of kernels, and some networks train beside each other; on a CPU the same step runs as it is.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau
from torch import Tensor

from benchmarks.arrows import draw_arrows
from psvit.arch import Architecture, NetworkSpec
from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.data import open_data
from psvit.data.plan import Share
from psvit.engine.config import Recipe
from psvit.engine.device import autocast, pick_device
from psvit.engine.loop import Task as LoopTask
from psvit.engine.loop import classification_loss, train
from psvit.engine.optim import adamw, learning_rate
from psvit.engine.runtime import Runtime
from psvit.engine.scoring import Score, score_all
from psvit.model import PSViT
from psvit.run.folder import RunFolder
from psvit.run.random import numpy_rng, seed_of
from psvit.search.correlation import network_means, noise
from psvit.search.evaluator import Evaluator
from psvit.supernet.sampling import make_sampler
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.supernet.train import DrawnPaths, path_loss
from psvit.units import Band

TABLES = Path("docs/tables")
COLUMNS = ("layers", "flops", "params", "seed", "epochs", "search_top1", "search_loss", "test_top1", "test_loss")
SHIFT = 2  # pixels, at most
PRECISION = "fp32"  # the networks are bound by the starts of kernels, and autocast adds some for each weight
EVAL_BATCH = 2000


@dataclass(frozen=True)
class Pictures:
    """A split in memory: uint8 (n, 3, height, width) and int64 (n,)."""

    pixels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Pictures:
        return Pictures(self.pixels.to(device), self.labels.to(device))

    def batches(self, spans: Sequence[range], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches, as an evaluator asks for them."""
        for span in spans:
            part = slice(span.start, span.stop)
            yield normalize(self.pixels[part].to(device)), self.labels[part].to(device)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """A space, pictures, and how long networks learn.

    Attributes:
        spec: the dimensions of the space.
        epochs: of a network alone, and of a supernet.
        num_images: how many of the training pictures are learned from.
        varied: whether pictures may be mirrored and shifted.
    """

    name: str
    spec: NetworkSpec
    epochs: int
    num_images: int
    varied: bool = True
    batch_size: int = 512
    lr: float = 2e-3

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, warmup_epochs=self.epochs / 20, drop_path=0.0,
            label_smoothing=0.0, clip_norm=1.0, compile="false", augment=AugmentConfig(),
        )  # fmt: skip


def _clothes(name: str, patch: int, widths: tuple[int, ...], epochs: int, num_images: int = 54_000) -> Task:
    heads = tuple(max(1, width // 16) for width in widths)
    return Task(name, NetworkSpec("2d", (28, 28), patch, widths, heads, 10, name=name), epochs, num_images)


def _arrows(name: str, grid: int, widths: tuple[int, ...], epochs: int, num_images: int) -> Task:
    heads = tuple(max(1, width // 16) for width in widths)
    spec = NetworkSpec("2d", (4 * grid, 4 * grid), 4, widths, heads, 4, name=name)
    return Task(name, spec, epochs, num_images, varied=False)


TASKS = {
    task.name: task
    for task in (
        _clothes("fashion-mnist", 4, (16, 24, 32), 15),
        _clothes("fashion-mnist-wide", 4, (32, 48, 64), 15),
        _clothes("fashion-mnist-patch-2", 2, (16, 24, 32), 15),
        _clothes("fashion-mnist-few", 4, (16, 24, 32), 300, 2_700),
        _arrows("arrows", 5, (32, 48, 64), 8, 160_000),
        _arrows("arrows-6", 6, (32, 48, 64), 8, 160_000),
        _arrows("arrows-4", 4, (16, 24, 32), 8, 80_000),
        _arrows("arrows-4-once", 4, (16, 24, 32), 1, 2_000_000),
    )
}
EXTREMES = ("B-B-B", "BB-BB-BB", "BBBBBB-B-B", "B-B-BBBBBB", "BSSSSS-BSSSSS-BSSSSS", "BBBBBB-BBBBBB-BBBBBB")


# ---------------------------------------------------------------------------------------------------- pictures


@cache
def pictures(task: Task) -> dict[str, Pictures]:
    """The splits of a task: train, search and test."""
    if task.name.startswith("arrows"):
        grid = task.spec.image_size[0] // 4
        drawn = draw_arrows(task.num_images + 16_000, 0, grid, longest=grid - 1)
        pixels, labels = (each.split([task.num_images, 6_000, 10_000]) for each in drawn[:2])
        splits = ("train", "search", "test")
        return {split: Pictures(*part) for split, *part in zip(splits, pixels, labels, strict=True)}
    data = open_data(DataConfig("fashion-mnist"))
    found = {}
    for split in ("train", "search", "test"):
        batches = list(data.pixel_batches(split, task.spec.image_size, [range(data.size(split))]))
        found[split] = Pictures(*batches[0])
    chosen = torch.from_numpy(numpy_rng(0, "few").permutation(len(found["train"])))[: task.num_images]
    found["train"] = Pictures(found["train"].pixels[chosen], found["train"].labels[chosen])
    return found


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (b, 3, h, w) -> float32 of about zero mean."""
    return (pixels.float() - 80) / 90


class Order:
    """Which pictures each step takes and how it varies them, drawn ahead for all steps, on a device."""

    def __init__(self, task: Task, seed: int, epochs: int, device: torch.device) -> None:
        rng = numpy_rng(seed, "order", epochs)
        self.steps_per_epoch = max(1, task.num_images // task.batch_size)
        self.batch_size = min(task.batch_size, task.num_images)
        self.steps = epochs * self.steps_per_epoch
        kept = self.steps_per_epoch * self.batch_size
        chosen = np.concatenate([rng.permutation(task.num_images)[:kept] for _ in range(epochs)])
        self._chosen = torch.from_numpy(chosen.reshape(self.steps, -1)).to(device)
        shifts = rng.integers(-SHIFT, SHIFT + 1, (self.steps, 2, self.batch_size), dtype=np.int8)
        self._shifts = torch.from_numpy(shifts).to(device)
        self._mirrored = torch.from_numpy(rng.random((self.steps, self.batch_size)) < 0.5).to(device)
        self._varied = task.varied
        height, width = task.spec.image_size
        self._rows, self._columns = torch.arange(height, device=device), torch.arange(width, device=device)

    def batch(self, source: Pictures, step: Tensor) -> tuple[Tensor, Tensor]:
        """The batch of a step, which is an int64 (1,) on the device, so that the host need not know it."""
        chosen = self._chosen.index_select(0, step)[0]
        pixels, labels = source.pixels.index_select(0, chosen), source.labels.index_select(0, chosen)
        if self._varied:
            dy, dx = self._shifts.index_select(0, step)[0].long()
            mirrored = self._mirrored.index_select(0, step)[0]
            rows = (self._rows + dy[:, None]).clamp(0, len(self._rows) - 1)
            columns = torch.where(mirrored[:, None], self._columns.flip(0), self._columns) + dx[:, None]
            columns = columns.clamp(0, len(self._columns) - 1)
            pixels = pixels.gather(2, rows[:, None, :, None].expand(pixels.shape))
            pixels = pixels.gather(3, columns[:, None, None, :].expand(pixels.shape))
        return normalize(pixels), labels


# ---------------------------------------------------------------------------------------------------- networks


class Training:
    """A network in training: ``step`` does the next update, on a GPU by replaying a graph on a stream of its own."""

    def __init__(self, task: Task, architecture: Architecture, seed: int, device: torch.device) -> None:
        self.architecture, self.seed = architecture, seed
        self._task, self._device = task, device
        self._source = pictures_on(task, device)["train"]
        self._order = Order(task, seed, task.epochs, device)
        self.steps = self._order.steps
        torch.manual_seed(seed_of(seed, "weights"))
        self.model = PSViT(task.spec, architecture).to(device).train()
        self._optimiser = adamw(self.model, task.recipe.weight_decay)
        warmup = round(task.recipe.warmup_epochs * self._order.steps_per_epoch)
        rates = [learning_rate(i, self.steps, warmup, task.lr, task.recipe.min_lr) for i in range(self.steps)]
        self._rates = torch.tensor(rates, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._capture()

    def step(self) -> None:
        if self._graph is None:
            self._update()
        else:
            with torch.cuda.stream(self._stream):
                self._graph.replay()

    def _update(self) -> None:
        images, labels = self._order.batch(self._source, self._at)
        with autocast(self._device, PRECISION):
            loss = classification_loss(self.model(images), labels, self._task.recipe)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = self._rates.index_select(0, self._at)[0]
        for group in self._optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate.item()
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._at += 1

    def _capture(self) -> None:
        """Record a step; the updates that warm it up are undone."""
        for group in self._optimiser.param_groups:
            group["capturable"], group["lr"] = True, torch.zeros((), device=self._device)
        weights = [weight.detach().clone() for weight in self.model.parameters()]
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                self._update()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._update()
        with torch.no_grad():
            for weight, start in zip(self.model.parameters(), weights, strict=True):
                weight.copy_(start)
            for state in self._optimiser.state.values():
                for value in state.values():
                    value.zero_()
            self._at.zero_()
        torch.cuda.synchronize()

    def scores(self) -> dict[str, Score]:
        """On the search and the test split."""
        self.model.eval()
        found = {}
        for split in ("search", "test"):
            part = pictures_on(self._task, self._device)[split]
            spans = [range(at, min(at + EVAL_BATCH, len(part))) for at in range(0, len(part), EVAL_BATCH)]
            (found[split],) = score_all([self.model], part.batches(spans, self._device), self._device)
        return found


@cache
def pictures_on(task: Task, device: torch.device) -> dict[str, Pictures]:
    return {split: part.to(device) for split, part in pictures(task).items()}


Row = tuple[str, int, int, int, int, float, float, float, float]


def _finish(trainings: Sequence[Training]) -> None:
    """All steps of some networks, in turns."""
    for number in range(max((training.steps for training in trainings), default=0)):
        for training in trainings:
            if number < training.steps:
                training.step()


def train_alone(
    task: Task, wanted: Sequence[tuple[Architecture, int]], device: torch.device, beside: int, threads: int
) -> Iterator[Row]:
    """Train networks, ``beside`` at a time, and score each."""
    space = SearchSpace(task.spec)
    for first in range(0, len(wanted), beside):
        trainings = [Training(task, *each, device) for each in wanted[first : first + beside]]
        with ThreadPoolExecutor(threads) as pool:  # a thread starts a graph in about a millisecond
            list(pool.map(_finish, [trainings[number::threads] for number in range(threads)]))
        if device.type == "cuda":
            torch.cuda.synchronize()
        for training in trainings:
            scores, cost = training.scores(), space.cost(training.architecture)
            numbers = (*scores["search"], *scores["test"])
            yield (str(training.architecture), cost.flops, cost.params, training.seed, task.epochs, *numbers)


# ---------------------------------------------------------------------------------------------------- commands


def headroom(tasks: Sequence[Task], seeds: int, device: torch.device, beside: int, threads: int) -> None:
    """Extremes of the space: spread of their means against the deviation of seeds."""
    for task in tasks:
        began = time.perf_counter()
        wanted = [(Architecture.parse(layers), seed) for layers in EXTREMES for seed in range(seeds)]
        rows = list(train_alone(task, wanted, device, beside, threads))
        seconds = time.perf_counter() - began
        print(
            f"\n{task.name}: {len(rows)} trainings of {task.epochs} epochs in {seconds:.1f} s, "
            f"{seconds / len(rows):.2f} s each"
        )
        means, within = {}, []
        for layers in EXTREMES:
            top1, loss = (np.array([row[at] for row in rows if row[0] == layers]) for at in (7, 8))
            means[layers] = loss.mean()
            within.append(loss.var(ddof=1))
            flops = next(row[1] for row in rows if row[0] == layers)
            print(
                f"  {layers:<22}{flops / 1e6:7.2f} M   test top-1 {top1.mean():.4f} +- {top1.std(ddof=1):.4f}"
                f"   loss {loss.mean():.4f} +- {loss.std(ddof=1):.4f}"
            )
        noise = float(np.sqrt(np.mean(within)))
        spread = max(means.values()) - min(means.values())
        print(
            f"  extremes apart by {spread:.4f} in loss: {spread / noise:.1f} SD of seeds ({noise:.4f})",
            flush=True,
        )


def draw(task: Task, even: int, equal: int) -> list[Architecture]:
    """Networks of the table: spread evenly over the FLOPs, then all of one cost; none twice."""
    space, rng = SearchSpace(task.spec), numpy_rng(0, "table", even, equal)
    cost = space.cost
    low, high = cost(Architecture.parse("B-B-B")).flops, cost(Architecture.parse(EXTREMES[-1])).flops
    drawn: dict[Architecture, None] = {}
    for number in range(even):
        least, most = (round(low + (high - low) * (number + end) / even) for end in (0, 1))
        allowed = space.feasible(Band(least, most))
        while len(drawn) <= number:
            drawn.setdefault(allowed.draw(rng))
    middle = (low + high) // 2
    allowed = space.feasible(Band(round(0.99 * middle), round(1.01 * middle)))
    while len(drawn) < even + equal:
        drawn.setdefault(allowed.draw(rng))
    return list(drawn)


def table(
    task: Task,
    even: int,
    equal: int,
    seeds: int,
    part: Share,
    device: torch.device,
    beside: int,
    threads: int,
    path: Path,
) -> None:
    """Train what the table lacks: every network once, then every third with further seeds; of these a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    with path.open(newline="") as file:
        done = {(row["layers"], int(row["seed"])) for row in csv.DictReader(file)}
    networks = draw(task, even, equal)
    wanted = [(each, 0) for each in networks] + [(each, seed) for seed in range(1, seeds) for each in networks[::3]]
    missing = [(each, seed) for each, seed in wanted[part.rank :: part.world] if (str(each), seed) not in done]
    began = time.perf_counter()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, row in enumerate(train_alone(task, missing, device, beside, threads), 1):
            writer.writerow([*row[:5], *(f"{value:.5f}" for value in row[5:])])
            file.flush()
            if number % 16 == 0:
                print(f"{number} of {len(missing)} after {time.perf_counter() - began:.0f} s", flush=True)


@dataclass
class DeviceFeed:
    """Feeds the engine's loop from pictures that are on the device."""

    task: Task
    order: Order
    device: torch.device

    def __post_init__(self) -> None:
        self.steps_per_epoch, self.batch_size = self.order.steps_per_epoch, self.order.batch_size

    def __call__(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        source = pictures_on(self.task, self.device)["train"]
        for step in range(first_step, self.order.steps):
            yield self.order.batch(source, torch.tensor([step], device=self.device))


def supernet(
    task: Task,
    sampling: str,
    weights: str,
    seed: int,
    networks: Sequence[Architecture],
    device: torch.device,
    path: Path,
    folder: Path,
) -> None:
    """Train a supernet for the task's epochs, and add its scores of the table's networks to ``path``."""
    space, recipe = SearchSpace(task.spec), task.recipe
    torch.manual_seed(seed_of(seed, "weights"))
    net = Supernet(task.spec, space.cells, weights=weights)
    feed = DeviceFeed(task, Order(task, seed, recipe.epochs, device), device)
    sampler = make_sampler(sampling, "image", task.spec.stages, space.cells)
    paths = DrawnPaths(sampler, feed.batch_size, Share(0, 1, 1), seed, device)

    def loss(model: torch.nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        return path_loss(model(images, paths(step, micro)), targets, recipe, sampler.copies)

    about = {"task": task.name, "sampling": sampling, "weights": weights, "seed": seed, "epochs": task.epochs}
    with RunFolder(folder, about) as run:
        train(net, recipe, LoopTask(feed, loss, {}, partial=True), Runtime(seed, device), run)
    split = pictures_on(task, device)["search"]
    evaluator = Evaluator(net.eval(), space, split, device)  # type: ignore[arg-type]
    scores = evaluator(networks)
    rows = [
        f"{layers},{sampling},{weights},{seed},{task.epochs},{score.top1:.5f},{score.loss:.5f}\n"
        for layers, score in zip(networks, scores, strict=True)
    ]
    with path.open("a") as file:  # in one piece, since others may be writing too
        if not file.tell():
            file.write("layers,sampling,weights,seed,epochs,inherited_top1,inherited_loss\n")
        file.write("".join(rows))


def report(path: Path) -> None:
    """Kendall's tau with test losses alone: of costs, of each supernet's inherited losses, and of predictors.

    The tau is over all networks of the table, and over those of equal FLOPs (within 1 % of the middle of the space).
    Beside it stands how much worse inherited losses are than those alone, by layers.
    """
    trainings = pd.read_csv(path)
    alone = trainings.groupby("layers", as_index=False)[["flops", "params"]].first()
    alone["test_loss"] = network_means(trainings, "test_loss").loc[alone["layers"]].to_numpy()
    inherited = pd.read_csv(path.with_name(f"{path.stem}-supernets.csv"))
    middle = (alone["flops"].min() + alone["flops"].max()) / 2
    alone["equal"] = (alone["flops"] - middle).abs() <= 0.011 * middle
    alone["depth"] = pd.cut(alone["layers"].str.count("[BS]"), [2, 6, 9, 13, 18])
    print(f"{len(alone)} networks alone, {alone['equal'].sum()} of them of equal FLOPs; test losses alone by layers:")
    print(alone.groupby("depth", observed=True)["test_loss"].agg(["count", "mean"]).round(3).to_string())
    if chance := noise(trainings, "test_loss"):
        print(
            f"{chance.repeated} with several seeds: networks vary by {chance.spread:.3f}, seeds by {chance.seeds:.3f}, "
            f"so a perfect supernet would reach a tau of {chance.ceiling:.2f}"
        )
    print(f"FLOPs alone, the more the better: {_taus(-alone['flops'].to_numpy(float), alone)}")
    print(f"ridge on layers and cost, fitted to the others: {_taus(_predicted(alone, []), alone)}")
    for (sampling, weights, epochs), rows in inherited.groupby(["sampling", "weights", "epochs"]):
        trained = f"{sampling}, {weights}, {epochs} epochs"
        seeds = [alone.merge(part, on="layers") for _, part in rows.groupby("seed")]
        losses = [part["inherited_loss"].to_numpy(float) for part in seeds]
        for part, loss in zip(seeds, losses, strict=True):
            worse = (part["inherited_loss"] - part["test_loss"]).groupby(part["depth"], observed=True).mean()
            print(
                f"{trained}, seed {part['seed'].iloc[0]}: {_taus(loss, alone)}; mean loss "
                f"{loss.mean():.3f}; worse than alone by {', '.join(f'{each:.3f}' for each in worse)}"
            )
        if len(losses) > 1:
            print(f"{trained}, mean of {len(losses)} seeds: {_taus(np.mean(losses, axis=0), alone)}")
        print(f"{trained}, ridge with these, too: {_taus(_predicted(alone, losses), alone)}")


def _taus(predicted: np.ndarray, alone: pd.DataFrame) -> str:
    """Kendall's tau of predicted losses with those alone, of all networks and of those of equal FLOPs."""
    equal, true = alone["equal"].to_numpy(bool), alone["test_loss"].to_numpy(float)
    taus = [kendalltau(predicted[which], true[which]).statistic for which in (equal | ~equal, equal)]
    return f"tau {taus[0]:.3f}, at equal FLOPs {taus[1]:+.3f}"


def _predicted(alone: pd.DataFrame, inherited: Sequence[np.ndarray]) -> np.ndarray:
    """Each network's loss by a ridge regression fitted to all others.

    Features: log FLOPs and log parameters, of each stage how many basic and how many sharing layers it has, and
    inherited losses.
    """
    stages = alone["layers"].str.split("-", expand=True)
    counts = [stages[stage].str.count(kind).to_numpy(float) for stage in stages for kind in "BS"]
    costs = [np.log(alone[cost].to_numpy(float)) for cost in ("flops", "params")]
    features, losses = np.stack([*counts, *costs, *inherited], axis=1), alone["test_loss"].to_numpy(float)
    predicted = np.empty_like(losses)
    for place in range(len(losses)):
        others = np.arange(len(losses)) != place
        predicted[place] = _ridge(features[others], losses[others], features[place])
    return predicted


def _ridge(features: np.ndarray, losses: np.ndarray, wanted: np.ndarray) -> float:
    """The prediction for ``wanted`` (d,) from (n, d) and (n,); the penalty is that of least leave-one-out error."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    left, values, right = np.linalg.svd((features - mean) / spread, full_matrices=False)
    centred, least, best = losses - losses.mean(), np.inf, np.zeros(len(wanted))
    for penalty in np.logspace(-2, 3, 11):
        shrunk = left * (values**2 / (values**2 + penalty))
        leverage = (shrunk * left).sum(axis=1) + 1 / len(losses)
        error = float((((centred - shrunk @ (left.T @ centred)) / (1 - leverage)) ** 2).mean())
        if error < least:
            least, best = error, right.T @ (values / (values**2 + penalty) * (left.T @ centred))
    return float(losses.mean() + (wanted - mean) / spread @ best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("headroom", "table", "supernet", "report"))
    parser.add_argument("--task", "--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--even", type=int, default=40, help="networks spread evenly over the FLOPs")
    parser.add_argument("--equal", type=int, default=24, help="networks of equal FLOPs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampling", default="uniform")
    parser.add_argument("--weights", default="separate")
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2 share the table between two processes")
    parser.add_argument("--beside", type=int, default=8, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="that start their steps")
    parser.add_argument("--epochs", type=float, default=1.0, help="times the task's epochs, for a trial")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/standalone"))
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.set_float32_matmul_precision("high")
    if device.type == "cpu":
        torch.set_num_threads(1)  # the number changes how sums are rounded
    number, parts = map(int, options.part.split("/"))
    tasks = [replace(TASKS[name], epochs=max(1, round(TASKS[name].epochs * options.epochs))) for name in options.task]
    if options.command == "headroom":
        headroom(tasks, options.seeds, device, options.beside, options.threads)
    for task in tasks:
        path = TABLES / f"{task.name}.csv"
        if options.command == "table":
            part = Share(number, parts, 1)
            table(task, options.even, options.equal, options.seeds, part, device, options.beside, options.threads, path)
        if options.command == "report":
            report(path)
        if options.command == "supernet":
            folder = (
                options.out / f"{task.name}-{options.sampling}-{options.weights}-{options.seed}-{task.epochs}-epochs"
            )
            scores = path.with_name(f"{task.name}-supernets.csv")
            supernet(
                task,
                options.sampling,
                options.weights,
                options.seed,
                draw(task, options.even, options.equal),
                device,
                scores,
                folder,
            )


if __name__ == "__main__":
    main()
