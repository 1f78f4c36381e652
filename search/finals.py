"""``psvit-search finals``: the best that a search cannot tell apart train alone, half of them dropped each round.

Inherited scores leave many architectures tied. The final trains these on the training images, shortly at first, and
keeps the half that is best on images of the search split which did not rank them; the half trains anew, twice as long,
until one is left (``search/halving.py``). Random architectures of the winner's cost train as long as it. Which image
does what is in ``search/finalists.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

import psvit
from psvit.arch import Architecture, CellPath
from psvit.archfile import ArchFile, save_arch
from psvit.intervals import mean_interval, share
from psvit.run.folder import RunFolder
from psvit.run.random import seed_of
from psvit.search.claims import EQUAL_COST
from psvit.search.config import FinalsConfig
from psvit.search.crossfit import FOLDS, assign_folds
from psvit.search.finalists import DROPS, REPORT, Judges, who_enters
from psvit.search.halving import PlannedRound, goes_on, plan_rounds
from psvit.search.history import History, HistoryRecord
from psvit.search.random_search import RandomSearch
from psvit.search.rank import shorten_warmup
from psvit.search.records import FinalNetwork, FinalRecord, FinalRound, SearchRecord
from psvit.search.report import report
from psvit.search.searchers import SEARCHERS
from psvit.search.trial import Trial

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from psvit.data.data import Data
    from psvit.engine.outcomes import ImageOutcomes
    from psvit.search.standalone import Standalone
    from psvit.supernet.checkpoint import TrainedSupernet

RECORD = "final.json"


@dataclass(frozen=True)
class FinalResult:
    """What a final found: its run folder, the winner's arch.json, and its record."""

    folder: Path
    arch: Path
    record: FinalRecord


def finals(config: FinalsConfig) -> FinalResult:
    """Hold the final of a search, or resume it where its folder stands.

    Writes ``arch.json`` (the winner), ``final.json`` (all rounds, and what the winner is worth) and, in
    ``networks/EPOCHS/LAYERS``, each training; shows the final in the search's ``report.html``. The test split is not
    read.

    Raises:
        ValueError: no finished search, another supernet than it searched, too few images or trainings for a final, a
            folder that holds another run, or a training that fails.
        Stopped: Ctrl-C or SIGTERM came; all trainings have saved what they did.
    """
    from psvit.engine.device import pick_device
    from psvit.engine.distributed import Processes
    from psvit.supernet.checkpoint import TrainedSupernet

    if Processes.from_environment().world > 1:
        raise ValueError("finals starts processes of its own (jobs=...); start it without torchrun")
    folder = Path(config.run)
    if not (folder / "result.json").is_file():
        raise ValueError(f"{folder} holds no finished search: there is no result.json; name the run folder of a search")
    searched = SearchRecord.load(folder / "result.json")
    trained = TrainedSupernet.open(Path(config.supernet or _searched_supernet(folder)))
    if trained.sha256() != searched.search.supernet_sha256:
        raise ValueError(f"{folder} searched another supernet than {trained.path}; give that one as supernet=...")
    data, device = trained.open_data(config.data_root, config.workers), pick_device(config.device)
    with RunFolder(Path(config.out), asdict(config)) as run:
        result = _Final(config, folder, searched, trained, data, device, run.path)()
    if run.path.resolve().parent == folder.resolve():
        report(folder)
    return result


def _searched_supernet(folder: Path) -> str:
    """Where the supernet was that a search searched."""
    path = folder / "config.yaml"
    recorded = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if not isinstance(recorded, dict) or not isinstance(recorded.get("supernet"), str):
        raise ValueError(f"{folder} does not record which supernet it searched; give supernet=...")
    return str(recorded["supernet"])


class _Final:
    """A final in its run folder."""

    def __init__(
        self,
        config: FinalsConfig,
        search: Path,
        searched: SearchRecord,
        trained: TrainedSupernet,
        data: Data,
        device: torch.device,
        folder: Path,
    ) -> None:
        from psvit.data.pixels import Pixels

        self.config, self.searched, self.trained, self.data = config, searched, trained, data
        self.device, self.folder, self.search = device, folder, search
        record, seed = searched.search, trained.data.split_seed
        self.adaptive = SEARCHERS[record.searcher].adaptive
        self.pixels = Pixels(data, "search", trained.space.spec.image_size, None, seed, folder)
        self.folds = assign_folds(self.pixels.labels[: record.num_images], seed)
        self.judges = Judges.of(self.folds, self.pixels.labels, self.adaptive, config.seed)
        self.part = np.empty_like(self.judges.part)
        self.part[self.pixels.order] = self.judges.part  # in the split's order, as trainings score it
        self.trainings: dict[Path, Standalone] = {}  # by their folders

    def __call__(self) -> FinalResult:
        config, tied = self.config, self._tied()
        entrants = [trial.architecture for trial in tied[: config.keep]]
        plan = plan_rounds(len(entrants), config.recipe.epochs, config.control, config.max_networks, config.max_epochs)
        entrants = entrants[: plan[0].entrants]
        print(self._announcement(tied, plan), flush=True)
        rounds = []
        for number, (planned, follows) in enumerate(zip(plan, [*plan[1:], None], strict=True)):
            outcomes = self._train(entrants, planned.epochs)
            left = follows.entrants if follows is not None and self._affords(follows) else 1
            played = self._judge(entrants, outcomes, planned.epochs, number % DROPS, left)
            entrants = [Architecture.parse(each.layers) for each in played.networks if each.kept]
            rounds.append(played)
            print(f"round {number + 1} of {len(plan)}: {len(played.networks)} networks, {left} go on", flush=True)
            if left == 1:
                break
        record = self._conclude(entrants[0], rounds, len(plan), len(tied))
        record.save(self.folder / RECORD)
        self._save_arch(entrants[0])
        print("\n".join(record.lines))
        print(f"wrote {self.folder / 'arch.json'}, and {RECORD} beside it")
        return FinalResult(self.folder, self.folder / "arch.json", record)

    # ------------------------------------------------------------------------------------------------ who enters

    def _tied(self) -> list[Trial]:
        """The search's winner and all that cannot be told from it."""
        record = self.searched.search
        rivals = [trial for trial in self._trials() if trial.num_images == self.searched.num_images]
        sizes = np.bincount(self.folds, minlength=FOLDS)
        return who_enters(rivals, sizes, record.rank_by, self.adaptive, self._inherited_losses)

    def _trials(self) -> list[Trial]:
        """What the search scored."""
        path = self.search / "history.csv"
        trials = History(path).trials
        self.searched.check_history(path, len(trials))
        return trials

    def _inherited_losses(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """(architectures, images that rank) losses with the supernet's weights."""
        from psvit.search.evaluator import Evaluator

        record = self.searched.search
        evaluator = Evaluator(
            self.trained.load().to(self.device),
            self.trained.space,
            self.pixels,
            self.device,
            placements=record.placements,
            seed=record.seed,
        )
        loss = evaluator.outcomes(architectures, range(record.num_images)).loss
        return loss[:, self.judges.ranks[: record.num_images]].astype(np.float64)

    def _announcement(self, tied: Sequence[Trial], plan: Sequence[PlannedRound]) -> str:
        """Who enters, and what is about to happen."""
        rounds = " -> ".join(f"{each.entrants} of {each.epochs} epochs" for each in plan)
        return (
            f"{len(tied):,} architectures cannot be told from the search's winner, itself included; the best "
            f"{plan[0].entrants} enter the final: {rounds} -> 1\n"
            f"each is trained alone on {self.data.size('train'):,} images of {self.data.config.name}, "
            f"{'from inherited weights' if self.config.init == 'inherit' else 'from scratch'}; "
            f"{sum(each.networks for each in plan)} trainings, {self.config.control} of them random architectures of "
            "the winner's cost"
        )

    # ------------------------------------------------------------------------------------------------ rounds

    def _affords(self, planned: PlannedRound) -> bool:
        """Whether a round and the control are predicted to take no more than is left of ``max_minutes``."""
        if self.config.max_minutes is None:
            return True
        spent = sum(_seconds(task.folder, self.data.size("train")) for task in self.trainings.values())
        trained = sum(task.recipe.epochs for task in self.trainings.values())
        wanted = (planned.entrants + self.config.control) * planned.epochs
        return spent * (1 + wanted / trained) <= 60 * self.config.max_minutes

    def _judge(
        self,
        entrants: Sequence[Architecture],
        outcomes: Sequence[ImageOutcomes],
        epochs: int,
        part: int,
        left: int,
    ) -> FinalRound:
        """Keep ``left`` of those that were trained, by their loss on the images of a part."""
        judged = self.part == part
        losses = [float(each.loss[judged].mean(dtype=np.float64)) for each in outcomes]
        order, kept = goes_on(losses, len(losses)), goes_on(losses, left)
        networks = (self._network(entrants[row], outcomes[row], judged, row in kept) for row in order)
        return FinalRound(epochs, int(judged.sum()), tuple(networks))

    def _network(
        self, architecture: Architecture, outcomes: ImageOutcomes, judged: NDArray[np.bool_], kept: bool
    ) -> FinalNetwork:
        cost = self.trained.space.cost(architecture)
        loss, top1 = outcomes.loss[judged].mean(dtype=np.float64), outcomes.correct[judged].mean()
        return FinalNetwork(str(architecture), cost.flops, cost.params, float(loss), float(top1), kept)

    def _train(self, architectures: Sequence[Architecture], epochs: int) -> list[ImageOutcomes]:
        """What becomes of each image of the search split in each, trained for so many epochs."""
        from psvit.engine.outcomes import OUTCOMES, ImageOutcomes
        from psvit.search.standalone import Standalone, train_all

        config, spec = self.config, self.trained.space.spec
        recipe = shorten_warmup(replace(config.recipe, epochs=epochs))
        places = [self.folder / "networks" / f"{epochs}-epochs" / str(each) for each in architectures]
        starts = self._starts(architectures)
        tasks = [
            Standalone(
                *(place, spec, architecture, self.data.config, recipe, config.seed, str(self.device)),
                command="finals",
                start=start,
            )
            for place, architecture, start in zip(places, architectures, starts, strict=True)
        ]
        costly = sorted(tasks, key=lambda task: self.trained.space.cost(task.architecture).flops, reverse=True)
        train_all(costly, config.jobs)
        self.trainings |= {task.folder: task for task in tasks}
        return [ImageOutcomes.load(place / OUTCOMES) for place in places]

    def _starts(self, architectures: Sequence[Architecture]) -> list[Path | None]:
        """Files of the weights that the trainings start from."""
        if self.config.init == "scratch":
            return [None] * len(architectures)
        from psvit.supernet.inherit import inherit
        from psvit.weights import save_weights

        supernet, cells = self.trained.load(), self.trained.space.cells
        files = [self.folder / "networks" / "inherited" / f"{each}.safetensors" for each in architectures]
        for architecture, file in zip(architectures, files, strict=True):
            if not file.exists():
                about = {"architecture": str(architecture), "supernet_sha256": self.trained.sha256()}
                save_weights(file, inherit(supernet, CellPath.canonical(architecture, cells)), about)
        return [*files]

    # ------------------------------------------------------------------------------------------------ results

    def _conclude(self, winner: Architecture, rounds: Sequence[FinalRound], planned: int, tied: int) -> FinalRecord:
        """Train the control, and say what the winner is worth on the images that dropped nobody."""
        cost, epochs, reports = self.trained.space.cost(winner), rounds[-1].epochs, self.part == REPORT
        drawn = self._draw_control(winner, cost.flops)
        own, *others = self._train([winner, *drawn], epochs)
        top1 = share(own.correct[reports].sum(), reports.sum())
        assert top1 is not None
        trainings, images = self.trainings.values(), self.data.size("train")
        gain_loss, gain_top1 = None, None
        if others:
            gain_loss = mean_interval(np.stack([other.loss[reports] - own.loss[reports] for other in others]))
            right = [own.correct[reports].astype(float) - other.correct[reports] for other in others]
            gain_top1 = mean_interval(np.stack(right))
        control = [self._network(each, outcomes, reports, False) for each, outcomes in zip(drawn, others, strict=True)]
        return FinalRecord(
            layers=str(winner),
            flops=cost.flops,
            params=cost.params,
            searched=self.searched.layers,
            tied=tied,
            rounds=tuple(rounds),
            planned=planned,
            control=tuple(control),
            num_images=int(reports.sum()),
            loss=mean_interval(own.loss[reports]),
            top1=top1,
            gain_loss=gain_loss,
            gain_top1=gain_top1,
            networks=len(trainings),
            images=sum(task.recipe.epochs for task in trainings) * images,
            seconds=sum(_seconds(task.folder, images) for task in trainings),
            init=self.config.init,
            search=self.searched.search,
            tool=f"psvit-search {psvit.__version__}",
        )

    def _draw_control(self, winner: Architecture, flops: int) -> list[Architecture]:
        """Random architectures of the winner's cost within the budget, without the winner; fewer where there are."""
        allowed = self.searched.search.budget.around(flops, EQUAL_COST).within(self.trained.space)
        searcher = RandomSearch(allowed, seed_of(self.config.seed, "control of the final"))
        searcher.unseen.take(winner)
        return searcher.ask(self.config.control) if self.config.control else []

    def _save_arch(self, winner: Architecture) -> None:
        """The winner, with its score in the search."""
        record: HistoryRecord = self.searched.search
        trials = self._trials()
        trial = next(each for each in trials if each.architecture == winner)
        provenance: dict[str, Any] = record.provenance(winner, trial.top1, trial.loss, len(trials))
        save_arch(self.folder / "arch.json", ArchFile(self.trained.space.spec, winner, provenance))


def _seconds(folder: Path, images: int) -> float:
    """How long the epochs of a training took."""
    speeds = pd.read_csv(folder / "metrics.csv")["images_per_second"]
    return float((images / speeds).sum())
