"""Settings of the searches, and of the commands that judge them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.checks import check_at_least, check_choice, check_share
from psvit.engine.config import PRECISIONS, Recipe, RunConfig
from psvit.search.searchers import AUTO, SEARCHERS
from psvit.supernet.config import SpaceConfig
from psvit.units import parse_quantity

RANK_BY = ("loss", "top1")
PREFER = ("best", "cheapest")
COSTS = ("spread", "equal")
INITS = ("scratch", "inherit")


@dataclass
class BudgetConfig:
    """What an architecture may cost; None allows anything.

    Attributes:
        flops: multiply-adds per image: at most ``1.3G``, or a range such as ``1.2G..1.3G``.
        params: parameters: at most ``16M``, or a range such as ``15M..16M``.
        latency: time of a forward pass on this machine: at most ``2ms``, or a range such as ``1ms..2ms``.
    """

    flops: str | None = None
    params: str | None = None
    latency: str | None = None


@dataclass
class MeasurementConfig:
    """How latencies are measured.

    Attributes:
        batch: images per timed forward pass.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast, or ``auto`` for bf16 on a GPU and fp32 on a CPU.
        repeats: timed forward passes per network; the median counts.
    """

    batch: int = 1
    precision: str = "auto"
    repeats: int = 30

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch", "repeats", prefix="the latency's ")
        check_choice(self, PRECISIONS, "precision", prefix="the latency's ")


@dataclass
class LatencyConfig(MeasurementConfig):
    """What a budget of latency means.

    Attributes:
        table: latency.json that a latency budget refers to; None measures one on this machine.
        force: use the table even if it is of another device, batch, precision or network.
    """

    table: str | None = None
    force: bool = False


@dataclass
class MeasureConfig(MeasurementConfig):
    """Settings of ``psvit-search latency``.

    Attributes:
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        supernet: run folder of ``train-supernet``, whose space is measured.
        space: space to measure instead, with 1000 classes or as many as the named space has.
        save: file for the table.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    """

    runs: str = "runs"
    name: str = "default"
    supernet: str = "???"
    space: SpaceConfig | None = None
    save: str = "???"
    device: str = "auto"


@dataclass
class SearchConfig:
    """How to search.

    Attributes:
        budget: what the architectures may cost.
        latency: what a latency budget refers to.
        searcher: name of a searcher, or ``auto`` for exhaustive search if that is fast enough, else evolution.
        rank_by: score to rank architectures by: ``loss``, which tells them apart on fewer images, or ``top1``.
        prefer: what becomes arch.json: the ``best``, or the ``cheapest`` that the images cannot tell from it. The other
            one is best.json or cheapest.json.
        trials: architectures to score. Exhaustive search scores all.
        population: architectures per generation (in random search, per batch).
        parents: best architectures so far that each generation is bred from.
        mutation: share of children made by mutation; crossover makes the rest.
        auto_minutes: with search=auto, search exhaustively if that is predicted to take at most this many minutes.
        race: score all architectures on a few images first, and drop those that can no longer be among the best.
        race_keep: how many of the best the race has to keep.
        confidence: lower bound on the probability that the race drops none of these.
        num_images: score on this many images of the search split, stratified; None uses all.
        placements: score the mean over this many random placements of the layers in the cells; 0 scores the canonical
            placement alone.
        baseline: random architectures of equal cost (within 2 %) to compare the winner with.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast, or ``auto`` for bf16 on a GPU and fp32 on a CPU.
        compile: compile the layers with torch.compile; None does so on a GPU.
        batch_size: images to score at once; None chooses by the device and the space.
        memory: memory that scoring may use, such as ``8G``; None is all that is free.
    """

    budget: BudgetConfig = field(default_factory=BudgetConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    searcher: str = "evolve"
    rank_by: str = "loss"
    prefer: str = "best"
    trials: int = 1000
    population: int = 50
    parents: int = 10
    mutation: float = 0.5
    auto_minutes: float = 10.0
    race: bool = False
    race_keep: int = 10
    confidence: float = 0.95
    num_images: int | None = None
    placements: int = 0
    baseline: int = 50
    precision: str = "auto"
    compile: bool | None = None
    batch_size: int | None = None
    memory: str | None = None

    def __post_init__(self) -> None:
        check_choice(self, [*SEARCHERS, AUTO], "searcher", prefix="search.")
        counts = ("trials", "population", "parents", "race_keep", "num_images", "batch_size")
        check_at_least(self, 1, *counts, prefix="search.")
        check_at_least(self, 0, "placements", "baseline", "auto_minutes", prefix="search.")
        check_share(self, "mutation", prefix="search.")
        check_share(self, "confidence", prefix="search.", zero=False, one=False)
        check_choice(self, PRECISIONS, "precision", prefix="search.")
        check_choice(self, RANK_BY, "rank_by", prefix="search.")
        check_choice(self, PREFER, "prefer", prefix="search.")
        if self.race and self.prefer == "cheapest":
            raise ValueError(
                "a race drops what it does not keep, and cannot say what is tied; leave search.prefer=best"
            )
        if self.memory is not None:
            parse_quantity(self.memory)
        if self.race and self.searcher != "exhaustive":
            raise ValueError("search.race is for psvit-search exhaustive; the other searches score few architectures")
        if self.race and self.rank_by != "top1":
            raise ValueError("search.race compares which images are classified correctly; add search.rank_by=top1")
        if self.race and self.placements:
            raise ValueError("search.race needs one score per image; leave search.placements at 0")


@dataclass
class SearchRunConfig(RunConfig):
    """Settings of one search.

    Attributes:
        supernet: run folder of ``train-supernet``, whose space, data and splits are used.
        data_root: where the supernet's images are now, if they moved.
        workers: loader processes per rank; 0 loads in the main process. No effect on the result.
        search: how to search.
    """

    supernet: str = "???"
    data_root: str | None = None
    workers: int = 0
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass
class ReportConfig:
    """Settings of ``psvit-search report``.

    Attributes:
        run: run folder of a search; by default the project's only one.
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
    """

    run: str | None = None
    runs: str = "runs"
    name: str = "default"


@dataclass
class RankConfig(RunConfig):
    """Settings of ``psvit-search rank``.

    Attributes:
        supernet: run folder of ``train-supernet``, whose space, data and splits are used.
        data_root: where the supernet's images are now, if they moved.
        workers: loader processes per training; 0 loads in the main process. No effect on the result.
        archs: architectures to train, each alone: how many to draw, or which: layers such as ``B-BS-BSS``, arch.json
            or CSV files with a column ``layers``, separated by commas.
        seeds: trainings of each, with the seeds ``seed``, ``seed + 1``, ...; with one, how much of their order is
            chance is not known.
        against: standalone.csv of another ``rank`` on the same space and images, whose trainings are taken instead of
            new ones; for the next supernet.
        cost: spread the draw evenly over the FLOPs within the budget (``spread``), or keep it within 2 % of ``flops``
            (``equal``).
        flops: multiply-adds per image: at most ``1.3G``, or a range such as ``1.2G..1.3G``.
        params: parameters: at most ``16M``, or a range such as ``15M..16M``.
        rank_by: inherited score that the regret is of picking by: ``loss`` or ``top1``.
        placements: score the mean over this many random placements of the layers in the cells; 0 scores the canonical
            placement alone.
        jobs: networks to train at once; 0 is one per core, and on a GPU as many as fit into its memory. No effect on
            the result.
        recipe: training recipe of each network.
    """

    supernet: str = "???"
    data_root: str | None = None
    workers: int = 0
    archs: str = "16"
    seeds: int = 2
    against: str | None = None
    cost: str = "spread"
    flops: str | None = None
    params: str | None = None
    rank_by: str = "loss"
    placements: int = 0
    jobs: int = 0
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.archs.isdecimal() and int(self.archs) < 3:
            raise ValueError(f"archs is {self.archs}; it must be at least 3: fewer have no order to speak of")
        check_at_least(self, 1, "seeds")
        check_at_least(self, 0, "placements", "jobs")
        check_choice(self, COSTS, "cost")
        check_choice(self, RANK_BY, "rank_by")
        if self.cost == "equal" and (not self.flops or self.flops.strip().endswith("..")):
            raise ValueError("cost=equal needs the FLOPs that all shall have: --flops 1.3G, or a narrow band")


@dataclass
class FinalPart:
    """What a final is, wherever it takes place.

    Attributes:
        keep: architectures that enter: the search's winner and the best of those that cannot be told from it.
        control: random architectures of the winner's cost (within 2 %) that are trained as long, to compare it with.
        init: weights that each training starts from: random ones (``scratch``) or the supernet's (``inherit``).
        max_networks: trainings of all rounds together; where they do not suffice, fewer enter.
        max_epochs: epochs of all trainings together; where they do not suffice, fewer enter.
        max_minutes: of all trainings together, as if one followed another; a round that is predicted to exceed them,
            with the control, is not trained. The first is, whatever it takes. How fast a machine is then decides how
            far a final goes: it is no exact repeat by seed.
        jobs: networks to train at once; 0 is one per core, and on a GPU as many as fit into its memory. No effect on
            the result.
        recipe: training recipe of the last round. Each round before has half the epochs of the one after it.
    """

    keep: int = 16
    control: int = 4
    init: str = "scratch"
    max_networks: int | None = None
    max_epochs: int | None = None
    max_minutes: float | None = None
    jobs: int = 0
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "keep", "max_networks", "max_epochs")
        check_at_least(self, 0, "control", "max_minutes", "jobs")
        check_choice(self, INITS, "init")


@dataclass
class FinalsConfig(FinalPart, RunConfig):
    """Settings of ``psvit-search finals``.

    Attributes:
        run: run folder of a search.
        supernet: run folder of ``train-supernet``; by default the one that was searched.
        data_root: where the supernet's images are now, if they moved.
        workers: loader processes per training; 0 loads in the main process. No effect on the result.
    """

    run: str = "???"
    supernet: str | None = None
    data_root: str | None = None
    workers: int = 0


@dataclass
class PickConfig:
    """Settings of ``psvit-search pick``.

    Attributes:
        run: run folder of a search, or folder of a project, whose searches are combined.
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        budget: what the architectures may cost.
        rank_by: score to rank architectures by: ``loss`` or ``top1``.
        table: latency.json that a latency budget refers to; None is the one in the run folder or next to it.
        top: how many architectures to show.
        save: write the best as this arch.json, too.
        json: print JSON instead of a table.
    """

    run: str = "???"
    runs: str = "runs"
    name: str = "default"
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rank_by: str = "loss"
    table: str | None = None
    top: int = 10
    save: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        check_choice(self, RANK_BY, "rank_by")
        check_at_least(self, 1, "top")
