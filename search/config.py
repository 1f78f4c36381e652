"""Settings of ``psvit-search evolve``, ``random`` and ``rank``. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from psvit.cost import parse_quantity
from psvit.engine.config import PRECISIONS, Recipe, RunConfig
from psvit.search.searchers import AUTO, SEARCHERS
from psvit.supernet.config import SpaceConfig

COSTS = ("spread", "equal")


@dataclass
class BudgetConfig:
    """What is allowed: ``1.3G`` is at most 1.3e9, ``1.2G..1.3G`` a band, None anything; a latency is ``2ms``."""

    flops: str | None = None
    params: str | None = None
    latency: str | None = None


@dataclass
class MeasurementConfig:
    """How latencies are measured.

    Attributes:
        batch: images a forward pass.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast; ``auto`` is bf16 on a GPU and fp32 on a CPU.
        repeats: timed forward passes of each network; the median counts.
    """

    batch: int = 1
    precision: str = "auto"
    repeats: int = 30

    def __post_init__(self) -> None:
        for key in ("batch", "repeats"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} of the latency is {getattr(self, key)}; it must be at least 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision of the latency is {self.precision!r}; use one of {', '.join(PRECISIONS)}")


@dataclass
class LatencyConfig(MeasurementConfig):
    """What a budget of latency means.

    Attributes:
        table: a latency.json; None measures one on this machine and keeps it in the run folder.
        force: take the table even if it is of another device, batch, precision or network.
    """

    table: str | None = None
    force: bool = False


@dataclass
class MeasureConfig(MeasurementConfig):
    """Settings of ``psvit-search latency``.

    Attributes:
        supernet: run folder of ``train-supernet``, whose networks are measured.
        space: measure those of this space instead, with 1000 classes or as many as the named space has.
        save: where the table goes.
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
        searcher: a name of :data:`psvit.search.searchers.SEARCHERS`; ``auto`` (for ``run``) chooses between
            exhaustive search and evolution.
        trials: architectures to score; ``exhaustive`` scores all.
        population: architectures a generation (and, for random search, a batch).
        parents: best architectures so far that a generation descends from.
        mutation: share of children made by mutation; the others by crossover.
        auto_minutes: ``auto`` takes exhaustive search if it is predicted to end within so many minutes.
        race: exhaustive only: score all on a few images first, and drop what can no longer be among the best.
        race_keep: how many best are raced for.
        confidence: probability, at least, that none of these is dropped.
        num_images: score on this many images of the search split, stratified; None takes all.
        placements: score on this many random placements of the layers in the cells and average; 0 scores the
            canonical path alone.
        baseline: random architectures of the winner's cost (within 2 %) that it is compared with.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast; ``auto`` is bf16 on a GPU and fp32 on a CPU.
        compile: compile the layers by torch.compile; None does on a GPU.
        batch_size: images that are scored together; None chooses by the device and the space.
        memory: what scoring may use, such as ``8G``; None takes what is free.
    """

    budget: BudgetConfig = field(default_factory=BudgetConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    searcher: str = "evolve"
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
        if self.searcher not in (*SEARCHERS, AUTO):
            raise ValueError(f"search.searcher is {self.searcher!r}; use one of {', '.join([*SEARCHERS, AUTO])}")
        for key in ("trials", "population", "parents", "race_keep", "num_images", "batch_size"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"search.{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("placements", "baseline"):
            if getattr(self, key) < 0:
                raise ValueError(f"search.{key} is {getattr(self, key)}; use 0 or more")
        if not 0 <= self.mutation <= 1:
            raise ValueError(f"search.mutation is {self.mutation}; it is a share between 0 and 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"search.confidence is {self.confidence}; it is a probability such as 0.95")
        if self.precision not in PRECISIONS:
            raise ValueError(f"search.precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}")
        if self.memory is not None:
            parse_quantity(self.memory)
        if self.race and self.searcher != "exhaustive":
            raise ValueError("search.race is for psvit-search exhaustive; the other searches score few architectures")
        if self.race and self.placements:
            raise ValueError("search.race needs one score per image; leave search.placements at 0")


@dataclass
class SearchRunConfig(RunConfig):
    """Settings of one search.

    Attributes:
        supernet: run folder of ``train-supernet``; its space, data and splits are used.
        data_root: where its images lie now, if they moved.
        workers: loader processes.
    """

    supernet: str = "???"
    data_root: str | None = None
    workers: int = 0
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass
class ReportConfig:
    """Settings of ``psvit-search report``.

    Attributes:
        run: run folder of a search; None is the only search of the project.
        runs: folder of all runs.
        name: name of the project.
    """

    run: str | None = None
    runs: str = "runs"
    name: str = "default"


@dataclass
class RankConfig(RunConfig):
    """Settings of ``psvit-search rank``.

    Attributes:
        supernet: run folder of ``train-supernet``; its space, data and splits are used.
        data_root: where its images lie now, if they moved.
        workers: loader processes of each training.
        archs: architectures to train alone.
        cost: ``spread`` draws from all that the budget allows, over all its costs; ``equal`` from those within 2 % of
            ``flops``.
        flops, params: the budget, as in :class:`BudgetConfig`.
        placements: as in :class:`SearchConfig`.
        jobs: networks trained at once; 0 is one a core, and on a GPU as many as its memory holds. No effect on the
            result.
        recipe: how each is trained.
    """

    supernet: str = "???"
    data_root: str | None = None
    workers: int = 0
    archs: int = 16
    cost: str = "spread"
    flops: str | None = None
    params: str | None = None
    placements: int = 0
    jobs: int = 0
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.archs < 3:
            raise ValueError(f"archs is {self.archs}; fewer than 3 have no order to speak of")
        if self.cost not in COSTS:
            raise ValueError(f"cost is {self.cost!r}; use one of {', '.join(COSTS)}")
        if self.cost == "equal" and (not self.flops or self.flops.strip().endswith("..")):
            raise ValueError("cost=equal needs the FLOPs that all shall have: --flops 1.3G, or a narrow band")
        for key in ("placements", "jobs"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} is {getattr(self, key)}; use 0 or more")


@dataclass
class PickConfig:
    """Settings of ``psvit-search pick``.

    Attributes:
        run: run folder of a search, or folder of a project whose searches are put together.
        runs: folder of all runs.
        name: name of the project.
        budget: what the architectures must meet.
        table: the latency.json that a budget of latency is meant by; None is the one in ``run``, or beside it.
        top: how many architectures are shown.
        save: write the best as this arch.json, too.
        json: print JSON instead of a table.
    """

    run: str = "???"
    runs: str = "runs"
    name: str = "default"
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    table: str | None = None
    top: int = 10
    save: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top is {self.top}; it must be at least 1")
