"""``psvit-search ablate``: the paper's ablations, the network of each row trained from scratch with several seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psvit.data.config import DataConfig
from psvit.engine.config import Recipe
from psvit.figures import BLUE, GREY, VERMILLION, save_figure
from psvit.networks import find_arch
from psvit.paper.published import ABLATIONS, Ablation
from psvit.retrain.config import RetrainConfig
from psvit.retrain.results import RetrainRecord
from psvit.run.files import write_text
from psvit.run.folder import RunFolder
from psvit.run.jobs import Job, cores, run_jobs
from psvit.run.signals import Stopped
from psvit.search.config import SearchConfig, SearchRunConfig
from psvit.search.searchers import AUTO
from psvit.supernet.config import SpaceConfig, SupernetPart, TrainSupernetConfig
from psvit.units import format_quantity
from psvit.zoo import space

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
SEARCHES = ("search_1d", "search_2d")  # the rows whose network a search finds


@dataclass
class ScaleConfig:
    """What the rows of the tables are at one scale; one file per scale in ``conf/scale``.

    Attributes:
        name: name of the scale; the folder is ``ablate-NAME``.
        network: named network to ablate; its variants are called ``NETWORK_VARIANT``.
        search_1d, search_2d: named space that the row of this name searches.
    """

    name: str = "digits"
    network: str = "deit_mini_4"
    search_1d: str = "1d_mini_4"
    search_2d: str = "2d_mini_4"


@dataclass
class AblateConfig:
    """Settings of ``psvit-search ablate``.

    Attributes:
        table: table to make: ``components``, ``pooling``, ``sharing``, ``pooling_kind`` or ``all``.
        scale: networks, data, epochs and budget of the tables.
        seeds: random seeds; every network is trained once with each. Of weights, data order, augmentation, paths and
            search.
        jobs: networks to train at once; 0 is one per core, and one on a GPU. On a CPU each has one thread, so that this
            has no effect on the result. Under torchrun all processes train one network.
        runs: folder of all runs.
        name: name of the project; its runs are in ``runs/NAME/``.
        out: folder of the trainings and the tables.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        data: dataset to train and test on.
        recipe: training recipe of every network; that of the dataset, or of ``imagefolder`` if it has none. Networks
            that a search has found are trained by it, too.
        supernet: how the supernets of the searches are trained.
        search: how the supernets are searched, and within which budget.
    """

    table: str = "???"
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    seeds: list[int] = field(default_factory=lambda: [0])
    jobs: int = 0
    runs: str = "runs"
    name: str = "default"
    out: str = "???"
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    recipe: Recipe = field(default_factory=Recipe)
    supernet: SupernetPart = field(default_factory=SupernetPart)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self) -> None:
        if self.table not in (*ABLATIONS, ALL):
            raise ValueError(f"no table is named {self.table!r}; choose one of {', '.join([*ABLATIONS, ALL])}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give different ones, as seeds=[0,1,2]")
        if self.jobs < 0:
            raise ValueError(f"jobs is {self.jobs}; use 0 or more")

    @property
    def tables(self) -> dict[str, tuple[Ablation, ...]]:
        """The tables that are asked for."""
        return {name: rows for name, rows in ABLATIONS.items() if self.table in (ALL, name)}


# ---------------------------------------------------------------------------------------------------- trainings


@dataclass(frozen=True)
class Training:
    """One row of a table with one seed; rows that several tables have in common are one.

    Attributes:
        variant: of the row.
        folder: of all that belongs to it.
        retrain: what is trained in the end.
        supernet: of a row that is searched, the training of the supernet; None of any other row.
        search: of a row that is searched, the search that writes the ``arch`` of ``retrain``.
        threads: of torch, on the CPU; None leaves them as they are.
    """

    variant: str
    folder: Path
    retrain: RetrainConfig
    supernet: TrainSupernetConfig | None = None
    search: SearchRunConfig | None = None
    threads: int | None = None

    @property
    def seed(self) -> int:
        """The seed of all of it."""
        return self.retrain.seed

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.folder.parent.name}, seed {self.seed}"

    def read_result(self) -> RetrainRecord | None:
        """What ``retrain`` has written of it; None until it is trained.

        Raises:
            ValueError: the file cannot be read.
        """
        path = Path(self.retrain.out) / "result.json"
        return RetrainRecord.load(path) if path.exists() else None


def network_name(scale: ScaleConfig, variant: str) -> str:
    """The named network of a row, or the space that it searches."""
    if variant in SEARCHES:
        return str(getattr(scale, variant))
    return scale.network if variant == "none" else f"{scale.network}_{variant}"


def training(config: AblateConfig, variant: str, seed: int) -> Training:
    """What is trained for a row.

    Raises:
        ValueError: the scale names a network or a space that there is not.
    """
    name = network_name(config.scale, variant)
    searched = variant in SEARCHES
    folder = Path(config.out) / (variant if searched else name) / f"seed{seed}"

    def shared(part: str = "") -> dict[str, Any]:
        out = str(folder / part)
        return {"runs": config.runs, "name": config.name, "out": out, "seed": seed, "device": config.device}

    if not searched:
        find_arch(name)
        return Training(variant, folder, RetrainConfig(**shared(), arch=name, data=config.data, recipe=config.recipe))
    supernet = TrainSupernetConfig(
        **shared("supernet"), **vars(config.supernet), space=SpaceConfig.of(space(name)), data=config.data
    )
    search = SearchRunConfig(
        **shared("search"),
        supernet=supernet.out,
        data_root=config.data.root,
        workers=config.data.workers,
        search=config.search,
    )
    arch = str(Path(search.out) / "arch.json")
    retrain = RetrainConfig(**shared("retrain"), arch=arch, data=config.data, recipe=config.recipe)
    return Training(variant, folder, retrain, supernet, search)


def train(task: Training) -> None:
    """Train a row's network, or resume where its folder stands.

    Raises:
        ValueError, Stopped: as the tasks of ``train-supernet``, of a search and of ``retrain``.
    """
    from psvit.retrain.train import retrain

    if task.supernet is not None and task.search is not None:
        from psvit.search.auto import settle
        from psvit.search.run import search
        from psvit.supernet.train import train_supernet

        train_supernet(task.supernet)
        search(replace(task.search, search=settle(task.search, task.folder)))
    retrain(task.retrain)


def _train_apart(task: Training) -> None:
    """The same in a process of its own; what it prints goes into ``log.txt`` of its folder."""
    import torch

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    task.folder.mkdir(parents=True, exist_ok=True)
    with open(task.folder / "log.txt", "a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        train(task)


def _train_all(tasks: Sequence[Training], config: AblateConfig) -> None:
    """Train all that are not yet trained, several at once, the longest first."""
    from tqdm import tqdm

    from psvit.engine.device import pick_device

    todo = [task for task in tasks if task.read_result() is None]
    on_cpu = pick_device(config.device).type == "cpu"
    at_once = config.jobs or (cores() if on_cpu else 1)
    with tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc="trained", unit="network", disable=None) as bar:

        def done(job: Job, _: None) -> None:
            with bar.external_write_mode():
                print(f"{job.name}: top-1 {job.argument.read_result().top1:.4f}", flush=True)
            bar.update()

        threads = 1 if on_cpu else max(1, cores() // at_once)
        run_jobs(
            [
                Job(task.name, _train_apart, replace(task, threads=threads))
                for task in sorted(todo, key=_work, reverse=True)
            ],
            at_once,
            done,
        )


def _work(task: Training) -> float:
    """How long it may take, in no unit: a search's supernet takes longest."""
    return find_arch(task.retrain.arch).cost.flops if task.search is None else math.inf


# ---------------------------------------------------------------------------------------------------- the task


def ablate(config: AblateConfig) -> Path:
    """Train the networks of a table, or of all, that are not yet trained, and write the tables.

    A network is trained once for all tables and all later calls that ask for it. Writes ``table-TABLE.json``, ``.csv``,
    ``.md`` and ``.png``.

    Returns:
        The folder.

    Raises:
        ValueError: what a search or ``retrain`` refuses, in a line that begins with network and seed; or a folder that
            holds an ablation of other settings.
        Stopped: Ctrl-C or SIGTERM came; all trainings have saved what they did.
    """
    from psvit.engine.distributed import Processes

    processes = Processes.from_environment()
    out = Path(config.out)
    variants = dict.fromkeys(row.variant for rows in config.tables.values() for row in rows)
    tasks = [training(config, variant, seed) for variant in variants for seed in config.seeds]
    if processes.world > 1 and config.search.searcher == AUTO and not variants.keys().isdisjoint(SEARCHES):
        raise ValueError("search=auto works in one process; with torchrun, use search=exhaustive or search=evolve")
    binding = {key: value for key, value in asdict(config).items() if key not in ("table", "seeds")}
    with RunFolder(out, binding, processes.main):
        try:
            if processes.world > 1:
                # what is left to do is the same in all, since none ends before all have joined the first
                for task in [task for task in tasks if task.read_result() is None]:
                    if processes.main:
                        print(f"{task.name}, in {task.folder}", flush=True)
                    train(task)
            else:
                _train_all(tasks, config)
        except Stopped:
            raise Stopped(f"stopped; the work so far is saved in {out}; run the same command again to resume") from None
        if processes.main:
            for name, rows in config.tables.items():
                write_table(make_table(name, rows, tasks, config), out)
    return out


# ---------------------------------------------------------------------------------------------------- tables


def make_table(name: str, rows: Sequence[Ablation], tasks: Sequence[Training], config: AblateConfig) -> dict[str, Any]:
    """A table as plain values.

    ``top1`` of a row is by seed, a share of 1 on the test split; ``mean`` is their mean, ``spread`` their sample
    standard deviation (None of one seed), ``published`` the paper's top-1 on ImageNet-1k in percent. A row that is
    searched has what was found by seed in ``found``; its ``layers`` are all of these, its ``flops`` and ``params`` the
    largest.
    """
    made = {(task.variant, task.seed): task.read_result() for task in tasks}
    test_images = 0
    table_rows = []
    for row in rows:
        found = {}
        for seed in config.seeds:
            result = made[row.variant, seed]
            assert result is not None, "the table follows when all are trained"
            test_images = result.num_test_images
            found[str(seed)] = {key: getattr(result, key) for key in ("layers", "flops", "params", "top1")}
        top1 = {seed: result["top1"] for seed, result in found.items()}
        network = network_name(config.scale, row.variant)
        spec = space(network) if row.variant in SEARCHES else find_arch(network).spec
        table_rows.append(
            {
                "label": row.label,
                "variant": row.variant,
                "network": network,
                "widths": list(spec.widths),
                "layers": ", ".join(dict.fromkeys(result["layers"] for result in found.values())),
                "flops": max(result["flops"] for result in found.values()),
                "params": max(result["params"] for result in found.values()),
                "published": row.top1,
                "note": row.note,
                "top1": top1,
                "mean": statistics.fmean(top1.values()),
                "spread": statistics.stdev(top1.values()) if len(top1) > 1 else None,
                "n": len(top1),
            }
            | ({"found": found} if row.variant in SEARCHES else {})
        )
    return {
        "table": name,
        "scale": config.scale.name,
        "data": config.data.name,
        "test_images": test_images,
        "epochs": config.recipe.epochs,
        "seeds": list(config.seeds),
        "budget": config.search.budget.flops,
        "rows": table_rows,
    }


def write_table(table: dict[str, Any], folder: Path) -> None:
    """Write a table as JSON, CSV, Markdown and a picture, and print it."""
    path = folder / f"table-{table['table']}.json"
    text = table_text(table)
    write_text(path, json.dumps(table, indent=2) + "\n")
    write_text(path.with_suffix(".csv"), table_frame(table).to_csv(index=False, lineterminator="\n"))
    write_text(path.with_suffix(".md"), text)
    draw_table(table, path.with_suffix(".png"))
    print(f"\n{text}\nwrote {path}, and .csv, .md and .png next to it")


def table_frame(table: dict[str, Any]) -> pd.DataFrame:
    """The rows as a frame; the top-1 of seed 0 is the column ``top1_seed0``."""
    import pandas as pd

    columns = ("label", "variant", "network", "layers", "flops", "params", "published", "mean", "spread", "n")
    return pd.DataFrame(
        [
            {key: row[key] for key in columns} | {f"top1_seed{seed}": top1 for seed, top1 in row["top1"].items()}
            for row in table["rows"]
        ]
    )


def table_text(table: dict[str, Any]) -> str:
    """The table in Markdown, in columns that a terminal lines up."""
    head = ["row of the paper", "network", "widths", "layers", "FLOPs", "params", "top-1", "paper, ImageNet-1k"]
    lines = [head]
    for row in table["rows"]:
        cost = (format_quantity(row[key], 3) for key in ("flops", "params"))
        published = "-" if row["published"] is None else f"{row['published']:.1f} %"
        widths = ", ".join(map(str, row["widths"]))
        lines.append([short(row), row["network"], widths, row["layers"], *cost, mean_text(row), published])
    wide = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in wide])
    padded = [[text.ljust(width) for text, width in zip(line, wide, strict=True)] for line in lines]
    seeds = len(table["seeds"])
    what = f"mean ± sample standard deviation of {seeds} seeds" if seeds > 1 else f"seed {table['seeds'][0]} only"
    images = f"{table['test_images']:,} test images of {table['data']}"
    notes = [f"- {short(row)}: {row['note']}." for row in table["rows"] if row["note"]]
    return "\n".join(
        [
            f"# Ablation {table['table']!r} on {table['data']}",
            "",
            f"Top-1 on {images} after {table['epochs']} epochs: {what}. The last column is what the paper prints for "
            f"ImageNet-1k{'' if table['data'] == 'imagenet' else ', not ' + table['data']}.",
            "",
            *(f"| {' | '.join(line)} |" for line in padded),
            *(["", "Notes, of the paper's scale:", "", *notes] if notes else []),
            "",
        ]
    )


def short(row: dict[str, Any]) -> str:
    """A row's label without what a colon begins, the dimensions at the paper's scale."""
    return str(row["label"]).partition(":")[0]


def mean_text(row: dict[str, Any]) -> str:
    """``97.31 ± 0.21 % (n = 3)``."""
    spread = "" if row["spread"] is None else f" ± {row['spread']:.2%}".rstrip("%")
    return f"{row['mean']:.2%}".rstrip("%") + f"{spread} % (n = {row['n']})"


def draw_table(table: dict[str, Any], path: Path) -> None:
    """Draw the top-1 of each seed and their mean, a row of points for each row of the table, 1200 pixels wide.

    Raises:
        ValueError: the file's ending is not .png or .svg, or it cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    rows = table["rows"]
    figure = Figure(figsize=(7.5, 1.5 + 0.48 * len(rows)), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    ax = figure.add_subplot()
    ax.grid(color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    points = [(top1, place) for place, row in enumerate(rows) for top1 in row["top1"].values()]
    ax.plot(*zip(*points, strict=True), "o", ms=6, mfc="none", mec=BLUE, mew=1.2, ls="", zorder=3, label="a seed")
    means = [row["mean"] for row in rows]
    ax.plot(means, range(len(rows)), "|", ms=17, color=VERMILLION, mew=2.2, ls="", zorder=4, label="mean")
    ax.set_yticks(range(len(rows)), [short(row) for row in rows], fontsize=9, parse_math=False)
    ax.tick_params(length=0)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    if min(top1 for top1, _ in points) == max(top1 for top1, _ in points):
        ax.set_xlim(points[0][0] - 0.02, points[0][0] + 0.02)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_locator(MaxNLocator(7))
    ax.set_xlabel(f"top-1 on the test images of {table['data']}")
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [f"{row['network']}\n{_cost(row)}" for row in rows], fontsize=7, color=GREY)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    many = f"{len(table['seeds'])} seed{'s' if len(table['seeds']) > 1 else ''}"
    ax.set_title(f"{table['table']} on {table['data']}, {table['epochs']} epochs, {many}", loc="left", parse_math=False)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)


def _cost(row: dict[str, Any]) -> str:
    return f"{format_quantity(row['flops'], 3)} FLOPs, {format_quantity(row['params'], 3)} parameters"
