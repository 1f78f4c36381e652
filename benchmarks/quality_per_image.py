"""What a supernet has learned per image and per second, by how its paths are drawn and its weights are shared.

    python -m benchmarks.quality_per_image [--seeds 3] [--alone runs/default/rank/rank.csv] [--picture quality.png]

Trains a supernet for each choice and seed, as ``psvit-search train-supernet`` does with the recipe of the data, and
scores the same random architectures with inherited weights every few epochs, on the search split. Seconds are of the
training alone: of the processor on a CPU (all threads), of the clock on a GPU.

With --alone, a table that ``psvit-search rank`` has made (of the same space, data and split seed), its architectures
are scored as well, and Kendall's tau is given between their inherited losses and their losses when trained alone.

What is done is kept in --out and not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import kendalltau
from torch import nn

from psvit.arch import Architecture
from psvit.cli import compose
from psvit.cli.commands import COMMANDS
from psvit.data.data import open_data
from psvit.data.pixels import Pixels
from psvit.engine.device import pick_device
from psvit.run.random import numpy_rng
from psvit.search.evaluator import Evaluator
from psvit.supernet.config import TrainSupernetConfig
from psvit.supernet.space import SearchSpace
from psvit.supernet.train import train_supernet

CHOICES = [
    *(f"{sampling} image {weights}"
      for weights in ("separate", "entangled")
      for sampling in ("uniform", "fair", "canonical", "canonical-depth", "sandwich")),
    "uniform batch separate",
    "canonical-depth batch separate",
]  # fmt: skip


def settings(overrides: list[str]) -> TrainSupernetConfig:
    """The settings that ``psvit-search train-supernet`` has with these overrides."""
    config = compose.settings(COMMANDS["train-supernet"], overrides)
    assert isinstance(config, TrainSupernetConfig)
    return config


class Measure:
    """The scores of random architectures after every few epochs, and the time of training up to there."""

    def __init__(self, config: TrainSupernetConfig, every: int, number: int, standalone: pd.DataFrame | None) -> None:
        self.data = open_data(config.data)
        spec = config.space.spec(self.data.classes, self.data.image_size)
        self.space = SearchSpace(spec, config.space.cells)
        self.device = pick_device(config.device)
        self.num_images = self.data.size("train")
        self.pixels = Pixels(self.data, "search", spec.image_size, None, config.data.split_seed)
        self.epochs, self.every, self.standalone = config.recipe.epochs, every, standalone
        everything = self.space.within()
        self.architectures = [everything.draw(numpy_rng(0, "quality", number)) for number in range(number)]
        self.rows: list[dict[str, float]] = []
        self.clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        self.spent, self.since = 0.0, self.clock()

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float]:
        if epoch % self.every and epoch != self.epochs:
            return {"top1": math.nan, "loss": math.nan}
        with self._pause():
            model.eval()
            top1, loss = self._score(model, self.architectures)
            row = {
                "epoch": epoch,
                "images_seen": epoch * self.num_images,
                "seconds": self.spent,
                "top1": top1,
                "loss": loss,
            }
            if epoch == self.epochs:
                row |= self._at_the_end(model)
            self.rows.append(row)
            return {"top1": top1, "loss": loss}

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """What is measured takes none of the training's time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.spent += self.clock() - self.since
        yield
        self.since = self.clock()

    def _losses(self, model: Any, architectures: list[Architecture], placements: int = 0) -> pd.DataFrame:
        evaluator = Evaluator(model, self.space, self.pixels, self.device, placements=placements)
        return pd.DataFrame(evaluator(architectures), columns=["top1", "loss"])

    def _score(self, model: Any, architectures: list[Architecture], placements: int = 0) -> tuple[float, float]:
        scores = self._losses(model, architectures, placements)
        return float(scores["top1"].mean()), float(scores["loss"].mean())

    def _at_the_end(self, model: Any) -> dict[str, float]:
        placed = self._score(model, self.architectures, placements=4)
        row = {"placed_top1": placed[0], "placed_loss": placed[1]}
        if self.standalone is not None:
            architectures = [Architecture.parse(layers) for layers in self.standalone["layers"]]
            for name, placements in (("tau", 0), ("placed_tau", 4)):
                losses = self._losses(model, architectures, placements)["loss"]
                row[name] = float(kendalltau(losses, self.standalone["standalone_loss"]).statistic)
        return row


def train_all(options: argparse.Namespace) -> pd.DataFrame:
    """A row for each choice, seed and measured epoch; kept in ``quality.csv``."""
    table = Path(options.out) / "quality.csv"
    frame = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=["choice", "seed"])
    standalone = None if options.standalone is None else pd.read_csv(options.standalone)
    for seed in range(options.seeds):
        for choice in options.choices:
            if ((frame["choice"] == choice) & (frame["seed"] == seed)).any():
                continue
            sampling, paths, weights = choice.split()
            named = [f"sampling={sampling}", f"paths={paths}", f"weights={weights}", f"seed={seed}"]
            config = settings([*named, *options.settings, f"out={options.out}/{choice.replace(' ', '-')}-{seed}"])
            measure = Measure(config, options.every, options.architectures, standalone)
            train_supernet(dataclasses.replace(config, watch=0), measure)
            rows = pd.DataFrame(measure.rows)
            if not len(rows) or rows["epoch"].iloc[0] > options.every:
                raise SystemExit(f"{config.out} was begun before, and its first epochs were not measured; remove it")
            rows.insert(0, "seed", seed)
            rows.insert(0, "choice", choice)
            frame = pd.concat([frame, rows], ignore_index=True)
            table.parent.mkdir(parents=True, exist_ok=True)
            frame.to_csv(table, index=False)
            print(
                f"{choice}, seed {seed}: top-1 {rows['top1'].iloc[-1]:.4f}, loss {rows['loss'].iloc[-1]:.4f}",
                flush=True,
            )
    return frame[frame["choice"].isin(options.choices) & (frame["seed"] < options.seeds)]


def report(frame: pd.DataFrame) -> None:
    """A Markdown table: means over the seeds, with standard deviations where they matter, at the last epoch."""
    names = ["top1", "loss", "placed_top1", "placed_loss", "tau", "placed_tau"]
    names = [name for name in names if name in frame]
    titles = {"top1": "top-1", "placed_top1": "top-1, 4 placements", "placed_loss": "loss, 4 placements",
              "tau": "tau of losses", "placed_tau": "tau, 4 placements"}  # fmt: skip
    print("| sampling | paths one | weights | " + " | ".join(titles.get(n, n) for n in names) + " | seconds |")
    print("|---" * (len(names) + 4) + "|")
    last = frame[frame["epoch"] == frame["epoch"].max()]
    for choice, rows in last.groupby("choice", sort=False):
        cells = [f"{rows[name].mean():.4f} ± {rows[name].std():.4f}" for name in names]
        sampling, paths, weights = str(choice).split()
        print(f"| {sampling} | {paths} | {weights} | " + " | ".join(cells) + f" | {rows['seconds'].mean():.0f} |")


def draw(frame: pd.DataFrame, path: str) -> None:
    """Loss of inherited weights against images seen and against time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    colours = dict(
        zip(dict.fromkeys(choice.split()[0] for choice in frame["choice"]), plt.cm.tab10.colors, strict=False)
    )
    for choice, rows in frame.groupby("choice", sort=False):
        sampling, paths, weights = str(choice).split()
        style = ":" if paths == "batch" else "--" if weights == "entangled" else "-"
        mean = rows.groupby("epoch")[["images_seen", "seconds", "loss"]].mean()
        label = f"{sampling}, {weights}" + (", one path a batch" if paths == "batch" else "")
        for axis, column in zip(axes, ("images_seen", "seconds"), strict=True):
            axis.plot(mean[column], mean["loss"], style, color=colours[sampling], label=label, marker=".")
    axes[0].set(xlabel="images seen", ylabel="mean inherited loss of random architectures", yscale="log")
    axes[1].set(xlabel="seconds of training")
    axes[1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
        axis.set_yticks([0.2, 0.3, 0.4, 0.6, 0.8], ["0.2", "0.3", "0.4", "0.6", "0.8"])
        axis.yaxis.set_minor_locator(plt.NullLocator())
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/quality")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=int, default=5, help="epochs between two measurements")
    parser.add_argument("--architectures", type=int, default=200)
    parser.add_argument("--alone", dest="standalone", help="rank.csv of psvit-search rank")
    parser.add_argument("--choices", nargs="+", default=CHOICES, help="each 'SAMPLING PATHS WEIGHTS'")
    parser.add_argument("--picture")
    parser.add_argument("settings", nargs="*", help="settings of train-supernet, such as data=cifar10")
    options = parser.parse_args()
    frame = train_all(options)
    report(frame)
    if options.picture:
        draw(frame, options.picture)


if __name__ == "__main__":
    main()
