"""Does loading keep training busy? JPEG folders, the packed cache and WebDataset shards against images that are there.

    python -m benchmarks.data_pipeline [--images N] [--workers W] [--model 1d_tiny_16] [--batch-size B] [--steps S]

Draws its own JPEGs (500 x 375, quality 90, some 95 kB each, half of them grain, as in photographs) into a temporary
folder, packs them as JPEGs and as raw pixels with ``prepare-data``, and writes them into tar shards. Then, in one run,
trains one network of the space with the engine's step on each source, by the DeiT recipe, and right before on one batch
that lies on the device already ("synthetic"). A CPU trains far slower than it loads; so each source is also loaded
without training. Files were written just before, so they are read from the memory of the operating system: the disk is
not measured.

A step is timed from asking for its batch to asking for the next one; the first steps, in which workers start and layers
are compiled, do not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from psvit.data.config import DataConfig, PrepareConfig
from psvit.data.data import open_data
from psvit.data.loading import jpeg_decoder
from psvit.data.prepare import prepare_data
from psvit.engine.config import Recipe
from psvit.engine.device import pick_device
from psvit.engine.feed import Feed
from psvit.engine.loop import Task, classification_loss, train
from psvit.engine.runtime import Runtime
from psvit.model import PSViT
from psvit.run.folder import RunFolder
from psvit.supernet.space import SearchSpace
from psvit.zoo import SPACES

CLASSES = 10
DRAWN = 256  # different pictures; more images than that are copies of them, in files of their own
SHARD = 1000  # images a tar
HEIGHT, WIDTH, QUALITY = 375, 500, 90


def draw_jpeg(number: int) -> bytes:
    """A JPEG that is as hard to decode as a photograph: soft shapes, and grain."""
    rng = np.random.default_rng(number)
    shapes = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    grainy = np.asarray(shapes) + rng.normal(0, 12, (HEIGHT, WIDTH, 1))
    file = BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def write_folder(root: Path, images: int) -> None:
    """Class folders of JPEGs."""
    with ProcessPoolExecutor() as pool:
        drawn = list(pool.map(draw_jpeg, range(min(images, DRAWN)), chunksize=8))
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True)
    for number in range(images):
        (root / f"class{number % CLASSES}" / f"{number:07}.jpg").write_bytes(drawn[number % len(drawn)])


def write_tars(folder: Path, root: Path) -> None:
    """The same images as WebDataset writes them, in an order of chance."""
    root.mkdir()
    paths = sorted(folder.glob("*/*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    for shard, start in enumerate(range(0, len(paths), SHARD)):
        with tarfile.open(root / f"train-{shard:06}.tar", "w") as tar:
            for path in (paths[place] for place in order[start : start + SHARD]):
                tar.add(path, f"{path.stem}.jpg")
                label = path.parent.name.removeprefix("class").encode()
                about = tarfile.TarInfo(f"{path.stem}.cls")
                about.size = len(label)
                tar.addfile(about, BytesIO(label))


@dataclass
class Clocked:
    """Batches for so many steps, and when each step asked for its own."""

    start: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    batch_size: int
    steps_per_epoch: int
    device: torch.device

    def __call__(self, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self.start()
        self.times: list[float] = []
        for _ in range(self.steps_per_epoch):
            self.times.append(time.perf_counter())
            yield next(batches)

    def end(self) -> None:
        """The last step is done; the loop does not ask for another."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter())

    def images_per_second(self, warm_up: int) -> float:
        """Of the steps after the first ``warm_up``."""
        return (self.steps_per_epoch - warm_up) * self.batch_size / (self.times[-1] - self.times[warm_up])


@dataclass
class Bench:
    """One network, trained anew for each source of images."""

    model: str
    recipe: Recipe
    device: torch.device
    warm_up: int
    steps: int

    def train(self, start: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> float:
        """Images a second of training."""
        space = SearchSpace(replace(SPACES[self.model], classes=CLASSES), 6)
        architecture = space.within().draw(np.random.default_rng(0))
        torch.manual_seed(0)

        def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
            return classification_loss(model(images), targets, self.recipe)

        feed = Clocked(start, self.recipe.batch_size, self.warm_up + self.steps, self.device)
        with (
            tempfile.TemporaryDirectory() as folder,
            RunFolder(Path(folder) / "run", {}) as run,
            redirect_stderr(StringIO()),
        ):
            model = PSViT(space.spec, architecture, self.recipe.drop_path)
            train(model, replace(self.recipe, epochs=1), Task(feed, loss, {}), Runtime(0, self.device), run)
        feed.end()
        return feed.images_per_second(self.warm_up)

    def load(self, start: Callable[[], Iterator[tuple[Tensor, Tensor]]], seconds: float) -> float:
        """Images a second that come when nothing is done with them."""
        batches = start()
        for _ in range(self.warm_up):
            next(batches)
        images, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            images += len(next(batches)[0])
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()
        return images / (time.perf_counter() - begun)

    def feed(self, config: DataConfig) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
        """Endless batches of a source, from its beginning at each call."""
        endless = replace(self.recipe, epochs=10**6)
        size = SPACES[self.model].image_size
        return lambda: Feed(open_data(config), "train", size, endless, Runtime(0, self.device))(0)

    def synthetic(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch, again and again."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.recipe.batch_size, 3, *SPACES[self.model].image_size, generator=generator)
        targets = torch.rand(self.recipe.batch_size, CLASSES, generator=generator).softmax(dim=1)
        images, targets = images.to(self.device), targets.to(self.device)
        while True:
            yield images, targets


def sources(root: Path, images: int, workers: int, device: torch.device) -> dict[str, DataConfig]:
    """Write the images in each way."""
    folder, tars = root / "folder", root / "tars"
    write_folder(folder, images)
    write_tars(folder, tars)
    plain = DataConfig("imagefolder", str(folder), workers=workers)
    with redirect_stdout(sys.stderr):
        for store in ("jpeg", "raw"):
            prepare_data(PrepareConfig(save=str(root / store), store=store, data=plain))
    found = {
        "folder of JPEGs": plain,
        "packed, JPEG": replace(plain, name="packed", root=str(root / "jpeg")),
        "packed, raw": replace(plain, name="packed", root=str(root / "raw")),
        "WebDataset": replace(plain, name="webdataset", root=str(tars)),
    }
    if jpeg_decoder("auto", device) is None:
        return found
    by_workers = {f"{name}, decoded on the CPU": replace(config, decode="cpu") for name, config in found.items()}
    return found | {name: config for name, config in by_workers.items() if "raw" not in name}


def megabytes(root: str) -> float:
    return sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="how many are drawn; 20,000 on a GPU, else 600")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="one a core")
    parser.add_argument("--model", default="1d_tiny_16", choices=[name for name in SPACES if "mini" not in name])
    parser.add_argument("--batch-size", type=int, help="512 on a GPU, else 16")
    parser.add_argument("--steps", type=int, help="that are timed; 60 on a GPU, else 4")
    parser.add_argument("--seconds", type=float, default=10, help="that each source is loaded without training")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = pick_device(options.device)
    gpu = device.type == "cuda"
    images = options.images or (20_000 if gpu else 600)
    recipe = Recipe(batch_size=options.batch_size or (512 if gpu else 16), warmup_epochs=0)
    bench = Bench(options.model, recipe, device, 10 if gpu else 1, options.steps or (60 if gpu else 4))

    name = torch.cuda.get_device_name(device) if gpu else platform.processor() or platform.machine()
    print(
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}; {name}, {len(os.sched_getaffinity(0))} cores, {options.workers} workers; "
        f"{images:,} images of {WIDTH} x {HEIGHT}; {options.model}, batches of {recipe.batch_size}, the DeiT recipe\n"
    )
    with tempfile.TemporaryDirectory() as root:
        configs = sources(Path(root), images, options.workers, device)
        print("| images | on the disk | loading alone | training | on synthetic images, just before | share |")
        print("|---|---|---|---|---|---|")
        for name, config in configs.items():
            loaded = bench.load(bench.feed(config), options.seconds)
            synthetic, trained = bench.train(bench.synthetic), bench.train(bench.feed(config))
            size = megabytes(str(config.root))
            speeds = f"{loaded:,.0f} /s | {trained:,.1f} /s | {synthetic:,.1f} /s | {trained / synthetic:.1%}"
            print(f"| {name} | {size:,.0f} MB | {speeds} |", flush=True)


if __name__ == "__main__":
    main()
