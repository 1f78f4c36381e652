"""The two scores of an architecture that ``rank`` and ``finals`` know: with inherited weights, and trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from psvit.arch import Architecture, NetworkSpec
from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.data.pixels import Pixels
from psvit.engine.checkpoint import previous
from psvit.engine.config import Recipe
from psvit.engine.device import free_memory
from psvit.engine.feed import Feed
from psvit.engine.loop import Task, classification_loss, train
from psvit.engine.outcomes import OUTCOMES, OutcomeWatch
from psvit.engine.runtime import Runtime
from psvit.engine.scoring import Score, score_all
from psvit.model import PSViT
from psvit.run.files import sha256
from psvit.run.folder import RunFolder
from psvit.run.jobs import Job, cores, run_jobs
from psvit.run.random import seed_of
from psvit.run.records import Record
from psvit.run.signals import Stopped
from psvit.search.evaluator import Evaluator
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.weights import load_weights

RESULT = "result.json"
_MOST_AT_ONCE = 8  # on a GPU: more only wait for each other


def inherited_scores(
    trained: TrainedSupernet,
    data: Data,
    architectures: Sequence[Architecture],
    device: torch.device,
    placements: int,
    seed: int,
) -> list[Score]:
    """Top-1 and loss on the search split with the weights that the supernet gives them, as a search scores them."""
    pixels = Pixels(data, "search", trained.space.spec.image_size, None, trained.data.split_seed)
    supernet = trained.load().to(device)
    scores = Evaluator(supernet, trained.space, pixels, device, placements=placements, seed=seed)(architectures)
    del supernet
    if device.type == "cuda":
        torch.cuda.empty_cache()  # other processes are about to need it
    return scores


@dataclass(frozen=True)
class Standalone:
    """One training.

    Attributes:
        folder: its run folder.
        data: the supernet's; the network learns from its split ``train`` and is scored on ``search``.
        seed: of weights, data order, augmentation and drop path.
        device: ``cpu`` or ``cuda:0``.
        threads: of torch, on the CPU.
        command: that trains it.
        start: safetensors file of the weights that it starts from; None starts from random ones.
    """

    folder: Path
    spec: NetworkSpec
    architecture: Architecture
    data: DataConfig
    recipe: Recipe
    seed: int
    device: str
    threads: int = 1
    command: str = "rank"
    start: Path | None = None

    def read_score(self) -> Score | None:
        """What the network has reached on the search split; None until it has been trained.

        Raises:
            ValueError: the result on file cannot be read.
        """
        path = self.folder / RESULT
        if not path.exists():
            return None
        record = StandaloneRecord.load(path)
        return Score(record.top1, record.loss)


@dataclass(frozen=True)
class StandaloneRecord(Record):
    """``result.json`` of one training.

    Attributes:
        layers: of the network.
        search_split: the images that it was scored on.
        seed: of the training.
        top1, loss: on the search split; NaN where its logits are not finite.
    """

    format: ClassVar[str] = "psvit-standalone-result"
    remedy: ClassVar[str] = "delete its folder to train this network again"

    layers: str
    search_split: dict[str, Any]
    seed: int
    top1: float
    loss: float


def train_alone(task: Standalone) -> int:
    """Train a network alone, or resume where its folder stands, and score it on the search split.

    Writes ``result.json``, ``outcomes.safetensors`` (image by image), ``metrics.csv`` and ``log.txt``. The
    test split is not read.

    Returns:
        The bytes that were free on the GPU when this process held most of it; 0 on a CPU.

    Raises:
        ValueError: the loss is not finite, or the GPU's memory or the disk is full.
        Stopped: SIGTERM came; the checkpoint is saved.
    """
    torch.set_num_threads(task.threads)
    device, spec, recipe = torch.device(task.device), task.spec, task.recipe
    data = open_data(task.data)
    torch.manual_seed(seed_of(task.seed, "weights"))
    network = PSViT(spec, task.architecture, recipe.drop_path)
    identity = {"command": task.command, "network": asdict(spec), "architecture": str(task.architecture)}
    if task.start is not None:
        load_weights(task.start, network)
        identity["start_sha256"] = sha256(task.start)
    runtime = Runtime(task.seed, device)
    feed = Feed(data, "train", spec.image_size, recipe, runtime)

    def loss(model: nn.Module, images: Tensor, targets: Tensor, step: int, micro: int) -> Tensor:
        return classification_loss(model(images), targets, recipe)

    asked = {**identity, "search_split": data.split_record(), "recipe": asdict(recipe), "seed": task.seed}
    try:
        # several networks at once would write their progress over each other's
        with RunFolder(task.folder, asked) as run, open(run.path / "log.txt", "a") as log, redirect_stderr(log):
            trained = train(network, recipe, Task(feed, loss, identity), runtime, run)
            final = trained.model.eval()
            held_out = data.eval_batches("search", spec.image_size, recipe.batch_size)
            outcomes = OutcomeWatch()
            (score,) = score_all([final], held_out, device, recipe.precision, outcomes)
            outcomes.result().save(run.path / OUTCOMES, identity)
            record = StandaloneRecord(str(task.architecture), data.split_record(), task.seed, *score)
            record.save(run.path / RESULT)
            for path in (run.path / "checkpoint.pt", previous(run.path / "checkpoint.pt")):
                path.unlink(missing_ok=True)  # three times the weights, and of no more use
    except torch.OutOfMemoryError:
        raise ValueError(
            "the GPU's memory is full; use a smaller jobs=, a smaller recipe.batch_size or a larger recipe.accumulate"
        ) from None
    if device.type != "cuda":
        return 0
    freed = torch.cuda.max_memory_reserved(device) - torch.cuda.memory_reserved(device)
    return int(torch.cuda.mem_get_info(device)[0]) - freed


def train_all(tasks: Sequence[Standalone], at_once: int) -> list[Score]:
    """Train all that have no result yet, several at once, and give the scores of all.

    On a CPU the scores do not depend on how many are trained at once.

    Args:
        tasks: the most expensive network first: it takes longest and, on a GPU, most memory.
        at_once: 0 is one per core; on a GPU the first is trained alone, then as many at once as its free memory holds.

    Raises:
        ValueError: one has failed; the line begins with its architecture, and the others have saved what they did.
        Stopped: Ctrl-C or SIGTERM came; all have saved what they did.
    """
    todo = [task for task in tasks if task.read_score() is None]
    done = len(tasks) - len(todo)
    with tqdm(total=len(tasks), initial=done, desc="networks trained", unit="network", disable=None) as bar:
        if todo and not at_once and todo[0].device != "cpu":
            device = torch.device(todo[0].device)
            free = int(torch.cuda.mem_get_info(device)[0])
            (left,) = _train(todo[:1], 1, bar)
            todo, at_once = todo[1:], fitting(free - left, free_memory(device))
        if todo:
            _train(todo, min(at_once or cores(), len(todo)), bar)
    scores = [task.read_score() for task in tasks]
    return [score for score in scores if score is not None]


def _train(tasks: Sequence[Standalone], at_once: int, bar: tqdm[Any]) -> list[int]:
    """Train some networks in processes of their own, and give what each says of the GPU's memory."""
    left: list[int] = []

    def done(job: Job, free: int) -> None:
        left.append(free)
        score = job.argument.read_score()
        with bar.external_write_mode():
            print(f"trained {job.name} alone: top-1 {score.top1:.4f}, loss {score.loss:.4f}", flush=True)
        bar.update()

    # on a CPU one thread each: their number changes how sums are rounded
    threads = 1 if tasks[0].device == "cpu" else max(1, cores() // at_once)
    jobs = [Job(str(task.architecture), train_alone, replace(task, threads=threads)) for task in tasks]
    try:
        run_jobs(jobs, at_once, done)
    except Stopped:
        networks = tasks[0].folder.parent
        raise Stopped(f"stopped; what was trained is in {networks}; run the same command again to resume") from None
    return left


def fitting(taken: int, free: int) -> int:
    """How many networks to train at once on a GPU, if one takes so many bytes and so many may be used."""
    return max(1, min(free // max(taken, 1), _MOST_AT_ONCE, cores()))
